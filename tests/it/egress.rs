//! No URL and no answer of a resolver leads the router into its own network (section 8, egress guard).

use crate::support::{BUSINESS, CLIENT, Channel, Peer, Process};
use async_trait::async_trait;
use axum::http::HeaderMap;
use bytes::Bytes;
use serde_json::json;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tract::security::egress::{EgressClient, EgressRules, SendFault};
use tract::security::resolver::Lookup;

/// Plain http, so that a connection that were made would get as far as it can.
const HTTP: EgressRules = EgressRules { allow_private: false, allow_http: true };
const STRICT: EgressRules = EgressRules { allow_private: false, allow_http: false };
const OPEN: EgressRules = EgressRules { allow_private: true, allow_http: true };

/// Hosts as they can stand in a URL. Each leads to a place that is not public, if it leads anywhere.
const HOSTS: &[&str] = &[
    // Loopback, in all spellings that URL parsers and C libraries take.
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "2130706433",
    "2130706433.",
    "0x7f000001",
    "0x7f.1",
    "0x7F.0.0.0x1",
    "017700000001",
    "0177.0.0.1",
    "0177.0.0.01",
    "00000177.1",
    "127.0x0.0.1",
    "0x7f.0.0.1.",
    "%31%32%37.0.0.1",
    "127%2e0%2e0%2e1",
    "１２７.０.０.１",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "127．0．0．1",
    "𝟏𝟐𝟕.𝟎.𝟎.𝟏",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
    // "This host".
    "0",
    "0.0.0.0",
    "0x0",
    "00000000000",
    "0.1",
    "[::]",
    "[::ffff:0.0.0.0]",
    // IPv6 loopback, and IPv4 inside IPv6: mapped, compatible, translated.
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[0000:0000:0000:0000:0000:0000:0000:0001]",
    "[::0001]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:FFFF:7F00:0001]",
    "[::127.0.0.1]",
    "[::7f00:1]",
    "[::ffff:0:127.0.0.1]",
    // NAT64 well-known and local-use, 6to4, Teredo, ISATAP on a link.
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::127.0.0.1]",
    "[64:ff9b:1::808:808]",
    "[64:ff9b:1:ffff::a00:1]",
    "[2002:7f00:1::1]",
    "[2002:a9fe:a9fe::]",
    "[2002:c0a8:101::1]",
    "[2001:0:7f00:1::]",
    "[2001:0000:4136:e378:8000:63bf:80ff:fffe]",
    "[fe80::5efe:7f00:1]",
    // Private, link-local, shared, metadata.
    "10.0.0.1",
    "0xa000001",
    "167772161",
    "012.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "3232235521",
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "169.254.43518",
    "169.254.169.254.",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "[fe80::a9fe:a9fe]",
    "[fc00::1]",
    "[fec0::1]",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "192.0.0.192",
    "168.63.129.16",
    // Multicast, broadcast, documentation, benchmarks, reserved.
    "224.0.0.1",
    "239.255.255.250",
    "[ff02::1]",
    "[ff0e::1]",
    "255.255.255.255",
    "240.0.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "192.88.99.1",
    "[2001:db8::1]",
    "[3fff::1]",
    "[100::1]",
    "[5f00::1]",
];

