//! Who may speak, and who may not (section 6 and 7).

use crate::support::{Fixture, Received, Tenants, Token};
use serde_json::{Value, json};

const AUTH: &str = "+49 170 2";

/// How often two receivers race.
const RACES: usize = 1000;

struct Stage {
    router: Fixture,
    sac: Token,
    user_id: String,
}

/// An open conversation with `sprinkle`; everybody may take.
async fn stage() -> Stage {
    let ect = json!({"may_take": true, "may_pass_to": "any"});
    let router = Fixture::with(Tenants { ect, client: json!({"sac": true}) }).await;
    let sac = router.operator_token("sac").await;
    let user_id = router.handed_off(AUTH).await;
    Stage { router, sac, user_id }
}

#[tokio::test]
async fn who_may_not_speak_cannot() {
    let Stage { router, sac, user_id } = stage().await;
    let receivers = [(&router.sprinkle, "ect"), (&router.helper, "ect"), (&sac, "aeu"), (&router.iva, "iva")];
    let mut expected = Vec::new();
    // The bot is the last to hold it: what is given to the bot is complete.
    for (round, (holder, own_sender)) in receivers.iter().enumerate() {
        let taken = holder.control(&user_id, "take", None).await.ok();
        assert_eq!(taken["active"], json!(holder.receiver));
        let epoch = taken["control_epoch"].as_u64().unwrap();

        for (other, sender) in receivers.iter().filter(|(other, _)| other.receiver != holder.receiver) {
            let case = format!("{} while {} holds it", other.receiver, holder.receiver);
            let present = |refusal: Value| {
                assert_eq!(
                    (&refusal["active"], &refusal["control_epoch"]),
                    (&json!(holder.receiver), &json!(epoch)),
                    "{case}"
                );
            };
            present(other.send(&user_id, sender, "not mine to say").await.refused(409, "not_active"));
            // With a stale epoch too: who does not hold it learns that first.
            let stale =
                json!({"user_id": user_id, "sender": sender, "message_body": "nor now", "control_epoch": epoch - 1});
            present(other.post("/tract/message/send/", &stale).await.refused(409, "not_active"));
            for topic in ["aeu_events.received", "aeu_events.allocated", "conversation_state.complete"] {
                present(other.event(&user_id, topic, &json!({})).await.refused(409, "not_active"));
            }
        }
        for (sender, name) in [("ceu", "the customer"), ("haptik", "the system")] {
            let refusal = holder.send(&user_id, sender, "in another's name").await;
            assert_eq!(refusal.status, 403, "{} as {name}", holder.receiver);
            refusal.refused(403, "sender_not_allowed");
        }
        let stale = json!({"user_id": user_id, "sender": own_sender, "message_body": "x", "control_epoch": epoch - 1});
        holder.post("/tract/message/send/", &stale).await.refused(409, "stale_epoch");

        expected.push(["first", "second", "third", "fourth"][round]);
        holder.send(&user_id, own_sender, expected[round]).await.ok();
        // The channel gets a thread's messages in order: whatever had slipped through would stand before this.
        router.customer_reads(&expected).await;
    }
    router.stop().await;
}

#[tokio::test]
async fn the_bot_speaks_as_itself_only_and_agents_never_as_the_bot() {
    let Stage { router, sac, user_id } = stage().await;
    for sender in ["iva", "haptik", "ceu"] {
        router.sprinkle.send(&user_id, sender, "x").await.refused(403, "sender_not_allowed");
    }
    sac.control(&user_id, "take", None).await.ok();
    sac.send(&user_id, "iva", "x").await.refused(403, "sender_not_allowed");
    router.iva.control(&user_id, "take", None).await.ok();
    for sender in ["aeu", "ect", "haptik", "ceu"] {
        router.iva.send(&user_id, sender, "x").await.refused(403, "sender_not_allowed");
    }
    router.iva.send(&user_id, "iva", "only this").await.ok();
    router.customer_reads(&["only this"]).await;
    router.stop().await;
}

/// A send and a take at the same time: the send is either before the take or refused, never after it.
#[tokio::test]
async fn a_take_and_a_send_never_both_win() {
    let Stage { router, sac, user_id } = stage().await;
    let mut accepted = Vec::new();
    for race in 0..RACES {
        let words = format!("race {race}");
        let epoch = router.sprinkle.thread(&user_id).await["control_epoch"].as_u64().unwrap();
        let send = router.sprinkle.send(&user_id, "aeu", &words);
        let take = sac.control(&user_id, "take", None);
        let (sent, taken) = if race % 2 == 0 {
            tokio::join!(send, take)
        } else {
            let (taken, sent) = tokio::join!(take, send);
            (sent, taken)
        };
        assert_eq!(taken.ok()["control_epoch"], json!(epoch + 1));
        if sent.status == 200 {
            assert_eq!(sent.ok()["control_epoch"], json!(epoch), "accepted, then before the take");
            accepted.push(words);
        } else {
            let refusal = sent.refused(409, "not_active");
            assert_eq!((&refusal["active"], &refusal["control_epoch"]), (&json!("sac"), &json!(epoch + 1)));
        }
        sac.control(&user_id, "pass", Some("sprinkle")).await.ok();
    }

    // By the committed order: each message of the agent's stands where its tool held the thread.
    let mut holder = "sprinkle".to_owned();
    let mut said = Vec::new();
    for entry in router.sprinkle.feed(&user_id).await {
        match entry["kind"].as_str() {
            Some("control") => {
                if let Some(to) = entry["to"].as_str() {
                    holder = to.to_owned();
                }
            }
            Some("message") if entry["sender"] == "aeu" => {
                assert_eq!(holder, "sprinkle", "{entry}");
                let element: Value = serde_json::from_str(entry["message_body"].as_str().unwrap()).unwrap();
                said.push(element["text"].as_str().unwrap().to_owned());
            }
            _ => {}
        }
    }
    assert_eq!(said, accepted, "what was acknowledged is in the feed, once, and nothing else is");
    let texts = |seen: &[Received]| -> Vec<String> {
        seen.iter().filter(|r| r.topic == "message").map(Received::text).collect()
    };
    let read =
        router.phone.find("all accepted messages", |seen| Some(texts(seen)).filter(|t| t.len() >= accepted.len()));
    assert_eq!(read.await, accepted, "what is refused never reaches the channel");
    router.stop().await;
}

/// Two receivers take with the same fencing token: exactly one gets the thread.
#[tokio::test]
async fn of_two_takes_at_one_epoch_one_wins() {
    let Stage { router, sac, user_id } = stage().await;
    for _ in 0..RACES / 10 {
        let epoch = router.sprinkle.thread(&user_id).await["control_epoch"].clone();
        let token = json!({"control_epoch": epoch});
        let (one, other) = tokio::join!(
            sac.control_with(&user_id, "take", None, token.clone()),
            router.helper.control_with(&user_id, "take", None, token.clone()),
        );
        let (won, lost) = if one.status == 200 { (one, other) } else { (other, one) };
        let winner = won.ok();
        let refusal = lost.refused(409, "stale_epoch");
        assert_eq!((&refusal["success"], &refusal["reason"]["active"]), (&json!(false), &winner["active"]));
        router.sprinkle.control(&user_id, "take", None).await.ok();
    }
    router.stop().await;
}
