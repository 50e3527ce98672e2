//! The stored form of a delivery: JSON that the scripts read and write too. Numbers stay below 10^14, which is as far as a
//! script writes them exactly; what they need not understand travels as text.

use super::{fault::Fault, keys::Partition};
use crate::store::{migrate::DeliveryRecord as Moved, record};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tract_actors::ports::{Delivery, DeliveryRecord, DeliveryState, Endpoint, NewDelivery, StoredEntry, What};
use tract_domain::{Timestamp, UserId};

/// A delivery that waits, was received, or is a dead letter.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct DeliveryForm {
    user_id: String,
    webhook_id: String,
    what: String,
    sequence: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answers_handoff: Option<u64>,
    created_at: i64,
    attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_attempt_at: Option<i64>,
    due_at: i64,
    #[serde(default)]
    replayed: bool,
    /// The attempts, each JSON.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    log: Vec<String>,
    /// Of a message of a range: which.
    #[serde(default, skip_serializing)]
    pub(super) of: u64,
    #[serde(default, skip_serializing)]
    pub(super) ended_at: Option<i64>,
    #[serde(default, skip_serializing)]
    rejected: bool,
}

impl DeliveryForm {
    pub(super) fn new(new: &NewDelivery, user_id: &UserId, now: Timestamp) -> Result<Self, Fault> {
        Ok(Self {
            user_id: user_id.as_str().to_owned(),
            webhook_id: new.webhook_id.clone(),
            what: record::write_what(&new.what)?,
            sequence: new.sequence,
            answers_handoff: new.answers_handoff,
            created_at: now.0,
            attempts: 0,
            first_attempt_at: None,
            due_at: now.0,
            replayed: false,
            log: Vec::new(),
            of: 0,
            ended_at: None,
            rejected: false,
        })
    }

    pub(super) fn read(text: &[u8]) -> Result<Self, Fault> {
        // Not the error's own text, which quotes.
        serde_json::from_slice(text).map_err(|_| Fault::Unreadable("a delivery is not of its form"))
    }

    pub(super) fn write(&self) -> Result<String, Fault> {
        serde_json::to_string(self).map_err(|_| Fault::Unreadable("a delivery cannot be written"))
    }

    fn user_id(&self) -> Result<UserId, Fault> {
        UserId::new(&self.user_id).map_err(|_| Fault::Unreadable("an identifier is not one"))
    }

    pub(super) fn is_of(&self, user_id: &UserId) -> bool {
        self.user_id == user_id.as_str()
    }

    /// As a migration moves it; `rank` is its place among all deliveries.
    pub(super) fn record(&self, endpoint: &Endpoint, rank: u64) -> Result<Moved, Fault> {
        let log = (!self.log.is_empty()).then(|| format!("[{}]", self.log.join(",")));
        Ok(Moved {
            endpoint: endpoint.name().to_owned(),
            rank,
            of: self.of,
            user_id: self.user_id.clone(),
            webhook_id: self.webhook_id.clone(),
            what: record::read_what(&self.what)?,
            sequence: self.sequence,
            answers_handoff: self.answers_handoff,
            created_at: self.created_at,
            attempts: self.attempts,
            first_attempt_at: self.first_attempt_at,
            due_at: self.due_at,
            ended_at: self.ended_at,
            rejected: self.rejected,
            replayed: self.replayed,
            log: record::read_attempts(log.as_deref())?,
        })
    }

    /// What a migration moved here.
    pub(super) fn restored(moved: &Moved) -> Result<Self, Fault> {
        Ok(Self {
            user_id: moved.user_id.clone(),
            webhook_id: moved.webhook_id.clone(),
            what: record::write_what(&moved.what)?,
            sequence: moved.sequence,
            answers_handoff: moved.answers_handoff,
            created_at: moved.created_at,
            attempts: moved.attempts,
            first_attempt_at: moved.first_attempt_at,
            due_at: moved.due_at,
            replayed: moved.replayed,
            log: moved.log.iter().map(record::write_attempt).collect::<Result<_, _>>()?,
            of: moved.of,
            ended_at: moved.ended_at,
            rejected: moved.rejected,
        })
    }

    /// The form of what has ended, as the scripts write it.
    pub(super) fn ended(&self, id: u64, moved: &Moved) -> Result<String, Fault> {
        let mut form: serde_json::Value =
            serde_json::from_str(&self.write()?).map_err(|_| Fault::Unreadable("a delivery cannot be written"))?;
        form["id"] = id.to_string().into();
        form["of"] = moved.of.into();
        form["rejected"] = moved.rejected.into();
        form["ended_at"] = moved.ended_at.into();
        Ok(form.to_string())
    }

    /// Of which thread, what, and of which entry.
    pub(super) fn about(&self) -> Result<(UserId, What, u64), Fault> {
        Ok((self.user_id()?, record::read_what(&self.what)?, self.sequence))
    }

    pub(super) fn created_at(&self) -> Timestamp {
        Timestamp(self.created_at)
    }

    /// As couriers know it, by its partition and id, and the highest id that waited before it where that is known.
    pub(super) fn delivery(
        &self,
        (partition, id, behind): (Partition, u64, u64),
        endpoint: &Endpoint,
        entry: Option<Arc<StoredEntry>>,
    ) -> Result<Delivery, Fault> {
        Ok(Delivery {
            id,
            strand: partition.0,
            behind,
            endpoint: endpoint.clone(),
            user_id: self.user_id()?,
            webhook_id: self.webhook_id.clone(),
            what: record::read_what(&self.what)?,
            sequence: self.sequence,
            answers_handoff: self.answers_handoff,
            created_at: Timestamp(self.created_at),
            attempts: self.attempts,
            first_attempt_at: self.first_attempt_at.map(Timestamp),
            due_at: Timestamp(self.due_at),
            replayed: self.replayed,
            entry,
        })
    }

    /// As it is shown; `state` is what its place says of it.
    pub(super) fn shown(&self, endpoint: &Endpoint, state: DeliveryState) -> Result<DeliveryRecord, Fault> {
        let log = (!self.log.is_empty()).then(|| format!("[{}]", self.log.join(",")));
        Ok(DeliveryRecord {
            endpoint: endpoint.clone(),
            user_id: self.user_id()?,
            webhook_id: self.webhook_id.clone(),
            what: record::read_what(&self.what)?,
            sequence: self.sequence,
            state: if self.rejected { DeliveryState::Rejected } else { state },
            created_at: Timestamp(self.created_at),
            ended_at: self.ended_at.map(Timestamp),
            // A dead letter waits to be sent again; that it was before says nothing of it.
            replayed: self.replayed && state != DeliveryState::Dead,
            attempts: record::read_attempts(log.as_deref())?,
        })
    }
}
