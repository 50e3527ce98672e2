#!/usr/bin/env python3
"""Checks a webhook as a receiver would: with the public Standard Webhooks library, and X-Hub-Signature with openssl.

usage: verify_webhook.py SECRET BODY_FILE < HEADERS (JSON)

Prints one line for each secret's proof that holds: "standard", "hub", "hub-previous". Exits 1 if none does.
"""

import json
import subprocess
import sys

from standardwebhooks import Webhook, WebhookVerificationError


def hub_signature(secret: str, body_file: str) -> str:
    """The published scheme, worked out by a tool that has nothing to do with the router."""
    digest = subprocess.run(
        ["openssl", "dgst", "-sha1", "-hmac", secret, "-r", body_file], check=True, capture_output=True, text=True
    ).stdout.split()[0]
    return f"sha1={digest}"


def main() -> int:
    secret, body_file = sys.argv[1:3]
    headers = json.load(sys.stdin)
    with open(body_file, "rb") as file:
        body = file.read()
    proofs = []
    try:
        Webhook(secret).verify(body, headers)
        proofs.append("standard")
    except WebhookVerificationError:
        pass
    expected = hub_signature(secret, body_file)
    for name, header in [("hub", "x-hub-signature"), ("hub-previous", "x-hub-signature-previous")]:
        if headers.get(header) == expected:
            proofs.append(name)
    for proof in proofs:
        print(proof)
    return 0 if proofs else 1


if __name__ == "__main__":
    sys.exit(main())
