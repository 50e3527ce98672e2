//! `Idempotency-Key` on a file: the first link again, and no second file.

use super::*;
use std::collections::BTreeSet;
use tokio::task::JoinSet;

const KEY: &str = "idempotency-key";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_can_be_sent_again() {
    again_on(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_can_be_sent_again_on_redis() {
    again_on(true).await;
}

async fn again_on(redis: bool) {
    let router = router_on(redis).await;
    let user_id = router.customer("kim").await;
    router.customer("lee").await;
    let form = from("kim", &image(300_000)).text("message_body", "see");
    let send = async |form: &Form| router.api.send(router.channel.sending(form).header(KEY, "k")).await;

    let (first, again) = first_or_again(send(&form).await);
    assert!(!again);
    // Another boundary, another order, something unknown beside it, another name for us: still the same request.
    for same in [form.clone(), form.clone().backwards(), form.clone().text("more", "x")] {
        assert_eq!(first_or_again(send(&same).await), (first.clone(), true));
    }
    let elsewhere = router.channel.sending(&form).header(KEY, "k").header("host", "elsewhere.example");
    assert_eq!(first_or_again(router.api.send(elsewhere).await), (first.clone(), true));
    assert_eq!(kept(&router, redis), 1);
    for other in [
        from("kim", &image(300_001)).text("message_body", "see"),
        form.clone().with("message_body", "look"),
        form.clone().without("message_body"),
        form.clone().without("file").file("file", "another.png", &image(300_000)),
    ] {
        send(&other).await.refused(422, "idempotency_key_reused");
    }
    assert_eq!(kept(&router, redis), 1);

    // Another customer's is another request, and so is one without the key.
    let (other, again) = first_or_again(send(&form.clone().with("auth_id", "lee")).await);
    assert!(!again && token(&other) != token(&first));
    let without = router.channel.send_file(&form).await.ok();
    assert!(token(&without) != token(&first));
    assert_eq!(kept(&router, redis), 3);
    assert_eq!(messages(&router, &user_id).await, 2);
    assert!(read(link(&first)).await.bytes == image(300_000));
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_once_one_is_kept() {
    many_on(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_once_one_is_kept_on_redis() {
    many_on(true).await;
}

async fn many_on(redis: bool) {
    let router = router_on(redis).await;
    let user_id = router.customer("kim").await;
    let form = from("kim", &image(300_000));
    let mut asking = JoinSet::new();
    for _ in 0..12 {
        let (api, request) = (router.api.clone(), router.channel.sending(&form).header(KEY, "k"));
        asking.spawn(async move { first_or_again(api.send(request).await) });
    }
    let answers = asking.join_all().await;
    assert_eq!(answers.iter().filter(|(_, again)| !again).count(), 1);
    let bodies: BTreeSet<_> = answers.iter().map(|(body, _)| body.to_string()).collect();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    assert_eq!((kept(&router, redis), messages(&router, &user_id).await), (1, 1));
    assert!(read(link(&answers[0].0)).await.bytes == image(300_000));
    router.stop().await;
}

/// What the customer sent, by the feed.
async fn messages(router: &Fixture, user_id: &str) -> usize {
    let feed = router.sprinkle.feed(user_id).await;
    feed.iter().filter(|entry| entry["kind"] == "message" && entry["sender"] == "ceu").count()
}
