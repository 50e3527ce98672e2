//! Partitions, public handles and message ids: what every store computes in the same way, for ever.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tract_actors::ports::{FileToken, StoreError};
use tract_domain::{BusinessId, ClientId, Timestamp, UserId};
use xxhash_rust::xxh3::xxh3_64;

/// The most partitions a store may have. Message ids are multiples of the number of partitions, so that this many still
/// leave room for two centuries of milliseconds below 2^53.
pub const MAX_PARTITIONS: u16 = 1024;

/// Message ids stay below this: the integers that every JSON reader holds exactly.
const MESSAGE_ID_END: u64 = 1 << 53;

/// 2025-01-01T00:00:00Z, from which message ids count.
const EPOCH: Timestamp = Timestamp(1_735_689_600_000);

/// The first character of every handle, so that none begins with a `-`, which a command line would take for an option.
const PREFIX: char = 'u';

/// Bytes of the authentication code in a handle: 128 bits.
const CODE: usize = 16;

/// Makes and reads the public handles of a store's threads (section 1): `u`, then in base64url the partition and an
/// authentication code over client, business and `auth_id` under a key that the store keeps for ever. Nobody can make one
/// up, nothing can be read from it but the partition, and the same user is somebody else for every client.
pub struct Handles {
    code: Hmac<Sha256>,
    partitions: u16,
}

impl Handles {
    /// For a store with this key and so many partitions (at least one).
    pub fn new(key: &[u8; 32], partitions: u16) -> Self {
        #[allow(clippy::expect_used, reason = "HMAC takes keys of every length")]
        let code = Hmac::new_from_slice(key).expect("a key of any length");
        Self { code, partitions: partitions.max(1) }
    }

    /// Where this user's record and all its threads are.
    pub fn home(&self, client: &ClientId, auth_id: &str) -> u16 {
        let mut bytes = Vec::with_capacity(16 + client.as_str().len() + auth_id.len());
        for field in [client.as_str(), auth_id] {
            bytes.extend((field.len() as u64).to_be_bytes());
            bytes.extend(field.as_bytes());
        }
        #[allow(clippy::cast_possible_truncation, reason = "a remainder of a u16")]
        let partition = (xxh3_64(&bytes) % u64::from(self.partitions)) as u16;
        partition
    }

    /// The handle of one thread.
    pub fn user_id(&self, client: &ClientId, business: BusinessId, auth_id: &str) -> UserId {
        let mut code = self.code.clone();
        for field in [client.as_str().as_bytes(), &business.to_be_bytes(), auth_id.as_bytes()] {
            code.update(&(field.len() as u64).to_be_bytes());
            code.update(field);
        }
        let mut bytes = [0; 2 + CODE];
        bytes[..2].copy_from_slice(&self.home(client, auth_id).to_be_bytes());
        bytes[2..].copy_from_slice(&code.finalize().into_bytes()[..CODE]);
        let mut text = String::from(PREFIX);
        BASE64_URL_SAFE_NO_PAD.encode_string(bytes, &mut text);
        #[allow(clippy::expect_used, reason = "base64url is a subset of what an identifier may contain")]
        UserId::new(&text).expect("25 characters of base64url")
    }

    /// The beginnings of all handles of a partition: four, because a character of base64url carries two bits of what
    /// follows.
    pub fn beginnings(partition: u16) -> [String; 4] {
        let [high, low] = partition.to_be_bytes();
        [0x00, 0x40, 0x80, 0xc0].map(|next| {
            let text = BASE64_URL_SAFE_NO_PAD.encode([high, low, next]);
            format!("{PREFIX}{}", text.get(..3).unwrap_or_default())
        })
    }

    /// The partition that a handle carries; none when it cannot be one of ours.
    pub fn partition(&self, user_id: &UserId) -> Option<u16> {
        partition(user_id, self.partitions)
    }
}

/// The partition that a handle carries, in a store of so many; none when it cannot be one of its.
pub fn partition(user_id: &UserId, partitions: u16) -> Option<u16> {
    partition_in(user_id.as_str()).filter(|partition| *partition < partitions)
}

/// The partition that a handle carries, whatever store it is of.
pub fn partition_in(user_id: &str) -> Option<u16> {
    let text = user_id.strip_prefix(PREFIX)?;
    let bytes: [u8; 2 + CODE] = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// Random bytes in a file's token: 176 bits.
const FILE_RANDOM: usize = 22;

/// A new file's token: in base64url the partition of its thread, and what nobody can guess.
pub fn new_file_token(partition: u16) -> Result<FileToken, StoreError> {
    let mut bytes = [0; 2 + FILE_RANDOM];
    bytes[..2].copy_from_slice(&partition.to_be_bytes());
    getrandom::fill(&mut bytes[2..]).map_err(|e| StoreError::Unavailable(format!("no randomness: {e}")))?;
    let token = FileToken::new(&BASE64_URL_SAFE_NO_PAD.encode(bytes));
    token.ok_or_else(|| StoreError::Unavailable("a token could not be made".into()))
}

/// The partition that a file's token carries, in a store of so many; none when it cannot be one of its.
pub fn partition_of_file(token: &FileToken, partitions: u16) -> Option<u16> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token.expose()).ok()?;
    let [high, low, ..] = *bytes.as_slice() else { return None };
    Some(u16::from_be_bytes([high, low])).filter(|partition| *partition < partitions)
}

