//! The program's commands, run as a person runs them.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    path::Path,
    process::{Command, Output, Stdio},
    thread::JoinHandle,
};
use tempfile::TempDir;

fn tract(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    command(directory, arguments).envs(environment.iter().copied()).output().unwrap()
}

/// The program, without settings from the environment.
fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tract"));
    for (variable, _) in std::env::vars_os().filter(|(k, _)| k.to_string_lossy().starts_with("TRACT_")) {
        command.env_remove(variable);
    }
    command.current_dir(directory).args(arguments);
    command
}

fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = TempDir::new().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}
fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Checks that a command failed with one clear line.
fn one_line(output: &Output) -> String {
    let text = stderr(output);
    assert!(!output.status.success() && text.starts_with("tract: ") && text.lines().count() == 1, "{output:?}");
    text
}

const CERTIFICATE: &str = include_str!("../../src/tenancy/tests/rsa-2048.pem");
const TENANTS: &str = r#"
[[client]]
client_id = "acme"
ects = ["sprinkle"]
[client.iva]
url = "http://127.0.0.1:9/turn"
[[client.business]]
business_id = 343

[[ect]]
ect_id = "sprinkle"
fqdn = "chat.sprinkle.example"
certificates = ["sprinkle.pem"]
"#;

#[test]
fn help_has_an_example_for_every_command() {
    let here = directory(&[]);
    for command in ["demo", "serve", "apply", "token", "check", "conformance", "hooks", "migrate"] {
        let output = tract(here.path(), &[command, "--help"], &[]);
        assert!(
            output.status.success() && stdout(&output).contains(&format!("Example:\n  tract {command}")),
            "{command}"
        );
    }
    let output = tract(here.path(), &["apply", "--help"], &[("TRACT_ADMIN_TOKEN", "hush")]);
    assert!(!stdout(&output).contains("hush"));
}

