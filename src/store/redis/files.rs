//! Files that customers sent: each a key of its own in the partition of its thread, so that it is on the same server, and
//! gets to a replica before the message that names it.
//!
//! They go through the pools and not through the lanes: megabytes would hold up everybody's commits. No script is needed.
//! A file is listed before its first byte is there, and until its last one is gone.

use super::{
    RedisStore,
    fault::Fault,
    keys::Partition,
    reader::{Reader, command},
};
use crate::store::handle::{new_file_token, partition_of_file};
use async_trait::async_trait;
use bytes::Bytes;
use std::str::FromStr;
use tract_actors::ports::{FILE_PIECE, FileInfo, FileToken, Files, StoreError};
use tract_domain::{Timestamp, UserId};

/// Pieces that are sent together.
const TOGETHER: usize = 4;

/// What is known of a file, in the order of [`FileForm`].
pub(super) const FIELDS: [&str; 5] = ["user_id", "content_type", "name", "size", "at"];

/// The fields of a file's hash.
pub(super) type FileForm = [Option<String>; 5];

#[async_trait]
impl Files for RedisStore {
    async fn put_file(&self, info: FileInfo, bytes: Bytes) -> Result<FileToken, StoreError> {
        let partition = self.partition(&info.user_id).ok_or(Fault::Unreadable("a file is nobody's"))?;
        let token = new_file_token(partition.0)?;
        let mut reader = self.reader()?;
        if let Err(fault) = put(&mut reader, partition, &token, &info, &bytes).await {
            // It stays listed, to be swept up: what was sent and not answered may yet be carried out.
            let _ = reader.one::<i64>(command!("UNLINK", partition.file(&token))).await;
            return Err(fault.told());
        }
        Ok(token)
    }

    async fn file(&self, token: &FileToken) -> Result<Option<FileInfo>, StoreError> {
        let Some(partition) = self.partition_of_file(token) else { return Ok(None) };
        let form: FileForm = self.reader()?.one(command!("HMGET", partition.file(token), &FIELDS)).await?;
        Ok(read_info(form)?)
    }

    async fn file_piece(&self, token: &FileToken, number: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(partition) = self.partition_of_file(token) else { return Ok(None) };
        Ok(self.reader()?.one(command!("HGET", partition.file(token), number)).await?)
    }

    async fn name_file(&self, user_id: &UserId, token: &FileToken, sequence: u64) -> Result<(), StoreError> {
        let Some(partition) = self.partition_of_file(token) else { return Ok(()) };
        let commands = vec![
            command!("ZADD", partition.files(user_id), sequence, token.expose()),
            command!("ZREM", partition.unnamed(), listed(user_id, token)),
        ];
        self.reader()?.all::<i64>(commands).await?;
        Ok(())
    }

    async fn drop_file(&self, user_id: &UserId, token: &FileToken) -> Result<(), StoreError> {
        let Some(partition) = self.partition_of_file(token) else { return Ok(()) };
        Ok(drop_file(&mut self.reader()?, partition, user_id, token).await?)
    }

    async fn unnamed_files(&self, before: Timestamp, limit: usize) -> Result<Vec<(UserId, FileToken)>, StoreError> {
        let range = |n| command!("ZRANGE", Partition(n).unnamed(), "-inf", before.0, "BYSCORE", "LIMIT", 0, limit);
        let found: Vec<Vec<String>> = self.reader()?.all((0..self.place.partitions).map(range).collect()).await?;
        Ok(found.iter().flatten().take(limit).map(|text| read_listed(text)).collect::<Result<_, _>>()?)
    }

    async fn forget_files(&self, user_id: &UserId, through: u64, most: usize) -> Result<u64, StoreError> {
        let Some(partition) = self.partition(user_id) else { return Ok(0) };
        let mut reader = self.reader()?;
        let files = partition.files(user_id);
        let range = command!("ZRANGE", &files, "-inf", through, "BYSCORE", "LIMIT", 0, most);
        let found: Vec<String> = reader.one(range).await?;
        let mut commands = Vec::with_capacity(found.len() + 1);
        for token in &found {
            commands.push(command!("UNLINK", partition.file(&read_token(token)?)));
        }
        if !found.is_empty() {
            reader.all::<i64>(commands).await?;
            reader.one::<i64>(command!("ZREM", files, &found)).await?;
        }
        Ok(found.len() as u64)
    }
}

impl RedisStore {
    fn partition_of_file(&self, token: &FileToken) -> Option<Partition> {
        partition_of_file(token, self.place.partitions).map(Partition)
    }
}

async fn put(
    reader: &mut Reader,
    partition: Partition,
    token: &FileToken,
    info: &FileInfo,
    bytes: &[u8],
) -> Result<(), Fault> {
    let listed = listed(&info.user_id, token);
    reader.one::<i64>(command!("ZADD", partition.unnamed(), info.at.0, listed)).await?;
    let key = partition.file(token);
    let mut about = command!("HSET", &key, "user_id", info.user_id.as_str(), "content_type", &info.content_type);
    about.arg("name").arg(&info.name).arg("size").arg(info.size).arg("at").arg(info.at.0);
    reader.one::<i64>(about).await?;
    let pieces: Vec<(usize, &[u8])> = bytes.chunks(FILE_PIECE).enumerate().collect();
    for some in pieces.chunks(TOGETHER) {
        let set = |(number, piece): &(usize, &[u8])| command!("HSET", &key, *number, *piece);
        reader.all::<i64>(some.iter().map(set).collect()).await?;
    }
    Ok(())
}

async fn drop_file(
    reader: &mut Reader,
    partition: Partition,
    user_id: &UserId,
    token: &FileToken,
) -> Result<(), Fault> {
    reader.one::<i64>(command!("UNLINK", partition.file(token))).await?;
    let commands = vec![
        command!("ZREM", partition.files(user_id), token.expose()),
        command!("ZREM", partition.unnamed(), listed(user_id, token)),
    ];
    reader.all::<i64>(commands).await?;
    Ok(())
}

/// How a file is listed while it is unnamed.
pub(super) fn listed(user_id: &UserId, token: &FileToken) -> String {
    format!("{} {user_id}", token.expose())
}

pub(super) fn read_listed(text: &str) -> Result<(UserId, FileToken), Fault> {
    let (token, user_id) = text.split_once(' ').ok_or(FORM)?;
    Ok((UserId::new(user_id).map_err(|_| FORM)?, read_token(token)?))
}

pub(super) fn read_token(text: &str) -> Result<FileToken, Fault> {
    FileToken::new(text).ok_or(FORM)
}

const FORM: Fault = Fault::Unreadable("a file is not of its form");

/// What is known of a file, if it is there.
pub(super) fn read_info([user_id, content_type, name, size, at]: FileForm) -> Result<Option<FileInfo>, Fault> {
    let (Some(user_id), Some(content_type), Some(name), Some(size), Some(at)) = (user_id, content_type, name, size, at)
    else {
        return Ok(None);
    };
    fn number<T: FromStr>(text: &str) -> Result<T, Fault> {
        text.parse().map_err(|_| FORM)
    }
    let user_id = UserId::new(&user_id).map_err(|_| FORM)?;
    Ok(Some(FileInfo { user_id, content_type, name, size: number(&size)?, at: Timestamp(number(&at)?) }))
}
