use super::*;
use proptest::prelude::*;

fn faults(text: &str, environment: &[(&str, &str)]) -> Vec<String> {
    let environment = environment.iter().map(|(k, v)| (OsString::from(k), OsString::from(v)));
    match Settings::read(Some((Path::new("tract.toml"), text)), environment) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.iter().map(Located::to_string).collect(),
    }
}

const WHOLE: &str = r#"
listen = "127.0.0.1:9090"
public_url = "https://tract.example/"
node_id = "n1"
[store]
kind = "embedded"
path = "./data"
url = "redis://127.0.0.1:6379"
partitions = 64
[security]
admin_token = "a-token"
jwt_keys = [{ kid = "k1", secret = "0123456789abcdef0123456789abcdef" }]
[egress]
allow_private = true
allow_http = true
[limits]
requests_per_second_per_token = 5
in_flight = 10
connections = 15
live_actors = 20
passivate_after = "90s"
actor_threads = 3
[retention]
completed = "90d"
"#;

#[test]
fn a_whole_file_is_read() {
    let settings = Settings::read(Some((Path::new("tract.toml"), WHOLE)), []).unwrap();
    assert_eq!(settings.listen.port(), 9090);
    assert_eq!(settings.public_url.map(|url| url.to_string()).as_deref(), Some("https://tract.example"));
    assert_eq!(settings.node_id, "n1");
    assert_eq!(settings.store, StoreSettings::Embedded { path: "./data".into(), partitions: 64 });
    assert_eq!(settings.security.admin_token, Some(Secret::new("a-token")));
    assert_eq!(settings.security.jwt_keys[0].kid, "k1");
    assert_eq!(settings.egress.rules, EgressRules { allow_private: true, allow_http: true });
    let limits = Limits {
        requests_per_second_per_token: 5,
        in_flight: 10,
        connections: 15,
        live_actors: 20,
        passivate_after: Duration::from_secs(90),
        actor_threads: Some(3),
    };
    assert_eq!(settings.limits, limits);
    assert_eq!(settings.retention.completed, Some(Duration::from_secs(90 * 86_400)));
}

#[test]
fn without_a_file_everything_has_its_default() {
    let settings = Settings::read(None, []).unwrap();
    assert_eq!(settings, Settings { node_id: settings.node_id.clone(), ..Settings::default() });
    assert_ne!(settings.node_id, Settings::default().node_id);
}

