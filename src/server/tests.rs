//! What a stranger can do to the listener. The bounds are short here; production's are in [`Bounds::of`].

use super::*;
use axum::routing::get;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

/// Real time: only a failing test ever takes so long.
const PATIENCE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(150);
const LONG: Duration = Duration::from_secs(3600);

struct Served {
    address: SocketAddr,
    drain: oneshot::Sender<()>,
    ended: JoinHandle<io::Result<()>>,
}

async fn start(app: Router, bounds: Bounds) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (drain, draining) = oneshot::channel::<()>();
    let drained = async {
        let _ = draining.await;
    };
    Served { address, drain, ended: tokio::spawn(serve(listener, app, bounds, None, drained)) }
}

fn bounds(connections: usize, first_request: Duration, idle: Duration) -> Bounds {
    Bounds { connections, first_request, idle }
}

fn hello() -> Router {
    Router::new().route("/", get(async || "hello"))
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

impl Served {
    async fn connect(&self, sends: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(sends.as_bytes()).await.unwrap();
        stream
    }
    /// The whole answer to one request on a connection of its own.
    async fn ask(&self, request: &str) -> String {
        let mut stream = self.connect(request).await;
        let mut answer = Vec::new();
        // A peer that closes with unread input resets; what it said before counts.
        let _ = within("an answer", stream.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

const ASK: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
const ASK_ONCE: &str = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

/// Reads until the head and body of [`hello`]'s answer are there.
async fn read_hello(stream: &mut TcpStream) {
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello") {
        assert_ne!(within("an answer", stream.read_buf(&mut answer)).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_header_that_never_ends_is_given_up() {
    let served = start(hello(), bounds(1, SHORT, LONG)).await;
    for begin in ["", "G", "GET / HTTP/1.1\r\nhost: x\r\nx-", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut slow = served.connect(begin).await;
        let (mut reads, mut writes) = slow.split();
        // Bytes that keep trickling in do not count.
        let trickle = async {
            while writes.write_all(b"a").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let closed = async { while matches!(reads.read(&mut [0; 256]).await, Ok(1..)) {} };
        tokio::select! {
            () = within(begin, closed) => {}
            () = trickle => {}
        }
        // There is one place, so this is served only once the slow one is gone.
        assert!(served.ask(ASK_ONCE).await.ends_with("hello"), "{begin}");
    }
}

#[tokio::test]
async fn an_idle_connection_is_given_up_and_a_second_header_too() {
    let served = start(hello(), bounds(1, LONG, SHORT)).await;
    for then in ["", "GET / HT"] {
        let mut idle = served.connect(ASK).await;
        read_hello(&mut idle).await;
        idle.write_all(then.as_bytes()).await.unwrap();
        assert!(matches!(within("the end", idle.read(&mut [0; 16])).await, Ok(0) | Err(_)), "{then}");
        assert!(served.ask(ASK_ONCE).await.ends_with("hello"));
    }
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_given_up() {
    let large = Router::new().route("/", get(async || "hello")).route("/large", get(async || vec![b'x'; 64 << 20]));
    let served = start(large, bounds(1, LONG, SHORT)).await;
    let _unread = served.connect("GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(served.ask(ASK_ONCE).await.ends_with("hello"));
}

#[tokio::test]
async fn a_request_that_is_being_answered_is_not_given_up() {
    let slow = Router::new().route(
        "/",
        get(async || {
            tokio::time::sleep(4 * SHORT).await;
            "hello"
        }),
    );
    let served = start(slow, bounds(1, SHORT, SHORT)).await;
    assert!(served.ask(ASK_ONCE).await.ends_with("hello"));
}

#[tokio::test]
async fn connections_past_the_bound_wait() {
    let served = start(hello(), bounds(2, LONG, LONG)).await;
    let (mut one, mut two) = (served.connect(ASK).await, served.connect(ASK).await);
    read_hello(&mut one).await;
    read_hello(&mut two).await;
    let mut third = served.connect(ASK_ONCE).await;
    let mut answer = [0; 1];
    let early = tokio::time::timeout(SHORT, third.read(&mut answer)).await;
    assert!(early.is_err(), "it was served in spite of the bound");
    drop(one);
    assert_eq!(within("its turn", third.read(&mut answer)).await.unwrap(), 1);
    drop(two);
}

#[tokio::test]
async fn heads_are_bounded_in_size_and_number() {
    let served = start(hello(), bounds(10, LONG, LONG)).await;
    let with = |headers: String| format!("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
    let many = |n: usize| with((0..n).map(|n| format!("x-{n}: 1\r\n")).collect());
    let large = |n: usize| with(format!("x: {}\r\n", "a".repeat(n)));
    assert!(served.ask(&many(MAX_HEADERS - 2)).await.ends_with("hello"));
    assert!(served.ask(&large(MAX_HEAD / 2)).await.ends_with("hello"));
    for request in [many(MAX_HEADERS - 1), large(MAX_HEAD), large(10 * MAX_HEAD)] {
        let answer = served.ask(&request).await;
        // Closed with unread input, the answer may be lost on the way; it is never a success.
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
}

#[tokio::test]
async fn draining_answers_what_is_in_flight_and_nothing_more() {
    let (begun, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let answered = Arc::new(AtomicBool::new(false));
    let app = {
        let (begun, release, answered) = (Arc::clone(&begun), Arc::clone(&release), Arc::clone(&answered));
        Router::new().route("/", get(async || "hello")).route(
            "/held",
            get(async move || {
                begun.notify_one();
                release.notified().await;
                answered.store(true, Ordering::SeqCst);
                "hello"
            }),
        )
    };
    let served = start(app, bounds(10, LONG, LONG)).await;
    let mut idle = served.connect(ASK).await;
    read_hello(&mut idle).await;
    let silent = served.connect("").await;
    let mut held = served.connect("GET /held HTTP/1.1\r\nhost: x\r\n\r\n").await;
    begun.notified().await;
    served.drain.send(()).unwrap();
    assert_eq!(within("the idle one is closed", idle.read(&mut [0; 16])).await.unwrap(), 0);
    assert!(!served.ended.is_finished(), "one is in flight");
    release.notify_one();
    let mut answer = String::new();
    within("the answer", held.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.ends_with("hello") && answered.load(Ordering::SeqCst), "{answer}");
    within("the end", served.ended).await.unwrap().unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
    drop(silent);
}