/// The log is no place for it.
#[test]
fn the_admin_token_of_a_run_is_printed_on_stdout() {
    let here = directory(&[]);
    let mut command = command(here.path(), &["serve", "--listen", "127.0.0.1:0"]);
    let mut serving = command.env_remove("RUST_LOG").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(serving.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let mut logged = Vec::new();
    for event in BufReader::new(serving.stderr.take().unwrap()).lines() {
        logged.push(event.unwrap());
        if logged.last().is_some_and(|event| event.contains("listening")) {
            break;
        }
    }
    serving.kill().unwrap();
    serving.wait().unwrap();
    let token = line.strip_prefix("tract: admin token for this run: ").unwrap().trim_end();
    assert!(token.len() > 20 && logged.iter().all(|event| !event.contains(token)), "{line}{logged:?}");
}

#[test]
fn check_says_what_is_wrong_and_where() {
    let here = directory(&[
        ("bad.toml", "listen = 80\n[store]\npartitions = 0\n"),
        ("tenants.toml", TENANTS),
        ("open.toml", "[egress]\nallow_http = true\n"),
    ]);
    let config = tract(here.path(), &["check", "--config", "bad.toml"], &[]);
    let expected = "bad.toml:1: listen: must be a string, not a number\n\
                    bad.toml:3: store.partitions: must be from 1 to 1024\n";
    assert_eq!(stdout(&config), expected);
    assert_eq!((config.status.code(), stderr(&config).as_str()), (Some(1), "tract: 2 faults\n"));

    let missing = tract(here.path(), &["check", "--config", "open.toml", "-f", "tenants.toml"], &[]);
    assert!(stdout(&missing).starts_with("tenants.toml:13: ect[0].certificates[0]: sprinkle.pem: "), "{missing:?}");
    std::fs::write(here.path().join("sprinkle.pem"), CERTIFICATE).unwrap();
    let fine = tract(here.path(), &["check", "--config", "open.toml", "-f", "tenants.toml"], &[]);
    assert_eq!((fine.status.code(), stdout(&fine).as_str()), (Some(0), "ok\n"), "{fine:?}");

    let http = tract(here.path(), &["check", "-f", "tenants.toml"], &[]);
    assert!(stdout(&http).starts_with("tenants.toml:6: client[0].iva.url: must be an https URL"), "{http:?}");
    let allowed = tract(here.path(), &["check", "-f", "tenants.toml"], &[("TRACT_EGRESS__ALLOW_HTTP", "true")]);
    assert_eq!(stdout(&allowed), "ok\n");
    let variable = tract(here.path(), &["check"], &[("TRACT_STORE__KIND", "redis")]);
    assert!(stdout(&variable).contains("store.url: is missing"), "{variable:?}");
    let redis = [("TRACT_STORE__KIND", "redis"), ("TRACT_STORE__URL", "redis+cluster://h/1")];
    let variable = tract(here.path(), &["check"], &redis);
    assert!(
        stdout(&variable).starts_with("TRACT_STORE__URL: store.url: must be like redis+cluster://"),
        "{variable:?}"
    );
    for url in
        ["redis://127.0.0.1:1", "rediss+cluster://u:p@127.0.0.1:1,127.0.0.1:2", "redis+sentinel://127.0.0.1:1/mine"]
    {
        let redis = [("TRACT_STORE__KIND", "redis"), ("TRACT_STORE__URL", url)];
        assert_eq!(stdout(&tract(here.path(), &["check"], &redis)), "ok\n", "it asks nobody");
    }
    let names: Vec<_> = std::fs::read_dir(here.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 4, "it touches nothing: {names:?}");
}

#[test]
fn a_private_key_never_leaves() {
    let key = format!("{CERTIFICATE}-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n");
    let here = directory(&[("tenants.toml", TENANTS), ("sprinkle.pem", &key)]);
    let apply = tract(here.path(), &["apply", "-f", "tenants.toml", "--admin-token", "x"], &[]);
    assert!(one_line(&apply).contains("tenants.toml:13: ect[0].certificates[0]: holds a private key"), "{apply:?}");
}

#[test]
fn errors_are_one_line() {
    let here = directory(&[("bad.toml", "listen = \n"), ("tenants.toml", "[[client]]\n")]);
    for (arguments, expected) in [
        (&["serve", "--config", "none.toml"][..], "none.toml: No such file"),
        (&["serve", "--config", "bad.toml"], "bad.toml:1: "),
        (&["serve", "--listen", "nowhere"], "must be an IP address and port"),
        (&["demo", "--listen", "nowhere"], "must be an IP address and port"),
        (&["check", "-f", "none.toml"], "none.toml: No such file"),
        (&["apply", "-f", "none.toml", "--admin-token", "x"], "none.toml: No such file"),
        (&["apply", "-f", "tenants.toml", "--admin-token", "x"], "tenants.toml:1: client[0].client_id: is missing"),
        (&["apply", "-f", "tenants.toml"], "--admin-token"),
        (&["apply", "-f", "tenants.toml", "--admin-token", "x", "--url", "nowhere"], "must be a URL such as"),
        (&["token", "--client", "acme"], "--receiver"),
        (&["token", "--client", "a", "--receiver", "b", "--admin-token", "x", "--ttl", "soon"], "must be a duration"),
        (&["hooks", "list"], "--admin-token"),
        (&["hooks", "enable", "--admin-token", "x"], "<ENDPOINT>"),
        (&["hooks", "replay", "--admin-token", "x"], "--webhook-id"),
        (&["hooks", "replay", "--webhook-id", "m", "--since", "2026-01-01T00:00:00Z", "--admin-token", "x"], "--since"),
        (&["hooks", "dead-letters", "--limit", "many", "--admin-token", "x"], "--limit"),
        (&["frobnicate"], "unrecognized subcommand"),
        (&["check", "--frobnicate"], "unexpected argument"),
    ] {
        let line = one_line(&tract(here.path(), arguments, &[]));
        assert!(line.contains(expected), "{arguments:?}: {line}");
    }
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{nobody}");
    let arguments = ["token", "--client", "a", "--receiver", "b", "--admin-token", "x", "--url", &url];
    assert!(one_line(&tract(here.path(), &arguments, &[])).contains("cannot reach the router at http://"));
}

/// A router that gives one answer, and what it was asked.
fn router(status: &'static str, answer: &'static str) -> (String, JoinHandle<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let asked = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream);
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let size = answer.len();
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {size}\r\nconnection: close\r\n\r\n{answer}");
        reader.into_inner().write_all(answer.as_bytes()).unwrap();
        (head, String::from_utf8(body).unwrap())
    });
    (url, asked)
}

#[test]
fn apply_sends_the_certificates_and_prints_what_was_made_in_the_files_order() {
    let here = directory(&[("tenants.toml", TENANTS), ("sprinkle.pem", CERTIFICATE)]);
    let (url, asked) = router(
        "200 OK",
        r#"{"made":[{"kind":"certificate","of":"sprinkle","value":"u-u"},{"kind":"api_token","of":"acme","value":"t"}]}"#,
    );
    let environment = [("TRACT_URL", url.as_str()), ("TRACT_ADMIN_TOKEN", "let-me-in")];
    let output = tract(here.path(), &["apply", "-f", "tenants.toml"], &environment);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stdout(&output), "api_token acme t\ncertificate sprinkle u-u\n");
    let (head, body) = asked.join().unwrap();
    assert!(head.starts_with("POST /admin/v1/apply ") && head.contains("Bearer let-me-in"), "{head}");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["ect"][0]["certificates"][0], CERTIFICATE);
    assert_eq!(body["client"][0]["business"][0]["business_id"], 343);
}

