//! A store that holds documents and nothing else.

use async_trait::async_trait;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};
use tract_actors::ports::*;
use tract_domain::{BusinessId, ClientId, Json, Origin, ReceiverId, State, Timestamp, UserId};
use uuid::Uuid;

#[derive(Default)]
pub(super) struct FakeStore(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    documents: BTreeMap<(String, String), String>,
    revision: u64,
    forgotten: Vec<Endpoint>,
    kept: Option<(IdempotencyKey, Json)>,
    threads: u64,
    lose_answer: Option<bool>,
    down: bool,
}

impl FakeStore {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }
    pub(super) fn writes(&self) -> u64 {
        self.inner().revision
    }
    pub(super) fn text(&self) -> String {
        self.inner().documents.iter().map(|((kind, id), body)| format!("{kind} {id} {body}\n")).collect()
    }
    pub(super) fn take_forgotten(&self) -> Vec<Endpoint> {
        std::mem::take(&mut self.inner().forgotten)
    }
    pub(super) fn last_kept(&self) -> Option<(IdempotencyKey, Json)> {
        self.inner().kept.clone()
    }
    pub(super) fn set_threads(&self, count: u64) {
        self.inner().threads = count;
    }
    /// The next write is carried out, or not, and nobody learns which.
    pub(super) fn lose_next_answer(&self, applied: bool) {
        self.inner().lose_answer = Some(applied);
    }
    /// Reads fail from now on.
    pub(super) fn go_down(&self) {
        self.inner().down = true;
    }
}

#[async_trait]
impl Store for FakeStore {
    async fn documents(&self) -> Result<Documents, StoreError> {
        let inner = self.inner();
        if inner.down {
            return Err(StoreError::Unavailable("down".to_owned()));
        }
        let document = |((kind, id), body): (&(String, String), &String)| Document {
            kind: kind.clone(),
            id: id.clone(),
            body: body.clone(),
        };
        let documents = inner.documents.iter().map(document).collect();
        Ok(Documents { revision: inner.revision, write_id: None, documents })
    }
    async fn write_documents(&self, write: DocumentWrite) -> Result<Written, StoreError> {
        let mut inner = self.inner();
        let lost = inner.lose_answer.take();
        if lost == Some(false) {
            return Err(StoreError::OutcomeUnknown);
        }
        if write.expected_revision != inner.revision {
            return Ok(Written::Conflict);
        }
        inner.revision += 1;
        inner.documents.extend(write.put.into_iter().map(|d| ((d.kind, d.id), d.body)));
        inner.documents.retain(|key, _| !write.delete.contains(key));
        inner.forgotten.extend(write.forget);
        inner.kept = write.idempotency;
        if lost.is_some() { Err(StoreError::OutcomeUnknown) } else { Ok(Written::Applied) }
    }
    async fn count_threads(
        &self,
        _: Option<&ClientId>,
        _: Option<BusinessId>,
        _: Option<&ReceiverId>,
    ) -> Result<u64, StoreError> {
        Ok(self.inner().threads)
    }

    fn user_id(&self, _: &ClientId, _: BusinessId, _: &str) -> UserId {
        unimplemented!()
    }
    async fn thread(&self, _: &UserId) -> Result<Option<StoredThread>, StoreError> {
        unimplemented!()
    }
    async fn commit(&self, _: Commit) -> Result<Committed, StoreError> {
        unimplemented!()
    }
    async fn feed(&self, _: &UserId, _: u64, _: usize) -> Result<Vec<StoredEntry>, StoreError> {
        unimplemented!()
    }
    async fn threads(&self, _: ThreadQuery) -> Result<ThreadPage, StoreError> {
        unimplemented!()
    }
    async fn states(&self) -> Result<BTreeMap<State, u64>, StoreError> {
        unimplemented!()
    }
    async fn version(&self, _: &UserId) -> Result<Option<(u64, Option<Uuid>)>, StoreError> {
        unimplemented!()
    }
    async fn revision(&self) -> Result<(u64, Option<Uuid>), StoreError> {
        Ok((self.inner().revision, None))
    }
    async fn due(&self, _: &[u16], _: Timestamp, _: usize) -> Result<Vec<UserId>, StoreError> {
        unimplemented!()
    }
    async fn next_due(&self, _: &[u16]) -> Result<Option<Timestamp>, StoreError> {
        unimplemented!()
    }
    async fn kept(&self, _: &IdempotencyKey, _: Timestamp) -> Result<Option<Kept>, StoreError> {
        unimplemented!()
    }
    async fn remember_request(&self, _: [u8; 32], _: Timestamp, _: Timestamp) -> Result<bool, StoreError> {
        unimplemented!()
    }
    async fn keep(&self, _: IdempotencyKey, _: Json, _: Timestamp) -> Result<(), StoreError> {
        unimplemented!()
    }
    async fn forget_expired(&self, _: Timestamp) -> Result<u64, StoreError> {
        unimplemented!()
    }
    async fn user(&self, _: &ClientId, _: &str) -> Result<Option<StoredUser>, StoreError> {
        unimplemented!()
    }
    async fn write_user(&self, _: UserWrite) -> Result<Written, StoreError> {
        unimplemented!()
    }
    async fn keep_ect_user_id(&self, _: &ClientId, _: &str, _: &ReceiverId, _: &str) -> Result<(), StoreError> {
        unimplemented!()
    }
    fn durability(&self) -> Durability {
        unimplemented!()
    }
    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
    async fn close(&self) {}
}

