//! What other nodes do that concerns this one: Redis publishes it, and this task listens. A notice may be lost with its
//! connection; so whoever connects anew looks at everything, and the keeper of the leases compares counts.

use super::{leases::Poke, writer::Sinks};
use ::redis::{Client, RedisResult};
use futures_util::StreamExt;
use std::{sync::Arc, time::Duration};
use tokio::sync::{Notify, watch};
use tract_actors::ports::{Endpoint, Held};
use tract_domain::Timestamp;

/// Where it is said that leases have become free.
pub(super) const LEASES: &str = "tract:leases";

/// How long to wait between attempts to connect.
const PAUSE: Duration = Duration::from_millis(100);

/// Where a node is told of what concerns it.
pub(super) fn of_node(instance: &str) -> String {
    format!("tract:node:{instance}")
}

/// What one needs to listen.
pub(super) struct Listener {
    pub(super) client: Client,
    pub(super) instance: String,
    pub(super) sinks: Arc<Sinks>,
    pub(super) held: watch::Receiver<Held>,
    pub(super) poke: Poke,
    /// To connect anew.
    pub(super) resubscribe: Arc<Notify>,
}

impl Listener {
    /// Listens until the leases' keeper has ended.
    pub(super) async fn run(self) {
        loop {
            if self.held.has_changed().is_err() {
                return;
            }
            if let Err(error) = self.listen().await {
                tracing::warn!(%error, "what other nodes do cannot be listened to; trying again");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Until the connection is lost.
    async fn listen(&self) -> RedisResult<()> {
        let mut pubsub = self.client.get_async_pubsub().await?;
        let mine = of_node(&self.instance);
        pubsub.subscribe(&mine).await?;
        pubsub.subscribe(LEASES).await?;
        let strands: Vec<u16> = self.held.borrow().iter().map(|(strand, _)| strand).collect();
        self.sinks.each(|sink| sink.missed_all(strands.clone()));
        self.poke.look();
        let mut held = self.held.clone();
        let mut messages = pubsub.into_on_message();
        loop {
            let message = tokio::select! {
                message = messages.next() => message,
                () = self.resubscribe.notified() => None,
                changed = held.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    continue;
                }
            };
            let Some(message) = message else { return Ok(()) };
            if message.get_channel_name() == mine {
                self.told(&String::from_utf8_lossy(message.get_payload_bytes()));
            } else {
                self.poke.look();
            }
        }
    }

    /// A notice: the partition, how many deliveries were enqueued, the deadline that was stored if one was, and the
    /// endpoints; each on a line.
    fn told(&self, notice: &str) {
        let mut lines = notice.split('\n');
        let mut number = || lines.next().and_then(|line| line.parse::<i64>().ok());
        let (Some(partition), Some(count), deadline) = (number(), number(), number()) else { return };
        let Ok(partition) = u16::try_from(partition) else { return };
        if let Some(at) = deadline {
            self.sinks.each(|sink| sink.deadline(Timestamp(at)));
        }
        if count > 0 {
            let endpoints: Vec<Endpoint> = lines.map(Endpoint::from_name).collect();
            self.sinks.each(|sink| sink.missed(partition, endpoints.clone()));
            self.sinks.counts.add(partition, count.unsigned_abs());
        }
    }
}
