//! The tenants' configuration in the form of `tenants.toml`, of the admin API, and of the store's documents (section 11).

use serde::{Deserialize, Serialize};
use std::fmt;
use subtle::ConstantTimeEq;
use tract_domain::{BusinessId, ClientId, ReceiverId, Timestamp, Topic};

/// A text that must not be seen: its `Debug` shows nothing. It serialises as it is, for the store only.
#[derive(Clone, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

/// In constant time, wherever it is used; only the length may show.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Secret {
    /// Takes a text over.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
    /// The text, for signing and comparing.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A secret that was replaced, and still signs beside the new one for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// The old secret.
    pub secret: Secret,
    /// Until when it signs.
    pub until: Timestamp,
}

/// How long a replaced secret still signs, in milliseconds.
pub const PREVIOUS_SIGNS_MS: u64 = 24 * 3600 * 1000;

impl Previous {
    /// This secret, which is being replaced now.
    pub fn from(secret: Secret, now: Timestamp) -> Self {
        Self { secret, until: now.plus(PREVIOUS_SIGNS_MS) }
    }
}

/// What an endpoint's deliveries are signed with.
#[derive(Debug, Clone, Copy)]
pub struct Secrets<'a> {
    /// The present secret.
    pub current: &'a Secret,
    /// The one before it, which may have had its time.
    pub previous: Option<&'a Previous>,
}

/// An external chat tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ect {
    /// Its receiver id; neither `iva` nor `sac`.
    pub ect_id: ReceiverId,
    /// Its name for people; default: its id.
    #[serde(default)]
    pub name: String,
    /// Its host name, which its certificates must name.
    pub fqdn: String,
    /// Its self-signed certificates.
    #[serde(default)]
    pub certificates: Vec<Certificate>,
    /// Whether it must sign with SHA-256.
    #[serde(default)]
    pub require_sha256: bool,
    /// Whether the same signed request is refused the second time.
    #[serde(default = "yes")]
    pub refuse_replays: bool,
    /// Whether it must say `received`, `allocated` or a message to answer a hand-off.
    #[serde(default)]
    pub requires_received: bool,
    /// Which messages it gets.
    #[serde(default)]
    pub receive: ReceiveScope,
    /// To whom it may pass.
    #[serde(default)]
    pub may_pass_to: PassScope,
    /// Whether it may take.
    #[serde(default)]
    pub may_take: bool,
    /// Whether it may request.
    #[serde(default)]
    pub may_request: bool,
    /// Whether it is enabled at all.
    #[serde(default = "yes")]
    pub enabled: bool,
}

/// A self-signed certificate of an ECT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The id that we gave out for it, lower case with hyphens.
    pub uuid: String,
    /// SHA-256 of its DER form, hex: the same certificate keeps its id.
    pub fingerprint: String,
    /// The certificate itself.
    pub pem: String,
}

/// Which messages an ECT gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReceiveScope {
    /// Every message of the client's threads, standby included.
    #[default]
    All,
    /// Those while it is in control.
    Active,
}

/// To whom an ECT may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PassScope {
    /// A primary or the default receiver.
    #[default]
    Primary,
    /// Any receiver.
    Any,
}