impl Leases for FakeStore {}

#[async_trait]
impl Outbox for FakeStore {
    fn subscribe(&self, _: Arc<dyn OutboxSink>) {}
    async fn endpoints(&self) -> Result<Vec<(Endpoint, EndpointStatus)>, StoreError> {
        unimplemented!()
    }
    async fn outbox(&self, _: &Endpoint, _: &[Part]) -> Result<Vec<Vec<Delivery>>, StoreError> {
        unimplemented!()
    }
    async fn outbox_by_id(&self, _: &Endpoint, _: &[u64]) -> Result<Vec<Delivery>, StoreError> {
        unimplemented!()
    }
    async fn update_outbox(&self, _: Vec<OutboxUpdate>) -> Result<(), StoreError> {
        unimplemented!()
    }
    async fn endpoint_status(&self, _: &Endpoint) -> Result<EndpointStatus, StoreError> {
        unimplemented!()
    }
    async fn bury(
        &self,
        _: &Endpoint,
        _: &[(u16, u64)],
        _: Timestamp,
        _: usize,
        _: Timestamp,
    ) -> Result<Buried, StoreError> {
        unimplemented!()
    }
    async fn deliveries(&self, _: DeliveryQuery) -> Result<DeliveryPage, StoreError> {
        unimplemented!()
    }
    async fn replay(&self, _: Replay) -> Result<u64, StoreError> {
        unimplemented!()
    }
}

#[async_trait]
impl Retention for FakeStore {
    async fn origin(&self, _: &UserId) -> Result<Origin, StoreError> {
        unimplemented!()
    }
    async fn owed(&self, _: &[ThreadKey], _: Timestamp) -> Result<Vec<Owed>, StoreError> {
        unimplemented!()
    }
    async fn trim_feed(&self, _: &UserId, _: u64, _: usize) -> Result<u64, StoreError> {
        unimplemented!()
    }
    async fn leave(&self, _: Leave) -> Result<Written, StoreError> {
        unimplemented!()
    }
}

#[async_trait]
impl Files for FakeStore {
    async fn put_file(&self, _: FileInfo, _: bytes::Bytes) -> Result<FileToken, StoreError> {
        unimplemented!()
    }
    async fn file(&self, _: &FileToken) -> Result<Option<FileInfo>, StoreError> {
        unimplemented!()
    }
    async fn file_piece(&self, _: &FileToken, _: u64) -> Result<Option<Vec<u8>>, StoreError> {
        unimplemented!()
    }
    async fn name_file(&self, _: &UserId, _: &FileToken, _: u64) -> Result<(), StoreError> {
        unimplemented!()
    }
    async fn drop_file(&self, _: &UserId, _: &FileToken) -> Result<(), StoreError> {
        unimplemented!()
    }
    async fn unnamed_files(&self, _: Timestamp, _: usize) -> Result<Vec<(UserId, FileToken)>, StoreError> {
        unimplemented!()
    }
    async fn forget_files(&self, _: &UserId, _: u64, _: usize) -> Result<u64, StoreError> {
        unimplemented!()
    }
}
