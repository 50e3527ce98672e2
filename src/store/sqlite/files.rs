//! Files that customers sent: a row for each, and beside the database its bytes.

use super::{
    SqliteStore,
    batch::{Batch, int},
    fault::Fault,
    writer::Step,
};
use crate::store::handle::new_file_token;
use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension};
use tract_actors::ports::{FileInfo, FileToken, Files, StoreError};
use tract_domain::{Timestamp, UserId};

#[async_trait]
impl Files for SqliteStore {
    async fn put_file(&self, info: FileInfo, bytes: bytes::Bytes) -> Result<FileToken, StoreError> {
        let partition = self.handles.partition(&info.user_id);
        let token = new_file_token(partition.ok_or_else(|| StoreError::Corrupt("a file is nobody's".into()))?)?;
        let user_id = info.user_id.clone();
        self.writer.ask(PutRow { token: token.clone(), info }).await?;
        if let Err(error) = self.bytes.put(&token, bytes).await {
            // Otherwise it waits to be swept up.
            let _ = self.drop_file(&user_id, &token).await;
            return Err(error);
        }
        Ok(token)
    }

    async fn file(&self, token: &FileToken) -> Result<Option<FileInfo>, StoreError> {
        let token = token.clone();
        self.points.ask(move |conn| info(conn, &token)).await
    }

    async fn file_piece(&self, token: &FileToken, number: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.bytes.piece(token, number).await
    }

    async fn name_file(&self, _: &UserId, token: &FileToken, sequence: u64) -> Result<(), StoreError> {
        self.writer.ask(NameRow { token: token.clone(), sequence }).await
    }

    async fn drop_file(&self, _: &UserId, token: &FileToken) -> Result<(), StoreError> {
        self.forget(vec![token.clone()]).await
    }

    async fn unnamed_files(&self, before: Timestamp, limit: usize) -> Result<Vec<(UserId, FileToken)>, StoreError> {
        self.scans.ask(move |conn| unnamed(conn, before, limit)).await
    }

    async fn forget_files(&self, user_id: &UserId, through: u64, most: usize) -> Result<u64, StoreError> {
        let user_id = user_id.clone();
        let tokens = self.points.ask(move |conn| named(conn, &user_id, through, most)).await?;
        let count = tokens.len() as u64;
        if count > 0 {
            self.forget(tokens).await?;
        }
        Ok(count)
    }
}

impl SqliteStore {
    /// The bytes first: what is left when the router dies in between is found by its rows.
    async fn forget(&self, tokens: Vec<FileToken>) -> Result<(), StoreError> {
        self.bytes.remove(tokens.clone()).await?;
        self.writer.ask(DropRows(tokens)).await
    }
}

fn text<T>(text: &str, read: impl FnOnce(&str) -> Option<T>) -> Result<T, Fault> {
    read(text).ok_or(Fault::Refused("a file's row cannot be read"))
}

pub(super) fn token(stored: &str) -> Result<FileToken, Fault> {
    text(stored, FileToken::new)
}

pub(super) fn user_id(stored: &str) -> Result<UserId, Fault> {
    text(stored, |stored| UserId::new(stored).ok())
}

fn info(conn: &Connection, token: &FileToken) -> Result<Option<FileInfo>, Fault> {
    const SELECT: &str = "SELECT user_id, content_type, name, size, at FROM files WHERE token = ?1";
    let found = conn.prepare_cached(SELECT)?.query_row([token.expose()], |row| {
        let (size, at) = (row.get::<_, i64>(3)?.unsigned_abs(), Timestamp(row.get(4)?));
        Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?, size, at))
    });
    let Some((user, content_type, name, size, at)) = found.optional()? else { return Ok(None) };
    Ok(Some(FileInfo { user_id: user_id(&user)?, content_type, name, size, at }))
}

fn unnamed(conn: &Connection, before: Timestamp, limit: usize) -> Result<Vec<(UserId, FileToken)>, Fault> {
    const SELECT: &str = "SELECT user_id, token FROM files WHERE sequence IS NULL AND at <= ?1 ORDER BY at LIMIT ?2";
    let mut select = conn.prepare_cached(SELECT)?;
    let mut rows = select.query((before.0, int(limit as u64)))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push((user_id(&row.get::<_, String>(0)?)?, token(&row.get::<_, String>(1)?)?));
    }
    Ok(found)
}

fn named(conn: &Connection, user_id: &UserId, through: u64, most: usize) -> Result<Vec<FileToken>, Fault> {
    const SELECT: &str = "SELECT token FROM files WHERE user_id = ?1 AND sequence <= ?2 ORDER BY sequence LIMIT ?3";
    let mut select = conn.prepare_cached(SELECT)?;
    let mut rows = select.query((user_id.as_str(), int(through), int(most as u64)))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(token(&row.get::<_, String>(0)?)?);
    }
    Ok(found)
}

/// A file that is to come.
struct PutRow {
    token: FileToken,
    info: FileInfo,
}

impl Step for PutRow {
    type Outcome = ();

    fn apply(&self, batch: &mut Batch<'_>) -> Result<(), Fault> {
        const PUT: &str = "INSERT OR REPLACE INTO files (token, user_id, at, content_type, name, size) \
            VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let FileInfo { user_id, content_type, name, size, at } = &self.info;
        let row = (self.token.expose(), user_id.as_str(), at.0, content_type, name, int(*size));
        batch.sql(PUT)?.execute(row)?;
        Ok(())
    }
}

/// A file whose entry is known.
struct NameRow {
    token: FileToken,
    sequence: u64,
}

impl Step for NameRow {
    type Outcome = ();

    fn apply(&self, batch: &mut Batch<'_>) -> Result<(), Fault> {
        const NAME: &str = "UPDATE files SET sequence = ?2 WHERE token = ?1";
        batch.sql(NAME)?.execute((self.token.expose(), int(self.sequence)))?;
        Ok(())
    }
}

/// Files that are gone.
struct DropRows(Vec<FileToken>);

impl Step for DropRows {
    type Outcome = ();

    fn apply(&self, batch: &mut Batch<'_>) -> Result<(), Fault> {
        for token in &self.0 {
            batch.sql("DELETE FROM files WHERE token = ?1")?.execute([token.expose()])?;
        }
        Ok(())
    }
}
