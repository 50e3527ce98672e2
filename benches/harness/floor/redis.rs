//! A message in Redis by one script: the thread, an entry in its stream, and an id. All that waits goes in one pipeline. That a
//! webhook waits is not kept.

use super::{BATCH, SNAPSHOT, Step, hook::Courier};
use tokio::sync::mpsc;

/// One script, as all of a message is to be there or nothing.
const SCRIPT: &str = "redis.call('SET', KEYS[1], ARGV[1]) \
    redis.call('XADD', KEYS[2], '*', 'e', ARGV[2]) \
    return redis.call('INCR', KEYS[3])";

pub(super) async fn keep(url: String, mut steps: mpsc::Receiver<Step>, courier: Option<Courier>) {
    let client = redis::Client::open(url).unwrap();
    let mut conn = client.get_multiplexed_async_connection().await.unwrap();
    let load = redis::cmd("SCRIPT").arg("LOAD").arg(SCRIPT).to_owned();
    let script: String = load.query_async(&mut conn).await.unwrap();
    let mut batch = Vec::new();
    while steps.recv_many(&mut batch, BATCH).await > 0 {
        let mut pipeline = redis::pipe();
        let mut due = Vec::with_capacity(batch.len());
        for step in batch.drain(..) {
            let Step::Said(said) = step else { continue };
            let key = |kind: &str| format!("floor:{kind}:{}", said.user);
            pipeline.cmd("EVALSHA").arg(&script).arg(3).arg(key("thread")).arg(key("log")).arg("floor:ids");
            pipeline.arg(&SNAPSHOT[..]).arg(&said.body);
            due.push((said.caller, said.body));
        }
        let ids: Vec<u64> = pipeline.query_async(&mut conn).await.unwrap();
        for ((caller, body), id) in due.into_iter().zip(ids) {
            let _ = caller.send(id);
            if let Some(courier) = &courier {
                let _ = courier.send((id.cast_signed(), body));
            }
        }
    }
}
