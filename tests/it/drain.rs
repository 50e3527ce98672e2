//! The operator moves what a receiver holds to another (section 11).

use crate::support::{CLIENT, Fixture, Reply, Tenants, Token};
use reqwest::Method;
use serde_json::{Value, json};

async fn drain(router: &Fixture, body: Value) -> Reply {
    router.api.send(router.operator(Method::POST, "/admin/v1/drain").json(&body)).await
}

fn user_ids(answer: &Value) -> Vec<&str> {
    answer["threads"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect()
}

async fn stands(token: &Token, user_id: &str) -> (String, String, u64) {
    let thread = token.thread(user_id).await;
    let text = |key: &str| thread[key].as_str().unwrap().to_owned();
    (text("active"), text("state"), thread["control_epoch"].as_u64().unwrap())
}

async fn a_receiver_is_drained(router: Fixture) {
    let (one, two) = (router.handed_off("one").await, router.handed_off("two").await);
    let with_bot = router.customer("three").await;
    router.channel.say("three", "hello").await;
    router.phone.hear("message", "you said hello").await;
    router.sprinkle.event(&two, "aeu_events.allocated", &json!({"agent_name": "Ann"})).await.ok();
    let before = (stands(&router.sprinkle, &one).await, stands(&router.sprinkle, &two).await);

    let body = json!({"client_id": CLIENT, "receiver": "sprinkle", "to": "helper", "dry_run": true});
    let told = drain(&router, body.clone()).await.ok();
    let mut ours = [one.clone(), two.clone()];
    ours.sort_unstable();
    let sorted = |answer: &Value| {
        let mut ids: Vec<String> = user_ids(answer).into_iter().map(str::to_owned).collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!((&told["would_move"], &told["moved"], sorted(&told)), (&json!(2), &json!(0), ours.to_vec()));
    assert_eq!((stands(&router.sprinkle, &one).await, stands(&router.sprinkle, &two).await), before, "nothing moved");

    let mut body = body;
    body["dry_run"] = json!(false);
    let done = drain(&router, body.clone()).await.ok();
    assert_eq!((&done["moved"], &done["refused"], &done["next"]), (&json!(2), &json!(0), &Value::Null));
    assert_eq!(sorted(&done), sorted(&told), "what was told has moved");
    for (user_id, (_, _, epoch)) in [(&one, before.0), (&two, before.1)] {
        assert_eq!(stands(&router.helper, user_id).await, ("helper".into(), "incomplete".into(), epoch + 1));
        let moved = router
            .second_desk
            .wait_for("thread_control.pass", |told| {
                told.body["user_id"] == json!(user_id) && told.metadata()["to"] == "helper"
            })
            .await;
        assert_eq!(moved.metadata()["cause"], "drain");
    }
    assert_eq!(stands(&router.sprinkle, &with_bot).await.0, "iva");
    router.sprinkle.send(&one, "aeu", "too late").await.refused(409, "not_active");
    router.helper.send(&one, "aeu", "I have it").await.ok();
    router.phone.hear("message", "I have it").await;
    assert_eq!(drain(&router, body).await.ok()["moved"], 0, "it is done");
    router.stop().await;
}

#[tokio::test]
async fn a_receiver_is_drained_on_the_embedded_store() {
    a_receiver_is_drained(Fixture::start().await).await;
}

#[tokio::test]
async fn a_receiver_is_drained_on_redis() {
    a_receiver_is_drained(Fixture::on_redis(Tenants::default()).await).await;
}

#[tokio::test]
async fn a_filter_chooses_and_the_bot_goes_on_with_the_conversation() {
    let router = Fixture::start().await;
    let (one, two) = (router.handed_off("one").await, router.handed_off("two").await);
    router.sprinkle.event(&two, "aeu_events.allocated", &json!({"agent_name": "Ann"})).await.ok();
    let done = drain(&router, json!({"state": "pinned", "to": "iva"})).await.ok();
    assert_eq!(user_ids(&done), [two.as_str()]);
    let thread = router.sprinkle.thread(&two).await;
    assert_eq!(
        (&thread["active"], &thread["state"], &thread["conversation_number"]),
        (&json!("iva"), &json!("bot"), &json!("1"))
    );
    assert_eq!(stands(&router.sprinkle, &one).await.0, "sprinkle");
    router.channel.say("two", "and now?").await;
    router.phone.hear("message", "you said and now?").await;
    // By the customer's own id.
    let done = drain(&router, json!({"q": "one", "to": "helper", "from": "sprinkle"})).await.ok();
    assert_eq!(user_ids(&done), [one.as_str()]);
    router.stop().await;
}

#[tokio::test]
async fn what_cannot_move_is_told_and_stays() {
    let router = Fixture::start().await;
    let user_id = router.handed_off("one").await;
    // Nobody could be told there: it is not healthy.
    let hook = json!({"category": "message", "subcategory": "receive"});
    router.helper.post("/tract/hooks/unregister/", &hook).await.ok();
    for dry_run in [true, false] {
        let body = json!({"receiver": "sprinkle", "to": "helper", "dry_run": dry_run});
        let answer = drain(&router, body).await.ok();
        assert_eq!((&answer["refused"], &answer["moved"], user_ids(&answer).len()), (&json!(1), &json!(0), 0));
        let refusal = &answer["refusals"][0];
        assert_eq!((&refusal["user_id"], &refusal["code"]), (&json!(user_id), &json!("receiver_unavailable")));
    }
    assert_eq!(stands(&router.sprinkle, &user_id).await.0, "sprinkle");
    router.stop().await;
}

#[tokio::test]
async fn only_the_operator_drains_and_says_what() {
    let router = Fixture::start().await;
    let nothing = drain(&router, json!({"client_id": CLIENT, "to": "helper"})).await.refused(400, "invalid_field");
    assert!(nothing["error"].as_str().unwrap().starts_with("receiver: is missing"), "{nothing}");
    let body = json!({"receiver": "sprinkle", "to": "helper"});
    assert_eq!(router.sprinkle.post("/admin/v1/drain", &body).await.status, 401);
    router.stop().await;
}
