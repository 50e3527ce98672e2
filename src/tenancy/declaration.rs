//! What `tract apply` sends: the form of `tenants.toml`, as JSON to `POST /admin/v1/apply`, certificates inlined as PEM.

use super::{
    certificate,
    host::host_name,
    model::{PassScope, ReceiveScope, Secret},
    secrets,
};
use crate::{
    reading::{Fault, Faults, Fields},
    security::url::{EgressRules, check_url},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use tract_domain::{BusinessId, ClientId, ReceiverId};

/// Business numbers are below 2^53, so that every JSON reader keeps them exact.
pub const MAX_BUSINESS_ID: u64 = (1 << 53) - 1;
/// The longest bot-break message, in bytes; the bound of any message body (section 6).
const MAX_MESSAGE: usize = 64 * 1024;
/// The longest name, in characters.
const MAX_NAME: usize = 256;
/// The longest that a turn of the IVA may take, in milliseconds.
const MAX_TURN_MS: u64 = 600_000;

/// The tenants to create or update. What it does not mention is left alone; a key that it leaves out has its default,
/// except tokens, secrets and certificates, which stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Declaration {
    /// The ECTs, in order.
    #[serde(rename = "ect")]
    pub ects: Vec<DeclaredEct>,
    /// The clients, in order.
    #[serde(rename = "client")]
    pub clients: Vec<DeclaredClient>,
}

/// An ECT, as declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeclaredEct {
    /// Its receiver id.
    pub ect_id: ReceiverId,
    /// Its name for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its host name, in lower case.
    pub fqdn: String,
    /// Its self-signed certificates as PEM; none leaves those that it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificates: Option<Vec<String>>,
    /// Whether it must sign with SHA-256.
    pub require_sha256: bool,
    /// Whether the same signed request is refused the second time.
    pub refuse_replays: bool,
    /// Whether its 2xx is not enough to answer a hand-off.
    pub requires_received: bool,
    /// Which messages it gets.
    pub receive: ReceiveScope,
    /// To whom it may pass.
    pub may_pass_to: PassScope,
    /// Whether it may take.
    pub may_take: bool,
    /// Whether it may request.
    pub may_request: bool,
    /// Whether it is enabled at all.
    pub enabled: bool,
}

/// A client, as declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeclaredClient {
    /// Its id.
    pub client_id: ClientId,
    /// Its name for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The token of its channel side; none keeps the one it has, or makes one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_token: Option<Secret>,
    /// The ECTs that it enables.
    pub ects: Vec<ReceiverId>,
    /// Whether it uses the built-in agent inbox.
    pub sac: bool,
    /// Gets new conversations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_receiver: Option<ReceiverId>,
    /// Gets hand-offs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handoff_receiver: Option<ReceiverId>,
    /// Tried in turn when a hand-off is not answered.
    pub fallback: Vec<ReceiverId>,
    /// Whether a bot break goes to an agent.
    pub human_assistance: bool,
    /// What the customer reads when the bot breaks and no agent takes over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bot_break_message: Option<String>,
    /// How long a hand-off may go unanswered, in milliseconds; 0 is for ever.
    #[serde(rename = "handoff_timeout", serialize_with = "as_milliseconds")]
    pub handoff_timeout_ms: u64,
    /// How long a conversation may be quiet in `bot` or `waiting`, in milliseconds; 0 is for ever.
    #[serde(rename = "idle_timeout", serialize_with = "as_milliseconds")]
    pub idle_timeout_ms: u64,
    /// Its bot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iva: Option<DeclaredIva>,
    /// Its businesses, in order.
    #[serde(rename = "business")]
    pub businesses: Vec<DeclaredBusiness>,
    /// Whether it is enabled at all.
    pub enabled: bool,
}

/// A client's bot, as declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeclaredIva {
    /// Where turns are posted.
    pub url: String,
    /// What they are signed with; none keeps the one it has, or makes one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// How long a turn may take, in milliseconds.
    #[serde(rename = "timeout", serialize_with = "as_milliseconds")]
    pub timeout_ms: u64,
}

/// A business, as declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeclaredBusiness {
    /// The client's own number for it.
    pub business_id: BusinessId,
    /// Its name for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where its replies go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<DeclaredWebhook>,
    /// Gets new conversations of this business.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_receiver: Option<ReceiverId>,
    /// The teams that a hand-off may name.
    pub teams: Vec<String>,
}