/// The next value of a partition's counter: ahead of all before it, and of every one that a store rolled back to an
/// older moment may have given out. None when the ids are used up.
pub fn next_counter(previous: u64, now: Timestamp, partitions: u16) -> Option<u64> {
    let counter = previous.checked_add(1)?.max(now.since(EPOCH));
    (counter < counter_end(partitions)).then_some(counter)
}

/// What a partition's counter stays below, for a store that counts by itself.
pub fn counter_end(partitions: u16) -> u64 {
    MESSAGE_ID_END / u64::from(partitions.max(1))
}

/// The message id of this value of this partition's counter.
pub fn message_id(counter: u64, partition: u16, partitions: u16) -> u64 {
    counter * u64::from(partitions) + u64::from(partition)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn client(id: &str) -> ClientId {
        ClientId::new(id).unwrap()
    }

    /// Handles and partitions are stored and given out; a change here would orphan every thread.
    #[test]
    fn handles_are_the_same_for_ever() {
        let handles = Handles::new(&[7; 32], 256);
        let id = handles.user_id(&client("acme"), 343, "walter@example.org");
        assert_eq!(id.as_str(), "uANDoHSL_rV_1IKS78xe9lfjR");
        assert_eq!(handles.partition(&id), Some(handles.home(&client("acme"), "walter@example.org")));
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        let handles = Handles::new(&[7; 32], 256);
        assert_ne!(handles.user_id(&client("ab"), 1, "c"), handles.user_id(&client("a"), 1, "bc"));
        assert_ne!(handles.user_id(&client("a"), 1, "b"), handles.user_id(&client("a"), 2, "b"));
        assert_ne!(handles.user_id(&client("a"), 1, "b"), Handles::new(&[8; 32], 256).user_id(&client("a"), 1, "b"));
    }

    #[test]
    fn a_partitions_handles_and_no_others_have_its_beginnings() {
        let handles = Handles::new(&[7; 32], 1024);
        for n in 0..2_000 {
            let id = handles.user_id(&client("acme"), 1, &n.to_string());
            let home = handles.partition(&id).unwrap();
            let begins = |partition| Handles::beginnings(partition).iter().any(|b| id.as_str().starts_with(b));
            assert!(begins(home) && !begins((home + 1) % 1024) && !begins((home + 16) % 1024), "{id} {home}");
        }
    }

    #[test]
    fn a_foreign_handle_has_no_partition() {
        let handles = Handles::new(&[7; 32], 1);
        for text in ["x", "u", "uAAAA", &"u".repeat(128), "u_____________________________", "-AAAAAAAAAAAAAAAAAAAAAAAA"]
        {
            assert_eq!(handles.partition(&UserId::new(text).unwrap()), None, "{text}");
        }
        let elsewhere = Handles::new(&[7; 32], 1024);
        let high = (0..).map(|n| elsewhere.user_id(&client("a"), 1, &n.to_string()));
        let high = high.into_iter().find(|id| elsewhere.partition(id) > Some(0)).unwrap();
        assert_eq!(handles.partition(&high), None);
    }

    #[test]
    fn a_files_token_is_of_its_partition_and_no_other_has_it() {
        let token = new_file_token(513).unwrap();
        assert_eq!(token.expose().len(), FileToken::LENGTH);
        assert_eq!(partition_of_file(&token, 1024), Some(513));
        assert_eq!(partition_of_file(&token, 513), None);
        assert_ne!(token, new_file_token(513).unwrap());
        assert!(!format!("{token:?}").contains(token.expose()));
        for bad in ["", "a", &"a".repeat(31), &"a".repeat(33), &format!("../{}", "a".repeat(29)), &"é".repeat(16)] {
            assert_eq!(FileToken::new(bad), None, "{bad}");
        }
    }

    #[test]
    fn counters_go_up_whatever_the_clock_does() {
        assert_eq!(next_counter(0, EPOCH.plus(5), 256), Some(5));
        assert_eq!(next_counter(5, EPOCH.plus(5), 256), Some(6));
        assert_eq!(next_counter(9, Timestamp(0), 256), Some(10));
        assert_eq!(next_counter(9, Timestamp(i64::MAX), 256), None);
        assert!(message_id(next_counter(0, EPOCH.plus(200 * 366 * 86_400_000), 1024).unwrap(), 1023, 1024) < 1 << 53);
    }
}
