//! Deliveries as they are shown, and dead letters that are sent again: for a receiver and for the operator alike.

use super::decode::{Name, Text};
use super::request::Params;
use super::{Edge, Problem};
use crate::tenancy::Directory;
use crate::wire;
use axum::http::StatusCode;
use serde::Serialize;
use tract_actors::ports::{
    AttemptRecord, DeliveryPage, DeliveryQuery, DeliveryRecord, DeliveryState, Endpoint, EndpointKind, Replay, Replayed,
};
use tract_domain::{Timestamp, UserId};
use utoipa::ToSchema;

/// How many dead letters are put back in one step: each step holds up everybody's commits.
const STEP: usize = 500;

/// A delivery and its attempts.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveryView {
    /// The same on every attempt, for ever.
    webhook_id: String,
    /// Where to; for the operator only.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    /// Of a hook: under the name that it was registered with.
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subcategory: Option<&'static str>,
    user_id: String,
    /// `pending`, `delivered`, `rejected` or `dead`.
    state: &'static str,
    /// The last 16, oldest first.
    attempts: Vec<AttemptView>,
    /// Of which entry of the thread; 0 when it is of none.
    sequence: u64,
    created_at: String,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    /// It was a dead letter, and was sent again.
    replayed: bool,
}

/// One attempt.
#[derive(Debug, Serialize, ToSchema)]
pub struct AttemptView {
    at: String,
    /// Null when there was no answer.
    status: Option<u16>,
    latency_ms: u64,
    error: Option<String>,
}

impl AttemptView {
    fn new(attempt: AttemptRecord) -> Self {
        let AttemptRecord { at, status, latency_ms, error } = attempt;
        Self { at: wire::time(at), status, latency_ms, error }
    }
}

impl DeliveryView {
    fn new(record: DeliveryRecord, directory: &Directory, with_endpoint: bool) -> Self {
        let (category, subcategory) = match record.endpoint.kind() {
            EndpointKind::Hook { client, receiver, topic } => {
                let (category, subcategory) = topic.names();
                let registered = directory.hook(&client, &receiver, topic).map(|hook| hook.category.clone());
                (Some(registered.unwrap_or_else(|| category.to_owned())), Some(subcategory))
            }
            _ => (None, None),
        };
        Self {
            webhook_id: record.webhook_id,
            endpoint: with_endpoint.then(|| record.endpoint.name().to_owned()),
            category,
            subcategory,
            user_id: record.user_id.to_string(),
            state: record.state.as_str(),
            attempts: record.attempts.into_iter().map(AttemptView::new).collect(),
            sequence: record.sequence,
            created_at: wire::time(record.created_at),
            ended_at: record.ended_at.map(wire::time),
            replayed: record.replayed,
        }
    }
}

/// How many dead letters are sent again.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveriesReplayed {
    /// Always true.
    pub(super) success: bool,
    pub(super) replayed: u64,
}

/// Which deliveries the query string asks for.
pub(super) fn query(params: &Params, endpoints: Vec<Endpoint>) -> Result<DeliveryQuery, Problem> {
    Ok(DeliveryQuery {
        endpoints,
        state: params.get("state").map(state).transpose()?,
        user_id: params.parse::<UserId>("user_id")?,
        limit: usize::try_from(params.integer("limit", 1, 500, 100)?).unwrap_or(STEP),
        cursor: params.cursor()?,
    })
}

fn state(name: &str) -> Result<DeliveryState, Problem> {
    DeliveryState::ALL.into_iter().find(|state| state.as_str() == name).ok_or_else(|| {
        let known: Vec<_> = DeliveryState::ALL.iter().map(|state| state.as_str()).collect();
        Problem::invalid("state", format_args!("must be one of {}", known.join(", ")))
    })
}

