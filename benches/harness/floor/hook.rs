//! One webhook for each message, with the HTTP client that the router has.

use super::Step;
use tokio::{runtime::Runtime, sync::mpsc};

/// Takes webhooks, by their numbers and bodies.
pub(super) type Courier = mpsc::UnboundedSender<(i64, String)>;

/// Sends each as soon as it comes, and has it forgotten when it was received.
pub(super) fn courier(runtime: &Runtime, url: String, keeper: mpsc::Sender<Step>) -> Courier {
    let (courier, mut due) = mpsc::unbounded_channel();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    runtime.spawn(async move {
        while let Some((number, body)) = due.recv().await {
            let post = http.post(&url).header("content-type", "application/json").body(body);
            let keeper = keeper.clone();
            tokio::spawn(async move {
                let answer = post.send().await.unwrap();
                assert!(answer.status().is_success());
                let _ = answer.bytes().await;
                let _ = keeper.send(Step::Received(number)).await;
            });
        }
    });
    courier
}
