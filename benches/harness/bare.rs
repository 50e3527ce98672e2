//! What everything is compared to: axum that does no more than any server must.

use axum::{
    Json, Router,
    routing::{get, post},
};
use serde_json::{Value, json};

/// With this option and an address, a bench is the bare server.
pub(crate) const OPTION: &str = "--bare-server";

/// Reads a JSON body, and answers JSON of the same size as the router's answer to `message/send`. Does nothing and
/// returns unless this process was started to be it.
pub(crate) fn serve_if_asked(runtime: &tokio::runtime::Runtime) -> bool {
    let mut args = std::env::args().skip_while(|a| a != OPTION).skip(1);
    let Some(addr) = args.next() else { return false };
    let app = Router::new().route("/readyz", get(|| async { "ready" })).route("/tract/message/send", post(send));
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(addr).await.unwrap();
        axum::serve(listener, app).await.unwrap();
    });
    true
}

async fn send(Json(body): Json<Value>) -> Json<Value> {
    let known = body.get("user_id").is_some_and(Value::is_string);
    answer(17, known)
}

/// As long as the router's answer to `message/send`.
pub(super) fn answer(sequence: u64, known: bool) -> Json<Value> {
    Json(json!({"message_id": 1_234_567_890_123u64, "conversation_number": "1", "sequence": sequence,
                "control_epoch": 1, "known": known}))
}