/// URLs that are refused for what they are, whatever host a parser finds in them. `{port}` is the server's.
const URLS: &[&str] = &[
    "http://user@127.0.0.1:{port}/",
    "http://user:secret@127.0.0.1:{port}/",
    "http://8.8.8.8@127.0.0.1:{port}/",
    "http://8.8.8.8:80@127.0.0.1:{port}/",
    "http://8.8.8.8%40127.0.0.1:{port}/",
    "http://@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\\@8.8.8.8/",
    "http://8.8.8.8\\@127.0.0.1:{port}/",
    "http:127.0.0.1:{port}/",
    "http:/127.0.0.1:{port}/",
    "http:///127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    "127.0.0.1:{port}",
    "http://127.0.0.1\t:{port}/",
    "http://127.0.\n0.1:{port}/",
    " http://127.0.0.1:{port}/",
    "http://[::1%25lo]:{port}/",
    "http://[::1%lo]:{port}/",
    "http://[::1]x:{port}/",
    "http://127.0.0.1:{port}:80/",
    "http://256.0.0.1:{port}/",
    "http://127.0.0.1.1:{port}/",
    "http://127..1:{port}/",
    "http://08.0.0.1:{port}/",
    "http://0x100000000:{port}/",
    "http://4294967296:{port}/",
    "ftp://127.0.0.1:{port}/",
    "gopher://127.0.0.1:{port}/",
    "file:///etc/passwd",
    "file://127.0.0.1:{port}/",
    "dict://127.0.0.1:{port}/",
    "unix:///run/x.sock",
    "data:,x",
    "jar:http://127.0.0.1:{port}/!/",
    "http+unix://%2frun%2fx.sock/",
    "ws://127.0.0.1:{port}/",
    "javascript:0",
];

/// What a name server in a stranger's hand can say.
const ANSWERS: &[&[&str]] = &[
    &["127.0.0.1"],
    &["127.8.8.8"],
    &["0.0.0.0"],
    &["0.8.8.8"],
    &["::1"],
    &["::"],
    &["::ffff:127.0.0.1"],
    &["::127.0.0.1"],
    &["::ffff:0:7f00:1"],
    &["64:ff9b::7f00:1"],
    &["64:ff9b::a9fe:a9fe"],
    &["64:ff9b:1::7f00:1"],
    &["64:ff9b:1::808:808"],
    &["2002:7f00:1::1"],
    &["2002:a00:1::1"],
    &["2001::7f00:1"],
    &["10.1.2.3"],
    &["172.20.0.1"],
    &["192.168.1.1"],
    &["169.254.169.254"],
    &["::ffff:169.254.169.254"],
    &["100.64.0.1"],
    &["100.100.100.200"],
    &["192.0.0.192"],
    &["168.63.129.16"],
    &["fd00:ec2::254"],
    &["fe80::1"],
    &["fc00::1"],
    &["224.0.0.1"],
    &["ff02::1"],
    &["255.255.255.255"],
    // Several addresses, not one of them public.
    &["127.0.0.1", "::1"],
    &["10.0.0.1", "192.168.0.1", "fe80::1"],
    &["::ffff:10.0.0.1", "127.0.0.1", "0.0.0.0"],
    &["169.254.169.254", "fd00:ec2::254", "100.64.0.1", "224.0.0.1"],
];

/// Answers as it is told, and counts how often it was asked.
#[derive(Default)]
struct Told {
    answers: Mutex<Vec<IpAddr>>,
    asked: AtomicUsize,
}

impl Told {
    fn say(&self, answers: &[&str]) {
        *self.answers.lock().unwrap() = answers.iter().map(|ip| ip.parse().unwrap()).collect();
    }
}

#[async_trait]
impl Lookup for Told {
    async fn lookup(&self, _: &str) -> io::Result<Vec<SocketAddr>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(self.answers.lock().unwrap().iter().map(|ip| SocketAddr::new(*ip, 0)).collect())
    }
}

/// Counts connections, on one port of every local address.
struct Trap {
    port: u16,
    reached: Arc<AtomicUsize>,
}

impl Trap {
    async fn set() -> Self {
        // Bound to "any", it is behind every spelling of this machine, in IPv4 and (where the machine has it) IPv6.
        let v4 = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = v4.local_addr().unwrap().port();
        let v6 = TcpListener::bind(("::1", port)).await;
        let reached = Arc::new(AtomicUsize::new(0));
        for listener in [Some(v4), v6.ok()].into_iter().flatten() {
            let reached = Arc::clone(&reached);
            let count = axum::Router::new().fallback(async move || {
                reached.fetch_add(1, Ordering::SeqCst);
                [("location", "/again")]
            });
            tokio::spawn(async move { axum::serve(listener, count).await });
        }
        Self { port, reached }
    }
    fn reached(&self) -> usize {
        self.reached.load(Ordering::SeqCst)
    }
}

