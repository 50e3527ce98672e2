//! Opening for a migration, which has the store to itself: no router opens it meanwhile, and none has it open.

use super::{
    fault::{Fault, read},
    keys,
    leases::LASTS,
    open::{Opening, Purpose, RedisOpenError},
    reader::{Pools, command},
    script::{Call, Script},
    thread_step::Place,
};
use crate::store::handle::{Handles, MAX_PARTITIONS};
use ::redis::Value;
use std::{sync::Arc, time::Duration};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use uuid::Uuid;

/// How often a migration looks whether the store is free.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How many partitions the store at this URL has, if there is one.
pub(super) async fn partitions(url: &str) -> Result<Option<u16>, RedisOpenError> {
    let opening = Opening::at(url, None).await?;
    let stored = opening.reader().one(command!("HGET", keys::STORE, "partitions")).await;
    stored.map_err(|fault| opening.failed(&fault))
}

/// A store that a migration has to itself.
pub(super) struct Alone {
    pub(super) handles: Handles,
    pub(super) place: Place,
    pub(super) pools: Arc<Pools>,
    /// The key of the handles.
    pub(super) key: [u8; 32],
    /// Of an unfinished migration: how many parts are done.
    pub(super) parts_done: Option<u64>,
    pub(super) hold: Hold,
}

/// Says for as long as it lives that a migration has the store.
pub(super) struct Hold {
    renewing: JoinHandle<()>,
    pools: Arc<Pools>,
}

impl Hold {
    /// Says so no longer. What is not given back expires.
    pub(super) async fn give_back(self) {
        self.renewing.abort();
        let _ = self.pools.reader().one::<u64>(command!("DEL", keys::MIGRATION)).await;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

/// Opens the store for a migration. One that a router had which died is waited for: some seconds.
pub(super) async fn open_alone(url: &str, partitions: u16, purpose: Purpose) -> Result<Alone, RedisOpenError> {
    if !(1..=MAX_PARTITIONS).contains(&partitions) {
        return Err(RedisOpenError::PartitionCount(partitions));
    }
    let opening = Opening::at(url, None).await?;
    opening.look_at_servers().await?;
    let hold = hold(&opening).await?;
    let looked = async {
        await_silence(&opening).await?;
        let looked = opening.look_at_store(partitions, purpose).await?;
        opening.finish(partitions).await?;
        Ok(looked)
    };
    match looked.await {
        Ok((key, parts_done)) => {
            let place = Place { partitions, instance: Uuid::new_v4() };
            let handles = Handles::new(&key, partitions);
            Ok(Alone { handles, place, pools: opening.pools, key, parts_done, hold })
        }
        Err(error) => {
            hold.give_back().await;
            Err(error)
        }
    }
}

/// Takes the store. A hold that nobody renews is waited for: whoever had it may have died.
async fn hold(opening: &Opening) -> Result<Hold, RedisOpenError> {
    let give_up = Instant::now() + 2 * LASTS;
    let lasts = LASTS.as_millis().to_string();
    let mut left_before = u64::MAX;
    loop {
        let take = command!("SET", keys::MIGRATION, 1, "NX", "PX", &lasts);
        let replies = opening.reader().all::<Value>(vec![take, command!("PTTL", keys::MIGRATION)]).await;
        let replies = replies.map_err(|fault| opening.failed(&fault))?;
        if replies.first() == Some(&Value::Okay) {
            let pools = Arc::clone(&opening.pools);
            let renewing = tokio::spawn(async move {
                loop {
                    sleep(Duration::from_secs(1)).await;
                    let renew = command!("SET", keys::MIGRATION, 1, "PX", &lasts);
                    if let Err(fault) = pools.reader().one::<Value>(renew).await {
                        tracing::warn!(%fault, "the hold on the store could not be renewed");
                    }
                }
            });
            return Ok(Hold { renewing, pools: Arc::clone(&opening.pools) });
        }
        let left = replies.into_iter().nth(1).unwrap_or(Value::Nil);
        let left = read::<i64>(left).map_err(|fault| opening.failed(&fault))?.unsigned_abs();
        // It lasts longer than it did: somebody renews it.
        if left > left_before || Instant::now() > give_up {
            return Err(RedisOpenError::InUse { at: opening.at.clone() });
        }
        left_before = left;
        sleep(LOOK_EVERY).await;
    }
}

/// Waits until no router has been heard of for as long as a lease lasts; one that is heard of meanwhile lives.
async fn await_silence(opening: &Opening) -> Result<(), RedisOpenError> {
    const FORM: Fault = Fault::Unreadable("who has the store open is not of its form");
    let mut heard_before = u64::MAX;
    let mut first = true;
    loop {
        let mut call = Call::new(Script::Beat);
        call.key(keys::NODES).text("").text("");
        let words: Vec<String> = opening.reader().one(call.command()).await.map_err(|fault| opening.failed(&fault))?;
        // The first is the time.
        let heard = words.get(1..).ok_or_else(|| opening.failed(&FORM))?;
        let ago = heard.chunks_exact(3).filter_map(|words| words[1].parse::<u64>().ok()).min();
        match ago {
            Some(ago) if u128::from(ago) <= LASTS.as_millis() => {
                if !first && ago < heard_before {
                    return Err(RedisOpenError::InUse { at: opening.at.clone() });
                }
                (first, heard_before) = (false, ago);
                sleep(LOOK_EVERY).await;
            }
            _ => return Ok(()),
        }
    }
}