/// A channel webhook, as declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeclaredWebhook {
    /// Where it is posted.
    pub url: String,
    /// What it is signed with; none keeps the one it has, or makes one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
}

/// Something that applying made; secrets are shown this once. An ECT's certificates are told each time, since their ids
/// are no secret and stay the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// `certificate`, `api_token`, `iva_secret` or `channel_secret`.
    pub kind: String,
    /// Of what: an `ect_id`, a `client_id`, or `client_id/business_id`.
    pub of: String,
    /// The id or secret.
    pub value: String,
}

// Reads with `Declaration::read`, so that JSON over HTTP and a TOML file meet the same checks and the same words.
impl<'de> Deserialize<'de> for Declaration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let (declaration, faults) = Self::read(&value);
        if faults.is_empty() {
            return Ok(declaration);
        }
        let lines: Vec<_> = faults.iter().map(Fault::to_string).collect();
        Err(serde::de::Error::custom(lines.join("\n")))
    }
}

fn as_milliseconds<S: Serializer>(ms: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{ms}ms"))
}

impl Declaration {
    /// Reads a declaration and says all that is wrong with it by itself. When something is, what is returned is only good
    /// for looking for more: faulty values have their defaults.
    pub fn read(value: &Value) -> (Self, Vec<Fault>) {
        let faults = Faults::default();
        (Self::read_noting(value, &faults), faults.into_vec())
    }

    /// The same of a request's body, in which unknown fields are ignored (section 2); their full names come last.
    pub fn read_body(value: &Value) -> (Self, Vec<Fault>, Vec<String>) {
        let faults = Faults::ignoring_unknown_keys();
        let declaration = Self::read_noting(value, &faults);
        let ignored = faults.ignored();
        (declaration, faults.into_vec(), ignored)
    }

    fn read_noting(value: &Value, faults: &Faults) -> Self {
        let root = Fields::of("", value, faults);
        let declaration = Self {
            ects: root.tables("ect").into_iter().map(read_ect).collect(),
            clients: root.tables("client").into_iter().filter_map(read_client).collect(),
        };
        root.finish();
        declaration
    }
}

fn read_ect(fields: Fields<'_>) -> DeclaredEct {
    fields.require("ect_id");
    fields.require("fqdn");
    let ect_id = fields.parsed("ect_id", |text| match text {
        "iva" | "sac" => Err(format!("{text} is the id of a receiver of our own")),
        _ => ReceiverId::new(text).map_err(|e| e.to_string()),
    });
    let certificates = fields.texts("certificates").map(|list| {
        let read = |(at, text): (String, &str)| match certificate::parse(text) {
            Ok(parsed) => Some(parsed.pem),
            Err(fault) => {
                fields.fault_at(at, fault.to_string());
                None
            }
        };
        list.into_iter().filter_map(read).collect()
    });
    let ect = DeclaredEct {
        ect_id: ect_id.unwrap_or_else(ReceiverId::iva),
        name: name(&fields),
        fqdn: fields.parsed("fqdn", host_name).unwrap_or_default(),
        certificates,
        require_sha256: fields.flag("require_sha256").unwrap_or(false),
        refuse_replays: fields.flag("refuse_replays").unwrap_or(true),
        requires_received: fields.flag("requires_received").unwrap_or(false),
        receive: fields
            .parsed("receive", |text| match text {
                "all" => Ok(ReceiveScope::All),
                "active" => Ok(ReceiveScope::Active),
                _ => Err("must be \"all\" or \"active\""),
            })
            .unwrap_or_default(),
        may_pass_to: fields
            .parsed("may_pass_to", |text| match text {
                "primary" => Ok(PassScope::Primary),
                "any" => Ok(PassScope::Any),
                _ => Err("must be \"primary\" or \"any\""),
            })
            .unwrap_or_default(),
        may_take: fields.flag("may_take").unwrap_or(false),
        may_request: fields.flag("may_request").unwrap_or(false),
        enabled: fields.flag("enabled").unwrap_or(true),
    };
    fields.finish();
    ect
}