async fn post(client: &EgressClient, url: &str) -> Result<u16, SendFault> {
    let answer = client.post(url, HeaderMap::new(), Bytes::new(), Duration::from_secs(5), 1024).await;
    answer.map(|answer| answer.status)
}

#[tokio::test]
async fn no_url_leads_inside() {
    let trap = Trap::set().await;
    let (client, https) = (EgressClient::new(HTTP, &[]).unwrap(), EgressClient::new(STRICT, &[]).unwrap());
    for host in HOSTS {
        let fault = post(&client, &format!("http://{host}:{}/latest/meta-data", trap.port)).await.expect_err(host);
        // Refused by the guard or the parser, and not because nobody happened to listen there.
        assert!(
            matches!(fault, SendFault::NotPublic | SendFault::Url(_) | SendFault::Unresolvable),
            "{host}: {fault:?}"
        );
        let fault = post(&https, &format!("https://{host}:{}/", trap.port)).await.expect_err(host);
        assert!(matches!(fault, SendFault::NotPublic | SendFault::Url(_) | SendFault::Unresolvable), "{fault:?}");
    }
    for url in URLS {
        let url = url.replace("{port}", &trap.port.to_string());
        let fault = post(&client, &url).await.expect_err(&url);
        assert!(matches!(fault, SendFault::Url(_)), "{url}: {fault:?}");
    }
    assert_eq!(trap.reached(), 0);
    assert!(HOSTS.len() + URLS.len() + ANSWERS.len() >= 150, "the corpus");
    // The trap works: where the guard is off, several spellings fall into it.
    let open = EgressClient::new(OPEN, &[]).unwrap();
    for host in ["127.0.0.1", "2130706433", "0x7f.1", "localhost", "[::ffff:127.0.0.1]"] {
        assert_eq!(post(&open, &format!("http://{host}:{}/", trap.port)).await, Ok(200), "{host}");
    }
    assert_eq!(trap.reached(), 5);
}

#[tokio::test]
async fn no_answer_of_a_resolver_leads_inside() {
    let trap = Trap::set().await;
    let url = format!("http://innocent.example:{}/", trap.port);
    let told = Arc::new(Told::default());
    let client = EgressClient::with_lookup(HTTP, &[], Arc::clone(&told) as _).unwrap();
    for (times, answer) in (1..).zip(ANSWERS) {
        told.say(answer);
        assert_eq!(post(&client, &url).await, Err(SendFault::NotPublic), "{answer:?}");
        assert_eq!(told.asked.load(Ordering::SeqCst), times, "asked once for each connection, never again after");
    }
    assert_eq!(trap.reached(), 0);
    // The same resolver does lead there when the guard is off, and is asked before the connection only.
    let told = Arc::new(Told::default());
    told.say(&["127.0.0.1"]);
    let open = EgressClient::with_lookup(OPEN, &[], Arc::clone(&told) as _).unwrap();
    assert_eq!(post(&open, &url).await, Ok(200));
    assert_eq!((trap.reached(), told.asked.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test]
async fn proxies_of_the_environment_are_ignored() {
    let (proxy, bot) = (Peer::start("proxy").await, Peer::start("bot").await);
    let data = tempfile::tempdir().unwrap();
    let address = proxy.url();
    let process = Process::start_with(data.path(), |command| {
        for variable in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
            command.env(variable, &address);
        }
        command.env_remove("NO_PROXY").env_remove("no_proxy");
    })
    .await;
    let api = process.api();
    let declaration = json!({"client": [{"client_id": CLIENT, "iva": {"url": bot.url()},
        "business": [{"business_id": BUSINESS}]}]});
    let made = api.apply(process.admin_token, &declaration).await;
    let token = made.iter().find(|made| made["kind"] == "api_token").unwrap()["value"].as_str().unwrap();
    let channel = Channel::new(api, CLIENT, token, BUSINESS);
    channel.user(&json!({"auth_id": "kim"})).await;
    channel.say("kim", "hello").await;
    bot.hear("turn", "hello").await;
    assert!(proxy.seen().is_empty());
}