/// A client organisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Its id.
    pub client_id: ClientId,
    /// Its name for people; default: its id.
    #[serde(default)]
    pub name: String,
    /// SHA-256 of the token of its channel side, hex; the token itself is not kept.
    pub api_token_sha256: String,
    /// The ECTs that it has enabled.
    #[serde(default)]
    pub ects: Vec<ReceiverId>,
    /// Whether it uses the built-in agent inbox.
    #[serde(default)]
    pub sac: bool,
    /// Gets new conversations; default: the ladder of section 7.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_receiver: Option<ReceiverId>,
    /// Gets hand-offs; default: SAC, else the only ECT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handoff_receiver: Option<ReceiverId>,
    /// Tried in turn when a hand-off is not answered.
    #[serde(default)]
    pub fallback: Vec<ReceiverId>,
    /// Whether a bot break goes to an agent.
    #[serde(default = "yes")]
    pub human_assistance: bool,
    /// What the customer reads when the bot breaks and no agent takes over.
    #[serde(default = "bot_break_message")]
    pub bot_break_message: String,
    /// How long a hand-off may go unanswered, in milliseconds; 0 is for ever.
    #[serde(default = "handoff_timeout_ms")]
    pub handoff_timeout_ms: u64,
    /// How long a conversation may be quiet in `bot` or `waiting`, in milliseconds; 0 is for ever.
    #[serde(default = "idle_timeout_ms")]
    pub idle_timeout_ms: u64,
    /// Its bot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iva: Option<Iva>,
    /// Its businesses; the first is the default.
    #[serde(default)]
    pub businesses: Vec<Business>,
    /// Whether it is enabled at all.
    #[serde(default = "yes")]
    pub enabled: bool,
}

/// A client's bot (section 9).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Iva {
    /// Where turns are posted.
    pub url: String,
    /// What they are signed with.
    pub secret: Secret,
    /// The secret before it, while that signs too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Previous>,
    /// How long a turn may take, in milliseconds.
    #[serde(default = "iva_timeout_ms")]
    pub timeout_ms: u64,
}

/// A business of a client: a channel or queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Business {
    /// The client's own number for it, below 2^53.
    pub business_id: BusinessId,
    /// Its name for people; default: its number.
    #[serde(default)]
    pub name: String,
    /// Where its replies go; without it they are in the feed only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<ChannelWebhook>,
    /// Gets new conversations of this business; default: the client's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_receiver: Option<ReceiverId>,
    /// The teams that a hand-off may name.
    #[serde(default)]
    pub teams: Vec<String>,
}

/// A business's channel webhook (section 10).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelWebhook {
    /// Where it is posted.
    pub url: String,
    /// What it is signed with.
    pub secret: Secret,
    /// The secret before it, while that signs too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Previous>,
}

/// A hook that a receiver registered (section 4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// For which client.
    pub client: ClientId,
    /// Whose.
    pub receiver: ReceiverId,
    /// For what.
    pub topic: Topic,
    /// The category as it was registered: `conversation_state` or its alias `collection_state`. Payloads carry it.
    pub category: String,
    /// Where it is posted.
    pub url: String,
    /// When it was registered first: nothing older is ever sent to it.
    pub registered_at: Timestamp,
}

impl Iva {
    /// What turns are signed with.
    pub fn secrets(&self) -> Secrets<'_> {
        Secrets { current: &self.secret, previous: self.previous.as_ref() }
    }
}

impl ChannelWebhook {
    /// What it is signed with.
    pub fn secrets(&self) -> Secrets<'_> {
        Secrets { current: &self.secret, previous: self.previous.as_ref() }
    }
}

/// How an endpoint was left when it was disabled or enabled last; there is none of one that was never disabled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointState {
    /// It was enabled, at this time.
    Since(Timestamp),
    /// It is disabled.
    Disabled(Disabled),
}

/// When and why an endpoint was disabled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disabled {
    /// When.
    pub at: Timestamp,
    /// Why, for a person.
    pub reason: String,
}

impl Client {
    /// A business of this client.
    pub fn business(&self, id: BusinessId) -> Option<&Business> {
        self.businesses.iter().find(|b| b.business_id == id)
    }
}

/// Bytes as lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn yes() -> bool {
    true
}
/// The default of [`Client::bot_break_message`].
pub(crate) fn bot_break_message() -> String {
    "Sorry, I did not get that.".to_owned()
}
fn handoff_timeout_ms() -> u64 {
    120_000
}
fn idle_timeout_ms() -> u64 {
    480_000
}
fn iva_timeout_ms() -> u64 {
    30_000
}
