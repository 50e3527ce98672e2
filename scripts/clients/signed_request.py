#!/usr/bin/env python3
"""A chat tool that knows only the published contract: obtains tokens with signed requests, and uses them.

Makes keys of every kind, has the operator's API hold their self-signed certificates, and asks for a token with each kind of
key and each hash. Needs the package `cryptography`. Prints one line for each token that worked; ends with 1 at the first
thing that is not as it should be.

    scripts/clients/signed_request.py --url http://127.0.0.1:8080 --admin-token … \\
        --ect sprinkle --fqdn chat.sprinkle.example --client acme
"""

import argparse
import base64
import datetime
import json
import sys
import urllib.error
import urllib.request

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

KEYS = {
    "rsa-2048": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ec-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ec-p384": lambda: ec.generate_private_key(ec.SECP384R1()),
}
HASHES = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256()}


def call(url, method, body=None, headers=None):
    """Status and body of an answer."""
    request = urllib.request.Request(url, data=body, method=method, headers=headers or {})
    # No proxy from the environment stands between this machine and itself.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def expect(what, answer, status=200, code=None):
    """The body, if the answer is as it should be."""
    if answer[0] != status or (code and answer[1].get("code") != code):
        sys.exit(f"{what}: expected {status} {code or ''}, got {answer}")
    return answer[1]


def self_signed(key, fqdn):
    """A certificate such as `openssl req -x509` makes it."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, fqdn)])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=365))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(fqdn)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def sign(key, body, algorithm):
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(body, padding.PKCS1v15(), algorithm)
    return key.sign(body, ec.ECDSA(algorithm))


class Tool:
    """A chat tool with one key."""

    def __init__(self, url, fqdn, key, uuid):
        self.url, self.fqdn, self.key, self.uuid = url, fqdn, key, uuid

    def signed(self, path, hash_name, moment, **fields):
        body = json.dumps({"fqdn": self.fqdn, "timestamp": moment, **fields}).encode()
        headers = {
            "Content-Type": "application/json",
            "Signature": base64.b64encode(sign(self.key, body, HASHES[hash_name])).decode(),
            "SignatureCertUUID": self.uuid,
        }
        if hash_name != "sha1":
            headers["Signature-Algorithm"] = hash_name
        return call(self.url + path, "POST", body, headers)


def moments():
    """The present time, never the same one twice."""
    start = datetime.datetime.now(datetime.timezone.utc)
    n = 0
    while True:
        at = start + datetime.timedelta(milliseconds=n)
        yield at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        n += 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ["url", "admin-token", "ect", "fqdn", "client"]:
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args()
    admin = {"Authorization": f"Bearer {options.admin_token}", "Content-Type": "application/json"}
    moment = moments()

    for kind, make in KEYS.items():
        key = make()
        upload = json.dumps({"pem": self_signed(key, options.fqdn)}).encode()
        certificates = f"{options.url}/admin/v1/ects/{options.ect}/certificates"
        held = expect(f"uploading {kind}", call(certificates, "POST", upload, admin))
        tool = Tool(options.url, options.fqdn, key, held["uuid"])
        for hash_name in HASHES:
            what = f"{kind} {hash_name}"
            clients = expect(what, tool.signed("/tract/management/client/list/", hash_name, next(moment)))["clients"]
            if options.client not in [client["client_id"] for client in clients]:
                sys.exit(f"{what}: {options.client} is not among {clients}")
            for path in ["/tract/management/token/issue/", "/jwt/issue"]:
                at = next(moment)
                issued = expect(what, tool.signed(path, hash_name, at, client_id=options.client))
                if (issued["token_type"], issued["expires_in"]) != ("Bearer", 3600):
                    sys.exit(f"{what}: {issued['token_type']} {issued['expires_in']}")
                bearer = {"Authorization": f"Bearer {issued['token']}", "client-id": options.client}
                expect(f"{what}: using the token", call(options.url + "/tract/hooks/list/", "GET", None, bearer))
                again = tool.signed(path, hash_name, at, client_id=options.client)
                expect(f"{what}: again", again, 400, "replayed_request")
            print(f"ok {what}")


if __name__ == "__main__":
    main()
