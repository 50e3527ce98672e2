//! An agent tool that takes everything it is sent, and notes what came first and what came again.

use crate::support::{Peer, Received, Token};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// What a desk registers for.
pub(super) const TOPICS: [&str; 6] = [
    "message.receive",
    "thread_control.pass",
    "thread_control.take",
    "thread_control.offer",
    "thread_control.decline",
    "thread_control.expire",
];

pub(super) struct Desk {
    pub(super) name: &'static str,
    pub(super) peer: Peer,
    pub(super) token: Token,
    noted: Arc<watch::Sender<Noted>>,
}

/// What came to a desk.
#[derive(Default)]
pub(super) struct Noted {
    /// The sequences of first deliveries by topic and thread, as they came.
    pub(super) firsts: BTreeMap<(String, String), Vec<u64>>,
    /// When the words of a message were heard first.
    pub(super) heard: HashMap<String, Instant>,
    /// How many first deliveries there were, and how many came again.
    pub(super) first: usize,
    pub(super) again: usize,
    /// Topic, thread and sequence by webhook id.
    ids: HashMap<String, (String, String, u64)>,
    /// What is wrong whatever the feed says.
    pub(super) faults: Vec<String>,
}

impl Noted {
    fn note(&mut self, received: &Received) {
        let user_id = received.body["user_id"].as_str().unwrap_or_default().to_owned();
        let about = (received.topic.clone(), user_id, received.sequence());
        let id = received.header("webhook-id").to_owned();
        match self.ids.get(&id) {
            Some(before) if *before != about => self.faults.push(format!("{id} is of {before:?} and of {about:?}")),
            Some(_) => self.again += 1,
            None => {
                if received.topic == "message.receive" {
                    self.heard.entry(received.text()).or_insert_with(Instant::now);
                }
                self.first += 1;
                self.ids.insert(id, about.clone());
                self.firsts.entry((about.0, about.1)).or_default().push(about.2);
            }
        }
    }
}

impl Desk {
    /// Has the tool register for everything at this router.
    pub(super) async fn open(name: &'static str, token: Token) -> Self {
        let peer = Peer::start(name).await;
        for topic in TOPICS {
            if let Some(secret) = token.register(topic, &peer.url()).await {
                peer.expect_signed_with(&secret);
            }
        }
        let noted = Arc::new(watch::Sender::new(Noted::default()));
        let notes = Arc::clone(&noted);
        peer.script(move |received| {
            notes.send_modify(|noted| noted.note(received));
            None
        });
        Self { name, peer, token, noted }
    }

    /// What came so far.
    pub(super) fn noted(&self) -> watch::Ref<'_, Noted> {
        self.noted.borrow()
    }

    /// Waits until what came is as is asked for; whether it was within that time.
    pub(super) async fn until(&self, within: Duration, holds: impl FnMut(&Noted) -> bool) -> bool {
        let mut noted = self.noted.subscribe();
        tokio::time::timeout(within, noted.wait_for(holds)).await.is_ok()
    }
}