#[test]
fn the_environment_wins() {
    let environment = [
        ("TRACT_LISTEN", "0.0.0.0:80"),
        ("TRACT_STORE__PARTITIONS", "8"),
        ("TRACT_EGRESS__ALLOW_HTTP", "false"),
        ("TRACT_LIMITS__PASSIVATE_AFTER", "1h"),
        ("TRACT_SECURITY__ADMIN_TOKEN", "123456"),
        ("TRACT_SECURITY__JWT_KEYS", r#"[{ kid = "e", secret = "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee" }]"#),
        ("TRACT_URL", "http://elsewhere"),
        ("TRACT_ADMIN_TOKEN", "for the client commands"),
        ("TRACT_PORT", "tcp://10.0.0.1:80"),
        ("TRACTOR__X", "1"),
    ];
    let environment = environment.map(|(k, v)| (OsString::from(k), OsString::from(v)));
    let settings = Settings::read(Some((Path::new("tract.toml"), WHOLE)), environment).unwrap();
    assert_eq!(settings.listen.port(), 80);
    assert_eq!(settings.store, StoreSettings::Embedded { path: "./data".into(), partitions: 8 });
    assert_eq!(settings.egress.rules, EgressRules { allow_private: true, allow_http: false });
    assert_eq!(settings.limits.passivate_after, Duration::from_secs(3600));
    assert_eq!(settings.security.admin_token, Some(Secret::new("123456")));
    assert_eq!(settings.security.jwt_keys[0].kid, "e");
}

#[test]
fn each_mistake_is_named_with_line_and_key() {
    for (text, expected) in [
        ("lisen = \"127.0.0.1:1\"", "tract.toml:1: lisen: is not a key that is known here; known are listen"),
        ("\nlisten = 8080", "tract.toml:2: listen: must be a string, not a number"),
        ("listen = \"example:x\"", "tract.toml:1: listen: must be an IP address and port"),
        ("listen = \":8080\"", "tract.toml:1: listen: must be an IP address and port"),
        ("listen = \"127.0.0.1:99999\"", "tract.toml:1: listen: must be an IP address"),
        ("node_id = \"a b\"", "tract.toml:1: node_id: may only contain"),
        ("store = \"embedded\"", "tract.toml:1: store: must be a table, not a string"),
        ("[store]\nkind = \"mysql\"", "tract.toml:2: store.kind: must be \"embedded\""),
        ("[store]\nkind = \"redis\"", "tract.toml:1: store.url: is missing"),
        ("[store]\nkind = \"redis\"\nurl = \"localhost\"", "tract.toml:3: store.url: must be like redis://"),
        ("[store]\nurl = \"redis+cluster://x/1\"", "tract.toml:2: store.url: must be like redis+cluster://"),
        ("[store]\nurl = \"redis+sentinel://x\"", "tract.toml:2: store.url: must be like redis+sentinel://"),
        (
            "[store]\nca = \"a.pem\"\nurl = \"redis://x\"",
            "tract.toml:3: store.url: has no TLS, so store.ca means nothing",
        ),
        (
            "[store]\nkind = \"redis\"\nurl = \"rediss://x\"\nca = \"no-such.pem\"",
            "tract.toml:4: store.ca: no-such.pem: ",
        ),
        ("[store]\npath = \"\"", "tract.toml:2: store.path: must not be empty"),
        ("[store]\npartitions = 0", "tract.toml:2: store.partitions: must be from 1 to 1024"),
        ("[store]\npartitions = -1", "tract.toml:2: store.partitions: must be from 1 to 1024"),
        ("[store]\npartitions = 2.5", "tract.toml:2: store.partitions: must be a whole number, not a fraction"),
        ("[store]\npartitions = \"256\"", "tract.toml:2: store.partitions: must be a whole number, not a string"),
        ("[store]\npartitions = 99999999999999999999", "tract.toml:2: store.partitions: this number is too large"),
        ("[store]\nfile = 1", "tract.toml:2: store.file: is not a key that is known here"),
        ("[security]\nadmin_token = \"\"", "tract.toml:2: security.admin_token: must not be empty"),
        ("[security]\nadmin_token = \"a b\"", "tract.toml:2: security.admin_token: may only contain visible ASCII"),
        (
            "[security]\njwt_keys = [\n  { kid = \"k\", secret = \"short\" },\n]",
            "tract.toml:3: security.jwt_keys[0].secret: must be at least 32 bytes long",
        ),
        ("[[security.jwt_keys]]\nkid = \"k\"", "tract.toml:1: security.jwt_keys[0].secret: is missing"),
        ("[security]\njwt_keys = \"x\"", "tract.toml:2: security.jwt_keys: must be a list, not a string"),
        ("[egress]\nallow_http = \"yes\"", "tract.toml:2: egress.allow_http: must be true or false, not a string"),
        ("[egress]\nextra_roots = [\"no-such.pem\"]", "tract.toml:2: egress.extra_roots[0]: no-such.pem: "),
        ("[egress]\nextra_roots = [1]", "tract.toml:2: egress.extra_roots[0]: must be a string, not a number"),
        ("[limits]\nin_flight = 0", "tract.toml:2: limits.in_flight: must be from 1 to"),
        ("[limits]\nconnections = 0", "tract.toml:2: limits.connections: must be from 1 to"),
        ("[tls]\ncert = \"c.pem\"", "tract.toml:1: tls.key: is missing"),
        ("[tls]\ncert = \"none.pem\"\nkey = \"k\"", "tract.toml:2: tls.cert: none.pem: cannot be read: "),
        ("[limits]\npassivate_after = \"soon\"", "tract.toml:2: limits.passivate_after: must be a duration"),
        ("[limits]\nactor_threads = 0", "tract.toml:2: limits.actor_threads: must be from 1 to 1024"),
        ("[limits]\npassivate_after = 0", "tract.toml:2: limits.passivate_after: must be more than nothing"),
        ("listen = \n", "tract.toml:1: "),
        ("[store]\n[store]", "tract.toml:2: "),
    ] {
        let faults = faults(text, &[]);
        assert!(faults.len() == 1 && faults[0].starts_with(expected), "{text:?}\n{expected}\n{faults:#?}");
    }
    let all = faults("listen = 1\n[limits]\nin_flight = 0\nx = 1\n[store]\nkind = 3\n", &[]);
    assert_eq!(all.len(), 4, "every fault at once: {all:#?}");
}

#[test]
fn a_mistake_in_the_environment_is_named_with_its_variable() {
    for (variable, text, expected) in [
        ("TRACT_STORE__KIND", "mysql", "TRACT_STORE__KIND: store.kind: must be"),
        ("TRACT_STORE__PARTITIONS", "many", "TRACT_STORE__PARTITIONS: store.partitions: must be a whole number"),
        ("TRACT_STORE__KNID", "embedded", "TRACT_STORE__KNID: store.knid: is not a key that is known"),
        ("TRACT_LISTEN", "nowhere", "TRACT_LISTEN: listen: must be an IP address"),
        ("TRACT_SECURITY__JWT_KEYS", "[{", "TRACT_SECURITY__JWT_KEYS: security.jwt_keys: is not a list"),
        ("TRACT_EGRESS__ALLOW_HTTP", "1", "TRACT_EGRESS__ALLOW_HTTP: egress.allow_http: must be true or false"),
    ] {
        let faults = faults("", &[(variable, text)]);
        assert!(faults.len() == 1 && faults[0].starts_with(expected), "{variable}\n{expected}\n{faults:#?}");
    }
}

#[test]
fn no_secret_is_seen_in_faults_or_debug() {
    let text = "[security]\nadmin_token = \"hush hush\"\njwt_keys = [{ kid = \"k\", secret = \"hush\" }]";
    let faults = faults(text, &[("TRACT_SECURITY__JWT_KEYS", "hush")]);
    assert!(!faults.is_empty() && !faults.concat().contains("hush"), "{faults:#?}");
    let settings = Settings::read(Some((Path::new("tract.toml"), WHOLE)), []).unwrap();
    let shown = format!("{settings:?}");
    assert!(!shown.contains("a-token") && !shown.contains("0123456789abcdef"), "{shown}");
}

proptest! {
    #[test]
    fn no_change_to_a_file_makes_reading_panic(at in 0..WHOLE.len(), drop in 0usize..20, put in "(?s).{0,10}") {
        let mut bytes = WHOLE.as_bytes().to_vec();
        let end = (at + drop).min(bytes.len());
        bytes.splice(at..end, put.bytes());
        let text = String::from_utf8_lossy(&bytes);
        let _ = Settings::read(Some((Path::new("tract.toml"), &text)), []);
    }
}

#[test]
fn retention_is_at_least_a_day() {
    let read = |age: &str| {
        let environment = [("TRACT_RETENTION__COMPLETED".into(), age.into())];
        Settings::read(None, environment).map(|settings| settings.retention.completed)
    };
    for (age, hours) in [("1d", 24), ("36h", 36), ("36500d", 876_000)] {
        assert_eq!(read(age).unwrap(), Some(Duration::from_secs(hours * 3600)), "{age}");
    }
    for age in ["0d", "23h", "-1d", "d", "1.5d", "36501d", "18446744073709551615d", "never", ""] {
        let faults = read(age).unwrap_err();
        let fault = faults[0].to_string();
        assert!(fault.starts_with("TRACT_RETENTION__COMPLETED: retention.completed: must be a"), "{age}: {fault}");
    }
}