/// Which dead letters are meant: one, or all since a time.
pub(super) fn which(webhook_id: Option<&Name<256>>, since: Option<&Text<64>>) -> Result<Replayed, Problem> {
    match (webhook_id, since) {
        (Some(id), None) => Ok(Replayed::One(id.to_string())),
        (None, Some(since)) => {
            let at = since.parse::<jiff::Timestamp>();
            let wrong = |_| Problem::invalid("since", "must be a time such as 2026-07-25T17:20:00Z");
            at.map(|at| Replayed::Since(Timestamp(at.as_millisecond()))).map_err(wrong)
        }
        (None, None) => Err(Problem::invalid("webhook_id", "is missing; give it, or since")),
        (Some(_), Some(_)) => Err(Problem::invalid("since", "must not be given together with webhook_id")),
    }
}

impl Edge {
    /// A page of deliveries as it is shown, and where the next one begins.
    pub(super) async fn deliveries(
        &self,
        query: DeliveryQuery,
        with_endpoint: bool,
    ) -> Result<(Vec<DeliveryView>, Option<String>), Problem> {
        if query.endpoints.is_empty() {
            return Ok((Vec::new(), None));
        }
        let DeliveryPage { deliveries, next } = self.store.deliveries(query).await?;
        let directory = self.tenancy.directory();
        let shown = deliveries.into_iter().map(|record| DeliveryView::new(record, &directory, with_endpoint));
        Ok((shown.collect(), next))
    }

    /// Sends dead letters again; one that there is not is a 404.
    pub(super) async fn replay(
        &self,
        endpoints: Vec<Endpoint>,
        which: Replayed,
    ) -> Result<DeliveriesReplayed, Problem> {
        let now = self.now();
        let one = matches!(which, Replayed::One(_));
        let mut replayed = 0;
        while !endpoints.is_empty() {
            let step = Replay { endpoints: endpoints.clone(), which: which.clone(), limit: STEP, now };
            let count = self.store.replay(step).await?;
            replayed += count;
            if one || count < STEP as u64 {
                break;
            }
        }
        if one && replayed == 0 {
            let text = "webhook_id: is not that of a dead letter";
            return Err(Problem::new(StatusCode::NOT_FOUND, "unknown_delivery", text));
        }
        tracing::info!(replayed, "dead letters are sent again");
        Ok(DeliveriesReplayed { success: true, replayed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Shape, decode};
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Asked {
        #[serde(default)]
        webhook_id: Option<Name<256>>,
        #[serde(default)]
        since: Option<Text<64>>,
    }

    fn read(body: &str) -> Result<Replayed, String> {
        let asked: Asked = decode::json(body.as_bytes()).unwrap();
        let which = which(asked.webhook_id.as_ref(), asked.since.as_ref());
        which.map_err(|p| p.body(Shape::Error, "")["error"].as_str().unwrap().to_owned())
    }

    #[test]
    fn one_dead_letter_or_all_since_a_time() {
        assert_eq!(read(r#"{"webhook_id": "msg_1"}"#), Ok(Replayed::One("msg_1".to_owned())));
        assert_eq!(read(r#"{"since": "1970-01-01T00:00:01.5Z"}"#), Ok(Replayed::Since(Timestamp(1500))));
        assert_eq!(read("{}").unwrap_err(), "webhook_id: is missing; give it, or since");
        assert!(read(r#"{"webhook_id": "a", "since": "1970-01-01T00:00:01Z"}"#).unwrap_err().starts_with("since: "));
        for bad in ["yesterday", "2026-07-25", "2026-07-25T17:20:00", ""] {
            let says = read(&format!(r#"{{"since": "{bad}"}}"#)).unwrap_err();
            assert_eq!(says, "since: must be a time such as 2026-07-25T17:20:00Z", "{bad}");
        }
    }

    #[test]
    fn an_unknown_state_is_told_the_known_ones() {
        assert_eq!(state("dead"), Ok(DeliveryState::Dead));
        let says = state("lost").unwrap_err().body(Shape::Error, "")["error"].as_str().unwrap().to_owned();
        assert_eq!(says, "state: must be one of pending, delivered, rejected, dead");
    }
}
