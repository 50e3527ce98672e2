//! `[tls]`: the router shows a certificate itself, and takes a renewed one without a restart (section 11).

use crate::support::ManualClock;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tract::app;
use tract::config::{Settings, StoreSettings};
use tract::server::tls::TlsFiles;
use tract::{telemetry, tenancy::Secret};
use tract_actors::ports::Clock;

/// Makes a certificate and writes it to the files; its PEM.
fn issue(files: &TlsFiles) -> String {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    fs::write(&files.cert, made.cert.pem()).unwrap();
    made.cert.pem()
}

fn files(directory: &Path) -> TlsFiles {
    TlsFiles { cert: directory.join("cert.pem"), key: directory.join("key.pem") }
}

/// Whether the router shows this certificate to a new connection, and by which protocol it then answers.
async fn shown(port: u16, pem: &str, http1: bool) -> Option<reqwest::Version> {
    let certificate = reqwest::Certificate::from_pem(pem.as_bytes()).unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([certificate]);
    let client = if http1 { client.http1_only() } else { client }.build().unwrap();
    let answer = client.get(format!("https://localhost:{port}/healthz")).send().await.ok()?;
    assert_eq!(answer.status(), 200);
    Some(answer.version())
}

#[tokio::test]
async fn it_ends_tls_and_takes_a_renewed_certificate() {
    let data = tempfile::tempdir().unwrap();
    let files = files(data.path());
    let first = issue(&files);
    let clock = Arc::new(ManualClock::new());
    let mut settings = Settings {
        listen: ([127, 0, 0, 1], 0).into(),
        store: StoreSettings::Embedded { path: data.path().join("store"), partitions: 4 },
        tls: Some(files.clone()),
        ..Settings::default()
    };
    settings.security.admin_token = Some(Secret::new("the-operator-of-this-test"));
    let metrics = telemetry::detached().unwrap();
    let running = app::start(settings, Arc::clone(&clock) as Arc<dyn Clock>, metrics).await.unwrap();
    let port = running.addr().port();
    assert_eq!(shown(port, &first, false).await, Some(reqwest::Version::HTTP_2));
    assert_eq!(shown(port, &first, true).await, Some(reqwest::Version::HTTP_11));
    let plain = reqwest::Client::builder().no_proxy().build().unwrap();
    assert!(plain.get(format!("http://localhost:{port}/healthz")).send().await.is_err(), "plain HTTP is not spoken");

    // A renewal that goes wrong changes nothing…
    fs::write(&files.cert, "half written").unwrap();
    for _ in 0..5 {
        clock.advance(10_000);
        assert!(shown(port, &first, false).await.is_some());
    }
    // … and one that goes right takes effect, sooner or later: only the router knows when it looks.
    let second = issue(&files);
    let renewed = async {
        loop {
            clock.advance(10_000);
            if shown(port, &second, false).await.is_some() {
                return;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), renewed).await.expect("the new certificate is shown");
    assert_eq!(shown(port, &first, false).await, None, "the old one is gone");
    running.stop().await.unwrap();
}

#[test]
fn check_judges_the_pair() {
    let here = tempfile::tempdir().unwrap();
    let files = files(here.path());
    issue(&files);
    fs::write(here.path().join("tract.toml"), "[tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n").unwrap();
    let check = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tract"));
        let output = command.current_dir(here.path()).args(["check", "--config", "tract.toml"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(check(), "ok\n");
    let old = fs::read(&files.key).unwrap();
    issue(&files);
    fs::write(&files.key, old).unwrap();
    assert!(check().starts_with("tract.toml:2: tls.cert: the certificate and the key cannot be used together"));
    fs::write(&files.key, "no key").unwrap();
    let said = check();
    assert!(said.starts_with("tract.toml:3: tls.key: ") && said.contains("holds no PEM private key"), "{said}");
}
