//! What a customer thinks of a conversation (section 10).

use crate::support::{BUSINESS, Fixture, Reply};
use reqwest::Method;
use serde_json::{Value, json};

const AUTH: &str = "+49 170 21";
const HOUR: u64 = 3_600_000;

async fn judge(router: &Fixture, auth_id: &str, business: u64, rating: Value) -> Reply {
    let body = json!({"auth_id": auth_id, "business_id": business, "query_resolved": false, "query_rating": rating,
        "feedback": "too slow"});
    router.channel.post("/v1.0/log_feedback_from_user/", &body).await
}

#[tokio::test]
async fn feedback_is_taken_once_an_hour() {
    let router = Fixture::start().await;
    let user_id = router.customer(AUTH).await;
    router.channel.say(AUTH, "hello").await;
    router.phone.hear("message", "you said hello").await;

    let taken = judge(&router, AUTH, BUSINESS, json!("2")).await;
    assert_eq!((taken.status, taken.body), (201, json!({"success": true})));
    let again = judge(&router, AUTH, BUSINESS, json!(5)).await.refused(409, "duplicate_feedback");
    assert_eq!(again["error_message"], "duplicate feedback");
    let feed = router.sprinkle.feed(&user_id).await;
    let given: Vec<_> = feed.iter().filter(|entry| entry["subcategory"] == "feedback").collect();
    let [entry] = given[..] else { panic!("{given:?}") };
    assert_eq!((&entry["kind"], &entry["category"]), (&json!("event"), &json!("user_events")));
    let said = (&entry["query_resolved"], &entry["query_rating"], &entry["feedback"]);
    assert_eq!(said, (&json!(false), &json!(2), &json!("too slow")));
    assert_eq!(entry["conversation_number"], "1");

    // The hour is over after a restart as well as without one.
    let router = router.restarted_after(HOUR - 1).await;
    judge(&router, AUTH, BUSINESS, json!(5)).await.refused(409, "duplicate_feedback");
    router.clock.advance(1);
    assert_eq!(judge(&router, AUTH, BUSINESS, json!(5)).await.status, 201);
    assert!(router.phone.seen().iter().all(|told| told.topic == "message" || told.topic.contains("complete")));
    router.stop().await;
}

#[tokio::test]
async fn feedback_needs_a_user_and_a_conversation() {
    let router = Fixture::start().await;
    let other = router.operator(Method::PUT, "/admin/v1/clients/acme/businesses/344").json(&json!({"name": "Repairs"}));
    router.api.send(other).await.ok();
    let unknown = judge(&router, "nobody", BUSINESS, json!(1)).await.refused(403, "invalid_user");
    assert_eq!(unknown["error_message"], "Invalid_User");
    router.customer(AUTH).await;
    for business in [BUSINESS, 344] {
        judge(&router, AUTH, business, json!(1)).await.refused(404, "no_conversation");
    }
    router.channel.say(AUTH, "hello").await;
    assert_eq!(judge(&router, AUTH, BUSINESS, json!(1)).await.status, 201);
    judge(&router, AUTH, 344, json!(1)).await.refused(404, "no_conversation");
    router.stop().await;
}
