//! Files: kept whole, named once, gone when they are told to go.

use super::*;
use bytes::Bytes;
use std::collections::BTreeSet;
use tract_actors::ports::{FILE_PIECE, FileInfo, FileToken};

/// A file of a thread's, which came at that time.
fn info(user_id: &UserId, at: Timestamp, bytes: &[u8]) -> FileInfo {
    let (content_type, name) = ("application/pdf".to_owned(), "Käthe's \"plan\".pdf".to_owned());
    FileInfo { user_id: user_id.clone(), content_type, name, size: bytes.len() as u64, at }
}

/// So many bytes.
pub(crate) fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|n| u8::try_from(n * 7 % 251).unwrap()).collect()
}

pub(crate) async fn put(store: &dyn Store, user_id: &UserId, at: Timestamp, bytes: &[u8]) -> FileToken {
    store.put_file(info(user_id, at, bytes), Bytes::copy_from_slice(bytes)).await.unwrap()
}

/// A file's bytes, piece by piece; none if it is not there.
pub(crate) async fn read(store: &dyn Store, token: &FileToken) -> Option<Vec<u8>> {
    let mut all = None;
    for number in 0.. {
        let piece = store.file_piece(token, number).await.unwrap().filter(|piece| !piece.is_empty());
        let Some(piece) = piece else { break };
        assert!(piece.len() <= FILE_PIECE);
        all.get_or_insert_with(Vec::new).extend(piece);
    }
    all
}

pub(crate) async fn a_file_is_kept_whole(place: &impl Place) {
    let store = place.open().await;
    let (walter, skyler) = (open_thread(&*store, 1, "walter").await, open_thread(&*store, 1, "skyler").await);
    let mut kept = Vec::new();
    for size in [1, FILE_PIECE - 1, FILE_PIECE, FILE_PIECE + 1, 5 * FILE_PIECE + 3] {
        for user_id in [&walter, &skyler] {
            let bytes = bytes(size);
            let token = put(&*store, user_id, NOW, &bytes).await;
            kept.push((info(user_id, NOW, &bytes), token, bytes));
        }
    }
    let tokens: BTreeSet<_> = kept.iter().map(|(_, token, _)| token.clone()).collect();
    assert_eq!(tokens.len(), kept.len());
    let unknown = FileToken::new(&"_".repeat(FileToken::LENGTH)).unwrap();
    let mut almost = kept[0].1.expose().to_owned();
    let last = if almost.ends_with('A') { "B" } else { "A" };
    almost.replace_range(FileToken::LENGTH - 1.., last);
    for reopened in [false, true] {
        if reopened {
            store.close().await;
        }
        let store = if reopened { place.open().await } else { Arc::clone(&store) };
        for (info, token, bytes) in &kept {
            assert_eq!(store.file(token).await.unwrap().as_ref(), Some(info));
            assert!(read(&*store, token).await.as_ref() == Some(bytes), "{} bytes", bytes.len());
            assert!(store.file_piece(token, 1_000).await.unwrap().unwrap_or_default().is_empty());
        }
        for token in [&unknown, &FileToken::new(&almost).unwrap()] {
            assert_eq!(store.file(token).await, Ok(None));
            assert_eq!(store.file_piece(token, 0).await, Ok(None));
        }
    }
}

pub(crate) async fn a_file_is_unnamed_until_it_is_named(place: &impl Place) {
    let store = place.open().await;
    let (walter, skyler) = (open_thread(&*store, 1, "walter").await, open_thread(&*store, 1, "skyler").await);
    let first = put(&*store, &walter, NOW, b"first").await;
    let second = put(&*store, &skyler, NOW.plus(10), b"second").await;
    let third = put(&*store, &walter, NOW.plus(20), b"third").await;
    let unnamed = async |store: &dyn Store, before: Timestamp, limit| {
        let found = store.unnamed_files(before, limit).await.unwrap();
        found.into_iter().collect::<BTreeSet<_>>()
    };
    let of = |files: &[(&UserId, &FileToken)]| {
        files.iter().map(|(user_id, token)| ((*user_id).clone(), (*token).clone())).collect::<BTreeSet<_>>()
    };
    assert_eq!(unnamed(&*store, NOW.plus(10), 9).await, of(&[(&walter, &first), (&skyler, &second)]));
    assert_eq!(unnamed(&*store, NOW.plus(20), 2).await.len(), 2);
    for _ in 0..2 {
        store.name_file(&walter, &first, 3).await.unwrap();
        store.drop_file(&walter, &third).await.unwrap();
        assert_eq!(unnamed(&*store, NOW.plus(20), 9).await, of(&[(&skyler, &second)]), "also when it is told again");
    }
    store.close().await;
    let store = place.open().await;
    assert_eq!(unnamed(&*store, NOW.plus(20), 9).await, of(&[(&skyler, &second)]));
    assert_eq!(read(&*store, &first).await.as_deref(), Some(&b"first"[..]));
    assert_eq!((store.file(&third).await, read(&*store, &third).await), (Ok(None), None));
}

pub(crate) async fn files_go_with_the_entries_that_name_them(place: &impl Place) {
    let store = place.open().await;
    let (walter, skyler) = (open_thread(&*store, 1, "walter").await, open_thread(&*store, 1, "skyler").await);
    let mut tokens = Vec::new();
    for sequence in 1..=5 {
        let token = put(&*store, &walter, NOW, &bytes(300_000)).await;
        store.name_file(&walter, &token, sequence).await.unwrap();
        tokens.push(token);
    }
    let others = put(&*store, &skyler, NOW, b"hers").await;
    store.name_file(&skyler, &others, 1).await.unwrap();
    let unnamed = put(&*store, &walter, NOW, b"on its way").await;
    assert_eq!(store.forget_files(&walter, 0, 9).await, Ok(0));
    assert_eq!(store.forget_files(&walter, 3, 2).await, Ok(2));
    assert_eq!(store.forget_files(&walter, 3, 2).await, Ok(1));
    assert_eq!(store.forget_files(&walter, 3, 2).await, Ok(0));
    for (n, token) in tokens.iter().enumerate() {
        let is_there = n >= 3;
        assert_eq!(store.file(token).await.unwrap().is_some(), is_there, "{n}");
        assert_eq!(read(&*store, token).await.is_some(), is_there, "{n}");
    }
    assert_eq!(store.forget_files(&walter, u64::MAX, 9).await, Ok(2));
    for token in [&others, &unnamed] {
        assert!(read(&*store, token).await.is_some(), "what they do not name stays");
    }
}