#[test]
fn what_the_router_refuses_is_shown_at_its_line() {
    let here = directory(&[("tenants.toml", TENANTS), ("sprinkle.pem", CERTIFICATE)]);
    for (status, answer, expected) in [
        (
            "400 Bad Request",
            r#"{"error":"client[0].ects[0]: there is no ECT \"sprinkle\""}"#,
            "tenants.toml:4: client[0].ects[0]: ",
        ),
        ("400 Bad Request", r#"{"error":"no","code":"x"}"#, "the router refused: no"),
        ("401 Unauthorized", r#"{"error":"no"}"#, "the router refused the admin token"),
        ("503 Service Unavailable", r#"{"error":"busy"}"#, "the router answered 503: busy"),
        ("200 OK", "<html>", "not what this version of tract expects"),
        ("302 Found", "", "the router answered 302"),
    ] {
        let (url, asked) = router(status, answer);
        let output = tract(here.path(), &["apply", "-f", "tenants.toml", "--url", &url, "--admin-token", "x"], &[]);
        assert!(one_line(&output).contains(expected), "{output:?}");
        asked.join().unwrap();
    }
}

#[test]
fn token_prints_the_token_alone() {
    let here = directory(&[]);
    let (url, asked) = router("200 OK", r#"{"token":"ey.j.x","token_type":"Bearer","expires_in":5400}"#);
    let arguments = ["token", "--client", "acme", "--receiver", "sprinkle", "--ttl", "90m", "--url", &url];
    let output = tract(here.path(), &arguments, &[("TRACT_ADMIN_TOKEN", "x")]);
    assert_eq!(stdout(&output), "ey.j.x\n");
    let (head, body) = asked.join().unwrap();
    assert!(head.starts_with("POST /admin/v1/tokens "), "{head}");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body, serde_json::json!({ "client_id": "acme", "receiver": "sprinkle", "ttl_seconds": 5400 }));
}

#[test]
fn hooks_show_a_table_or_json() {
    let here = directory(&[]);
    let help = stdout(&tract(here.path(), &["hooks", "--help"], &[]));
    for what in ["list", "enable", "dead-letters", "replay"] {
        assert!(help.contains(what), "{help}");
        let output = stdout(&tract(here.path(), &["hooks", what, "--help"], &[]));
        assert!(output.contains(&format!("Example:\n  tract hooks {what}")), "{output}");
    }
    let answer =
        r#"{"hooks":[{"endpoint":"iva:acme","enabled":true,"breaker":"closed","pending":2,"dead_letters":0}]}"#;
    let (url, asked) = router("200 OK", answer);
    let environment = [("TRACT_URL", url.as_str()), ("TRACT_ADMIN_TOKEN", "let-me-in")];
    let output = tract(here.path(), &["hooks", "list", "--client", "acme"], &environment);
    let expected = "ENDPOINT  ENABLED  BREAKER  PENDING  DEAD_LETTERS  LAST_SUCCESS_AT  LAST_ERROR\n\
                    iva:acme  true     closed   2        0             -                -\n";
    assert_eq!(stdout(&output), expected, "{output:?}");
    let (head, _) = asked.join().unwrap();
    assert!(head.starts_with("GET /admin/v1/hooks?client_id=acme ") && head.contains("Bearer let-me-in"), "{head}");

    let (url, asked) = router("200 OK", answer);
    let output = tract(here.path(), &["hooks", "list", "--json", "--url", &url, "--admin-token", "x"], &[]);
    let shown: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(shown["hooks"][0]["pending"], 2);
    assert!(asked.join().unwrap().0.starts_with("GET /admin/v1/hooks "));

    let (url, asked) = router("200 OK", r#"{"success":true,"replayed":3}"#);
    let since = ["hooks", "replay", "--client", "acme", "--since", "2026-01-01T00:00:00Z"];
    let output = tract(here.path(), &[&since[..], &["--url", &url, "--admin-token", "x"]].concat(), &[]);
    assert_eq!(stdout(&output), "3\n", "{output:?}");
    let (head, body) = asked.join().unwrap();
    assert!(head.starts_with("POST /admin/v1/dead_letters/replay "), "{head}");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body, serde_json::json!({"client_id": "acme", "since": "2026-01-01T00:00:00Z"}));

    let (url, asked) = router("404 Not Found", r#"{"error":"no such hook","code":"unknown_hook"}"#);
    let enable = ["hooks", "enable", "hook:a:b:message:receive", "--url", &url, "--admin-token", "x"];
    assert_eq!(one_line(&tract(here.path(), &enable, &[])), "tract: the router refused: no such hook\n");
    asked.join().unwrap();
}

/// The token of a run that did not begin would only mislead.
#[test]
fn serve_that_cannot_start_shows_no_token() {
    let here = directory(&[]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = tract(here.path(), &["serve", "--listen", &address], &[("RUST_LOG", "error")]);
    assert!(one_line(&output).contains(&address), "{output:?}");
}