fn read_client(fields: Fields<'_>) -> Option<DeclaredClient> {
    fields.require("client_id");
    let client_id = fields.parsed("client_id", ClientId::new);
    let client = DeclaredClient {
        // Only a stand-in, so that the other clients keep their places; the fault is noted.
        client_id: client_id.or_else(|| ClientId::new("~").ok())?,
        name: name(&fields),
        api_token: fields.parsed("api_token", secrets::token),
        ects: receivers(&fields, "ects"),
        sac: fields.flag("sac").unwrap_or(false),
        default_receiver: fields.parsed("default_receiver", ReceiverId::new),
        handoff_receiver: fields.parsed("handoff_receiver", ReceiverId::new),
        fallback: receivers(&fields, "fallback"),
        human_assistance: fields.flag("human_assistance").unwrap_or(true),
        bot_break_message: fields.parsed("bot_break_message", |text| match text.len() {
            0 => Err("must not be empty"),
            n if n > MAX_MESSAGE => Err("must be at most 64 KiB long"),
            _ => Ok(text.to_owned()),
        }),
        handoff_timeout_ms: fields.duration("handoff_timeout").unwrap_or(120_000),
        idle_timeout_ms: fields.duration("idle_timeout").unwrap_or(480_000),
        iva: fields.table("iva").map(read_iva),
        businesses: fields.tables("business").into_iter().map(read_business).collect(),
        enabled: fields.flag("enabled").unwrap_or(true),
    };
    fields.finish();
    Some(client)
}

fn read_iva(fields: Fields<'_>) -> DeclaredIva {
    let timeout_ms = fields.duration("timeout");
    if timeout_ms.is_some_and(|ms| ms == 0 || ms > MAX_TURN_MS) {
        fields.fault("timeout", "must be more than nothing and at most 10m");
    }
    let iva = DeclaredIva {
        url: url(&fields),
        secret: fields.parsed("secret", secrets::webhook_secret),
        timeout_ms: timeout_ms.unwrap_or(30_000),
    };
    fields.finish();
    iva
}

fn read_business(fields: Fields<'_>) -> DeclaredBusiness {
    fields.require("business_id");
    let webhook = fields.table("webhook").map(|fields| {
        let webhook = DeclaredWebhook { url: url(&fields), secret: fields.parsed("secret", secrets::webhook_secret) };
        fields.finish();
        webhook
    });
    let teams = fields.texts("teams").unwrap_or_default();
    for (at, team) in &teams {
        if let Err(what) = check_name(team) {
            fields.fault_at(at.clone(), what);
        }
    }
    let business = DeclaredBusiness {
        business_id: fields.integer_or_decimal("business_id", 0..=MAX_BUSINESS_ID).unwrap_or_default(),
        name: name(&fields),
        webhook,
        default_receiver: fields.parsed("default_receiver", ReceiverId::new),
        teams: teams.into_iter().map(|(_, team)| team.to_owned()).collect(),
    };
    fields.finish();
    business
}

/// Everything but the scheme is judged here; whether http is allowed is for whoever connects.
fn url(fields: &Fields<'_>) -> String {
    fields.require("url");
    let any_scheme = EgressRules { allow_private: true, allow_http: true };
    fields.parsed("url", |text| check_url(text, any_scheme).map(|_| text.to_owned())).unwrap_or_default()
}

fn name(fields: &Fields<'_>) -> Option<String> {
    fields.parsed("name", |text| check_name(text).map(|()| text.to_owned()))
}

fn check_name(text: &str) -> Result<(), &'static str> {
    match text.chars().count() {
        0 => Err("must not be empty"),
        n if n > MAX_NAME => Err("must be at most 256 characters long"),
        _ if text.chars().any(char::is_control) => Err("must not contain control characters"),
        _ => Ok(()),
    }
}

fn receivers(fields: &Fields<'_>, key: &'static str) -> Vec<ReceiverId> {
    let mut ids: Vec<ReceiverId> = Vec::new();
    for (at, text) in fields.texts(key).unwrap_or_default() {
        match ReceiverId::new(text) {
            Ok(id) if ids.contains(&id) => fields.fault_at(at, format!("{id} stands here twice")),
            Ok(id) => ids.push(id),
            Err(fault) => fields.fault_at(at, fault.to_string()),
        }
    }
    ids
}
