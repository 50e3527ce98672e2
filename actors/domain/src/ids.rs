//! Names of the parties, and time as a value.

use serde::{Deserialize, Serialize};
use std::{borrow::Borrow, fmt, sync::Arc};

/// Why a string is not an identifier of that kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdFault {
    /// It has no characters.
    #[error("must not be empty")]
    Empty,
    /// It is longer than the bound.
    #[error("must be at most {0} characters long")]
    TooLong(usize),
    /// It has a character outside the permitted set.
    #[error("may only contain letters, digits, '-', '_', '.' and '~'")]
    Character,
}

/// Longest identifier in characters; the bound of a `user_id` (section 1), used for all of them.
pub const MAX_ID: usize = 128;

fn check(text: &str) -> Result<(), IdFault> {
    if text.is_empty() {
        return Err(IdFault::Empty);
    }
    if text.chars().count() > MAX_ID {
        return Err(IdFault::TooLong(MAX_ID));
    }
    let unreserved = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.' | b'~');
    if text.bytes().all(unreserved) { Ok(()) } else { Err(IdFault::Character) }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// 1 to 128 characters of the URL-unreserved set (RFC 3986, section 2.3).
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and takes over the text.
            pub fn new(text: &str) -> Result<Self, IdFault> {
                check(text).map(|()| Self(text.into()))
            }
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl TryFrom<String> for $name {
            type Error = IdFault;
            fn try_from(text: String) -> Result<Self, IdFault> {
                Self::new(&text)
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

id! {
    /// A receiver of thread control: `iva`, `sac`, or an ECT's `ect_id` (section 1).
    ReceiverId
}
id! {
    /// A client organisation (CO), a tenant.
    ClientId
}
id! {
    /// The public handle of a thread: one CEU at one business of one client.
    UserId
}

impl ReceiverId {
    /// The bot.
    pub fn iva() -> Self {
        Self("iva".into())
    }
    /// The built-in agent inbox.
    pub fn sac() -> Self {
        Self("sac".into())
    }
}

/// A business (a channel or queue) of a client; numbers are the client's own.
pub type BusinessId = u64;

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This time, later by so many milliseconds.
    #[must_use]
    pub fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add_unsigned(ms))
    }
    /// Milliseconds from `earlier` to this time; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }
}
