//! Stands between a router and its Redis: makes the way there slow, ends it, or keeps what is on its way.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

/// Pieces on their way; past it nothing more is taken in.
const ON_THE_WAY: usize = 1024;

/// See the module.
pub(super) struct Gate {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    to: SocketAddr,
    closed: AtomicBool,
    /// How long each piece takes either way, in milliseconds.
    delay_ms: AtomicU64,
    /// Counts the cuts.
    cuts: watch::Sender<u64>,
    /// What the router has sent since it is kept; none while it is not.
    kept: watch::Sender<Option<Vec<u8>>>,
}

impl Gate {
    pub(super) async fn before(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            to,
            closed: AtomicBool::new(false),
            delay_ms: AtomicU64::new(0),
            cuts: watch::Sender::new(0),
            kept: watch::Sender::new(None),
        });
        let inside = Arc::clone(&shared);
        let server = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if !inside.closed.load(Ordering::SeqCst) {
                    tokio::spawn(Arc::clone(&inside).connect(client));
                }
            }
        });
        Self { address, shared, server }
    }

    pub(super) fn url(&self) -> String {
        format!("redis://{}/0", self.address)
    }

    /// Ends all connections; with `closed`, there are no new ones until it opens.
    pub(super) fn cut(&self, closed: bool) {
        self.shared.closed.store(closed, Ordering::SeqCst);
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    pub(super) fn open(&self) {
        self.shared.closed.store(false, Ordering::SeqCst);
    }

    pub(super) fn delay(&self, by: Duration) {
        let ms = by.as_millis().try_into().unwrap();
        self.shared.delay_ms.store(ms, Ordering::SeqCst);
    }

    /// Keeps what the router sends from now on; Redis gets it when it is let go.
    pub(super) fn keep(&self) {
        self.shared.kept.send_replace(Some(Vec::new()));
    }

    /// Waits until this is among what is kept.
    pub(super) async fn until_kept(&self, text: &str) {
        let mut kept = self.shared.kept.subscribe();
        let found = kept.wait_for(|kept| {
            kept.as_ref().is_some_and(|kept| kept.windows(text.len()).any(|piece| piece == text.as_bytes()))
        });
        let found = tokio::time::timeout(super::scene::PATIENCE, found).await;
        assert!(found.is_ok(), "{text:?} was not sent");
    }

    pub(super) fn let_go(&self) {
        self.shared.kept.send_replace(None);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    async fn connect(self: Arc<Self>, client: TcpStream) {
        let mut cuts = self.cuts.subscribe();
        let Ok(server) = TcpStream::connect(self.to).await else { return };
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        // Whatever ends one way ends the other; and a piece that is on its way then never arrives.
        tokio::select! {
            () = self.carry(from_client, to_server, true) => {}
            () = self.carry(from_server, to_client, false) => {}
            _ = cuts.changed() => {}
        }
    }

    async fn carry(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, asks: bool) {
        let (taken, mut sent) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
        let take = async move {
            let mut piece = vec![0; 65_536];
            while let Ok(length @ 1..) = from.read(&mut piece).await {
                if asks {
                    self.kept
                        .send_if_modified(|kept| kept.as_mut().map(|kept| kept.extend(&piece[..length])).is_some());
                }
                let arrives = Instant::now() + Duration::from_millis(self.delay_ms.load(Ordering::SeqCst));
                if taken.send((arrives, piece[..length].to_vec())).await.is_err() {
                    return;
                }
            }
        };
        let send = async move {
            while let Some((arrives, piece)) = sent.recv().await {
                sleep_until(arrives).await;
                if asks {
                    // The sender is in `self`, so waiting cannot fail.
                    let _ = self.kept.subscribe().wait_for(Option::is_none).await;
                }
                if to.write_all(&piece).await.is_err() {
                    return;
                }
            }
        };
        tokio::join!(take, send);
    }
}
