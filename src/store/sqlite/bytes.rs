//! The bytes of files that customers sent: one file each, in a directory for each partition.
//!
//! What is written is durable when it is said to be there: written beside its place, synced, moved into its place, and the
//! directory synced. All of it off the threads that serve requests.

use super::writer::ANSWER_WITHIN;
use crate::store::handle::{MAX_PARTITIONS, partition_of_file};
use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, ErrorKind, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{task::spawn_blocking, time::timeout};
use tract_actors::ports::{FILE_PIECE, FileToken, StoreError};

/// The directory within the store's.
const DIRECTORY: &str = "files";

/// What follows the name of a file that is being written; no token has it.
const UNFINISHED: &str = ".new";

/// Where the bytes are.
#[derive(Debug, Clone)]
pub(super) struct Bytes {
    root: PathBuf,
    /// Directories that are durably there.
    made: Arc<Mutex<HashSet<PathBuf>>>,
}

impl Bytes {
    /// Of the store in this directory.
    pub(super) fn beside(store: &Path) -> Self {
        Self { root: store.join(DIRECTORY), made: Arc::default() }
    }

    /// Where a file's bytes are; none for a token that is no store's.
    fn place(&self, token: &FileToken) -> Option<PathBuf> {
        let partition = partition_of_file(token, MAX_PARTITIONS)?;
        Some(self.root.join(partition.to_string()).join(token.expose()))
    }

    /// Keeps a file.
    pub(super) async fn put(&self, token: &FileToken, bytes: bytes::Bytes) -> Result<(), StoreError> {
        let place = self.place(token).ok_or_else(|| StoreError::Corrupt("a file's token is none".into()))?;
        let all = self.clone();
        off(move || {
            all.make_directory_of(&place)?;
            put(&place, &bytes)
        })
        .await
    }

    /// A piece of a file, if it is there.
    pub(super) async fn piece(&self, token: &FileToken, number: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(place) = self.place(token) else { return Ok(None) };
        off(move || piece(&place, number)).await
    }

    /// A piece of a file, if it is there. Blocks.
    pub(super) fn piece_now(&self, token: &FileToken, number: u64) -> io::Result<Option<Vec<u8>>> {
        self.place(token).map_or(Ok(None), |place| piece(&place, number))
    }

    /// Writes a piece in its place, not yet durably; where it is. Blocks.
    pub(super) fn write_piece_now(&self, token: &FileToken, number: u64, bytes: &[u8]) -> io::Result<PathBuf> {
        let place = self.place(token).ok_or(ErrorKind::InvalidInput)?;
        self.make_directory_of(&place)?;
        let mut file = File::options().create(true).truncate(false).write(true).open(&place)?;
        file.seek(SeekFrom::Start(number * FILE_PIECE as u64))?;
        file.write_all(bytes)?;
        Ok(place)
    }

    /// Makes the directory of this place, durably; once, so that nobody goes on before it is.
    fn make_directory_of(&self, place: &Path) -> io::Result<()> {
        let Some(directory) = place.parent() else { return Ok(()) };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if !made.contains(directory) || !directory.is_dir() {
            fs::create_dir_all(directory)?;
            sync_directory_of(directory)?;
            sync_directory_of(&self.root)?;
            made.insert(directory.to_owned());
        }
        Ok(())
    }

    /// Removes files; one that is not there is no fault.
    pub(super) async fn remove(&self, tokens: Vec<FileToken>) -> Result<(), StoreError> {
        let places: Vec<PathBuf> = tokens.iter().filter_map(|token| self.place(token)).collect();
        off(move || places.iter().try_for_each(|place| remove(place))).await
    }
}

/// Does something that blocks elsewhere. Whatever goes wrong with the disk, nothing is acknowledged.
async fn off<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, StoreError> {
    match timeout(ANSWER_WITHIN, spawn_blocking(work)).await {
        Ok(Ok(Ok(done))) => Ok(done),
        // Without the path, which tells the token.
        Ok(Ok(Err(error))) => Err(StoreError::Unavailable(format!("the files' directory: {}", error.kind()))),
        Ok(Err(_)) => Err(StoreError::Unavailable("the router is stopping".into())),
        Err(_) => Err(StoreError::Unavailable("the files' directory did not answer in time".into())),
    }
}

fn unfinished(place: &Path) -> PathBuf {
    let mut name = place.as_os_str().to_owned();
    name.push(UNFINISHED);
    name.into()
}

fn put(place: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = unfinished(place);
    let mut file = File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&unfinished, place)?;
    sync_directory_of(place)
}

/// Has the system keep what this is called.
pub(super) fn sync_directory_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

fn piece(place: &Path, number: u64) -> io::Result<Option<Vec<u8>>> {
    let mut file = match File::open(place) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    file.seek(SeekFrom::Start(number.saturating_mul(FILE_PIECE as u64)))?;
    let mut bytes = Vec::new();
    file.take(FILE_PIECE as u64).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

fn remove(place: &Path) -> io::Result<()> {
    for path in [&unfinished(place), place] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
