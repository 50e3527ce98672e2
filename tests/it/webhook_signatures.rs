//! Webhooks as a receiver checks them: by the public Standard Webhooks library for Python and by `openssl`, none of which
//! is ours, also while the secret rotates (section 8).

use crate::support::{Fixture, Received};
use reqwest::Method;
use std::io::Write;
use std::process::{Command, Stdio};

const AUTH: &str = "+49 170 3";
const DAY: u64 = 24 * 3600 * 1000;

/// The proofs that hold of a webhook for whoever knows this secret.
fn proofs(received: &Received, secret: &str) -> Vec<String> {
    let python = std::env::var("TRACT_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/clients/verify_webhook.py");
    let mut body = tempfile::NamedTempFile::new().unwrap();
    body.write_all(&received.raw).unwrap();
    let headers: serde_json::Map<_, _> =
        received.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().into())).collect();
    let mut child = Command::new(python)
        .arg(script)
        .arg(secret)
        .arg(body.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python starts");
    child.stdin.take().unwrap().write_all(serde_json::Value::Object(headers).to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn the_public_library_and_openssl_verify_webhooks_also_while_the_secret_rotates() {
    let router = Fixture::start().await;
    router.customer(AUTH).await;
    let old = router.desk.secret();
    router.channel.say(AUTH, "before").await;
    let before = router.desk.hear("message.receive", "before").await;
    assert_eq!(proofs(&before, &old), ["standard", "hub"]);
    router.desk.hear("message.receive", "you said before").await;

    // Nothing needs to be said.
    let request = router.sprinkle.request(Method::POST, "/tract/hooks/secret/rotate/");
    let rotated = router.api.send(request).await.ok();
    let new = rotated["secret"].as_str().expect("the new secret is shown").to_owned();
    assert_ne!(new, old);
    router.desk.expect_signed_with(&new);
    router.channel.say(AUTH, "during").await;
    let during = router.desk.hear("message.receive", "during").await;
    assert_eq!(proofs(&during, &new), ["standard", "hub"]);
    assert_eq!(proofs(&during, &old), ["standard", "hub-previous"], "who has not changed over yet is not cut off");

    router.clock.advance(DAY);
    router.channel.say(AUTH, "after").await;
    let after = router.desk.hear("message.receive", "after").await;
    assert_eq!(proofs(&after, &old), Vec::<String>::new());
    assert!(!after.headers.contains_key("x-hub-signature-previous"));
    assert_eq!(after.header("webhook-signature").split(' ').count(), 1);

    // Across a restart, and for hooks that are registered later.
    let router = router.restarted_after(1).await;
    router.channel.say(AUTH, "again").await;
    let again = router.desk.hear("message.receive", "again").await;
    assert!(again.header("x-hub-signature").starts_with("sha1="));
    router.stop().await;
}
