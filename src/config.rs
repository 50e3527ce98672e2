//! The router's own settings: `tract.toml`, and over it the environment (section 11).

use crate::{
    http::files::PublicUrl,
    reading::{Fault, Faults, Fields, Located, Source, milliseconds},
    security::url::EgressRules,
    server::tls::TlsFiles,
    store::redis::url_fault,
    tenancy::{Secret, certificate, secrets},
};
use serde_json::Value;
use std::{
    ffi::OsString,
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};
use tract_domain::ReceiverId;

/// A store's message ids are counter × partitions + partition and must stay below 2^53; with so many partitions they do
/// until the year 2094.
const MAX_PARTITIONS: u64 = 1024;
/// The shortest secret that a JWT is signed with, in bytes: the length of the hash.
const MIN_JWT_SECRET: usize = 32;
/// A conversation is kept for as long as answers for idempotency keys are, so that none speaks of what is gone.
const SHORTEST_RETENTION: Duration = Duration::from_secs(24 * 3600);

/// Everything that can be set. [`Settings::default`] is what an empty file means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where to listen; default `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// Where the router is found from outside, for the links to files; default: the host that the request names.
    pub public_url: Option<PublicUrl>,
    /// This node's name among several on one store; default: random.
    pub node_id: String,
    /// Where threads are kept.
    pub store: StoreSettings,
    /// Tokens and keys.
    pub security: SecuritySettings,
    /// What may be connected to.
    pub egress: EgressSettings,
    /// Bounds.
    pub limits: Limits,
    /// For how long conversations are kept.
    pub retention: RetentionSettings,
    /// The certificate that it shows; without it, it speaks plain HTTP.
    pub tls: Option<TlsFiles>,
}

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreSettings {
    /// `kind = "embedded"`: SQLite in a directory of its own.
    Embedded {
        /// The directory, relative to the working directory; default `./tract-data`.
        path: PathBuf,
        /// Fixed when the store is created; default 256.
        partitions: u16,
    },
    /// `kind = "redis"`: a Redis server, or several.
    Redis {
        /// `redis://user:password@host:6379/0`, or one that names a cluster or sentinels. Secret for the password in it.
        url: Secret,
        /// A PEM file of who may vouch for the servers; default: the system's authorities. Relative to the settings file.
        ca: Option<PathBuf>,
        /// Fixed when the store is created; default 256.
        partitions: u16,
    },
}

/// `[security]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SecuritySettings {
    /// What opens the admin API. None: whoever starts the router makes one.
    pub admin_token: Option<Secret>,
    /// The first signs, all verify. None: one is made and kept in the store.
    pub jwt_keys: Vec<JwtKey>,
}

/// One of `security.jwt_keys`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtKey {
    /// Names the key in a token's header.
    pub kid: String,
    /// Used as its UTF-8 bytes, at least 32.
    pub secret: Secret,
}

/// `[egress]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EgressSettings {
    /// `allow_private` and `allow_http`.
    pub rules: EgressRules,
    /// PEM files with further roots of trust; relative to the settings file.
    pub extra_roots: Vec<PathBuf>,
    /// Where some host names lead, port included. For tests in one process; no key sets it.
    #[doc(hidden)]
    pub routes: Vec<(String, SocketAddr)>,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// 0 is off, the default.
    pub requests_per_second_per_token: u32,
    /// Requests in flight past which callers get 503; default 4096.
    pub in_flight: usize,
    /// Connections that are open at a time; further ones wait to be accepted. Default 10 000.
    pub connections: usize,
    /// Conversations that have an actor in memory at a time; default 100 000.
    pub live_actors: usize,
    /// How long a conversation without requests keeps its actor; default 5 minutes.
    pub passivate_after: Duration,
    /// Threads that actors run on; default one for every two cores.
    pub actor_threads: Option<usize>,
}

/// `[retention]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RetentionSettings {
    /// How long a conversation is kept after it was completed; none is for ever, the default.
    pub completed: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            public_url: None,
            node_id: random_node_id(),
            store: StoreSettings::default(),
            security: SecuritySettings::default(),
            egress: EgressSettings::default(),
            limits: Limits::default(),
            retention: RetentionSettings::default(),
            tls: None,
        }
    }
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self::Embedded { path: PathBuf::from("./tract-data"), partitions: 256 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests_per_second_per_token: 0,
            in_flight: 4096,
            connections: 10_000,
            live_actors: 100_000,
            passivate_after: Duration::from_secs(300),
            actor_threads: None,
        }
    }
}

fn random_node_id() -> String {
    let mut id = uuid::Uuid::new_v4().simple().to_string();
    id.truncate(12);
    id
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {reason}", .path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: io::Error,
    },
    /// Something in it, or in the environment, is wrong.
    #[error("{}", Several(.0))]
    Invalid(Vec<Located>),
}

/// The first fault, on one line; `tract check` shows them all.
struct Several<'a>(&'a [Located]);

impl fmt::Display for Several<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("the settings are not valid"),
            [fault] => write!(f, "{fault}"),
            [fault, rest @ ..] => write!(f, "{fault} (and {} more; `tract check` shows all)", rest.len()),
        }
    }
}

/// What a key's text in the environment is read as.
#[derive(Clone, Copy)]
enum Form {
    Text,
    Flag,
    Number,
    /// Comma separated, or a TOML list when it begins with `[`.
    List,
}

/// Every key, for the environment; the reader below says what each must be.
const KEYS: [(&str, Form); 22] = [
    ("listen", Form::Text),
    ("public_url", Form::Text),
    ("node_id", Form::Text),
    ("store.kind", Form::Text),
    ("store.path", Form::Text),
    ("store.url", Form::Text),
    ("store.ca", Form::Text),
    ("store.partitions", Form::Number),
    ("security.admin_token", Form::Text),
    ("security.jwt_keys", Form::List),
    ("egress.allow_private", Form::Flag),
    ("egress.allow_http", Form::Flag),
    ("egress.extra_roots", Form::List),
    ("limits.requests_per_second_per_token", Form::Number),
    ("limits.in_flight", Form::Number),
    ("limits.connections", Form::Number),
    ("limits.live_actors", Form::Number),
    ("limits.passivate_after", Form::Text),
    ("limits.actor_threads", Form::Number),
    ("retention.completed", Form::Text),
    ("tls.cert", Form::Text),
    ("tls.key", Form::Text),
];

impl Settings {
    /// Reads the file, if there is one, and the process's environment over it.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let text = match file {
            None => None,
            Some(path) => {
                let read = std::fs::read_to_string(path);
                Some(read.map_err(|reason| ConfigError::Unreadable { path: path.to_owned(), reason })?)
            }
        };
        let file = file.zip(text.as_deref());
        Self::read(file, std::env::vars_os()).map_err(ConfigError::Invalid)
    }

    /// Reads a file's text and environment variables. Touches nothing but the certificates and keys that they name.
    pub fn read(
        file: Option<(&Path, &str)>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Vec<Located>> {
        let mut source = match file {
            Some((path, text)) => Source::parse(&path.display().to_string(), text)?,
            None => Source::empty("tract.toml"),
        };
        let mut faults = overlay(&mut source, environment);
        let read = Faults::default();
        let mut settings = read_settings(&source.value, &read);
        let directory = file.and_then(|(path, _)| path.parent()).unwrap_or(Path::new(""));
        for (n, root) in settings.egress.extra_roots.iter_mut().enumerate() {
            *root = directory.join(&*root);
            if let Err(what) = check_root(root) {
                read.add(format!("egress.extra_roots[{n}]"), what);
            }
        }
        if let StoreSettings::Redis { ca: Some(ca), .. } = &mut settings.store {
            *ca = directory.join(&*ca);
            if let Err(what) = check_root(ca) {
                read.add("store.ca", what);
            }
        }
        if let Some(tls) = &mut settings.tls {
            *tls = TlsFiles { cert: directory.join(&tls.cert), key: directory.join(&tls.key) };
            if let Err(fault) = tls.load() {
                read.add(fault.key(), fault.to_string());
            }
        }
        faults.extend(source.locate_all(read.into_vec()));
        if faults.is_empty() { Ok(settings) } else { Err(faults) }
    }
}

/// Puts `TRACT_STORE__KIND` and the like over the file. A variable with `__` that names no key is a fault; one without
/// may be anybody's: `TRACT_URL` belongs to the
/// client commands, and a container platform sets `TRACT_PORT` for a service called tract.
fn overlay(source: &mut Source, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Vec<Located> {
    let mut faults = Vec::new();
    for (variable, text) in environment {
        let Some(variable) = variable.to_str() else { continue };
        let Some(key) = variable.strip_prefix("TRACT_") else { continue };
        let key = key.to_ascii_lowercase().replace("__", ".");
        let mut fault = |what: &str| {
            let fault = Fault::new(key.clone(), what);
            faults.push(Located { place: variable.to_owned(), line: None, fault });
        };
        let Some((_, form)) = KEYS.iter().find(|(known, _)| *known == key) else {
            if key.contains('.') {
                fault("is not a key that is known");
            }
            continue;
        };
        let Some(text) = text.to_str() else {
            fault("is not UTF-8");
            continue;
        };
        match form.read(text) {
            Some(value) => source.set(variable, &key, value),
            None => fault("is not a list"),
        }
    }
    faults
}

impl Form {
    /// The value in this form, or the text as it is, so that the reader says what it should be.
    fn read(self, text: &str) -> Option<Value> {
        let as_text = || Value::from(text);
        Some(match self {
            Self::Text => as_text(),
            Self::Flag => text.parse::<bool>().map_or_else(|_| as_text(), Value::from),
            Self::Number => text.parse::<i64>().map_or_else(|_| as_text(), Value::from),
            Self::List if text.trim_start().starts_with('[') => {
                let source = Source::parse("", &format!("list = {text}")).ok()?;
                source.value.get("list").cloned()?
            }
            Self::List => text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(Value::from).collect(),
        })
    }
}

fn read_settings(value: &Value, faults: &Faults) -> Settings {
    let empty = Value::Object(serde_json::Map::new());
    let root = Fields::of("", value, faults);
    let table = |key| root.table(key).unwrap_or_else(|| Fields::of(key, &empty, faults));
    let defaults = Settings::default();
    let settings = Settings {
        listen: root.parsed("listen", listen_address).unwrap_or(defaults.listen),
        public_url: root.parsed("public_url", PublicUrl::parse),
        node_id: root
            .parsed("node_id", |text| ReceiverId::new(text).map(|_| text.to_owned()))
            .unwrap_or(defaults.node_id),
        store: read_store(table("store")),
        security: read_security(table("security")),
        egress: read_egress(table("egress")),
        limits: read_limits(table("limits")),
        retention: read_retention(table("retention")),
        tls: root.table("tls").and_then(read_tls),
    };
    root.finish();
    settings
}

/// An address as `serve --listen` and `listen` take it.
pub fn listen_address(text: &str) -> Result<SocketAddr, ListenFault> {
    if let Some(port) = text.strip_prefix("localhost:") {
        let port = port.parse().map_err(|_| ListenFault)?;
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    text.parse().map_err(|_| ListenFault)
}

/// A text is not an address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an IP address and port such as 127.0.0.1:8080, or 0.0.0.0:8080 for all interfaces")]
pub struct ListenFault;

fn read_store(fields: Fields<'_>) -> StoreSettings {
    let kind = fields.text("kind");
    if !matches!(kind, None | Some("embedded" | "redis")) {
        fields.fault("kind", "must be \"embedded\" or \"redis\"");
    }
    let path = fields.parsed("path", |text| match text {
        "" => Err("must not be empty"),
        _ => Ok(PathBuf::from(text)),
    });
    // A file that is prepared for both kinds is not wrong.
    let ca = fields.text("ca").map(PathBuf::from);
    let url = fields.parsed("url", |text| url_fault(text, ca.is_some()).map_or_else(|| Ok(Secret::new(text)), Err));
    let partitions = fields.integer("partitions", 1..=MAX_PARTITIONS).and_then(|n| u16::try_from(n).ok());
    let partitions = partitions.unwrap_or(256);
    if kind == Some("redis") {
        fields.require("url");
    }
    fields.finish();
    match (kind, url) {
        (Some("redis"), Some(url)) => StoreSettings::Redis { url, ca, partitions },
        _ => StoreSettings::Embedded { path: path.unwrap_or_else(|| PathBuf::from("./tract-data")), partitions },
    }
}

fn read_security(fields: Fields<'_>) -> SecuritySettings {
    let admin_token = fields.parsed("admin_token", secrets::token);
    let mut jwt_keys: Vec<JwtKey> = Vec::new();
    for key in fields.tables("jwt_keys") {
        key.require("kid");
        key.require("secret");
        let kid = key.parsed("kid", |text| ReceiverId::new(text).map(|_| text.to_owned()));
        let secret = key.parsed("secret", |text| {
            if text.len() < MIN_JWT_SECRET { Err("must be at least 32 bytes long") } else { Ok(Secret::new(text)) }
        });
        if let (Some(kid), Some(secret)) = (kid, secret) {
            if jwt_keys.iter().any(|k| k.kid == kid) {
                key.fault("kid", "is the same as that of a key before it");
            }
            jwt_keys.push(JwtKey { kid, secret });
        }
        key.finish();
    }
    fields.finish();
    SecuritySettings { admin_token, jwt_keys }
}

fn read_egress(fields: Fields<'_>) -> EgressSettings {
    let rules = EgressRules {
        allow_private: fields.flag("allow_private").unwrap_or(false),
        allow_http: fields.flag("allow_http").unwrap_or(false),
    };
    let roots = fields.texts("extra_roots").unwrap_or_default();
    fields.finish();
    EgressSettings {
        rules,
        extra_roots: roots.into_iter().map(|(_, path)| PathBuf::from(path)).collect(),
        routes: Vec::new(),
    }
}

fn read_limits(fields: Fields<'_>) -> Limits {
    let defaults = Limits::default();
    let count = |key, most: u64| {
        let number = fields.integer(key, 1..=most);
        number.and_then(|n| usize::try_from(n).ok())
    };
    let rate = fields.integer("requests_per_second_per_token", 0..=u64::from(u32::MAX));
    let limits = Limits {
        requests_per_second_per_token: rate.and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        in_flight: count("in_flight", 1_000_000).unwrap_or(defaults.in_flight),
        connections: count("connections", 1_000_000).unwrap_or(defaults.connections),
        live_actors: count("live_actors", 100_000_000).unwrap_or(defaults.live_actors),
        passivate_after: fields.duration("passivate_after").map_or(defaults.passivate_after, Duration::from_millis),
        actor_threads: count("actor_threads", 1024),
    };
    if limits.passivate_after.is_zero() {
        fields.fault("passivate_after", "must be more than nothing");
    }
    fields.finish();
    limits
}

fn read_retention(fields: Fields<'_>) -> RetentionSettings {
    let completed = fields.parsed("completed", |text| match age(text) {
        Some(age) if age >= SHORTEST_RETENTION => Ok(age),
        Some(_) => Err("must be at least a day, for so long answers for an Idempotency-Key are kept"),
        None => Err("must be an age such as \"90d\" or \"36h\", at most a hundred years"),
    });
    fields.finish();
    RetentionSettings { completed }
}

/// Reads a number of days such as `90d`, or a duration such as `36h`.
fn age(text: &str) -> Option<Duration> {
    const DAY: u64 = 24 * 3600;
    match text.strip_suffix('d').map(str::parse::<u64>) {
        Some(Ok(days)) => (days <= 36_500).then(|| Duration::from_secs(days * DAY)),
        _ => milliseconds(text).ok().map(Duration::from_millis),
    }
}

fn read_tls(fields: Fields<'_>) -> Option<TlsFiles> {
    fields.require("cert");
    fields.require("key");
    let path = |key| fields.text(key).map(PathBuf::from);
    let files = path("cert").zip(path("key")).map(|(cert, key)| TlsFiles { cert, key });
    fields.finish();
    files
}

fn check_root(path: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    match certificate::parse(&text) {
        // A bundle of roots is one file with several.
        Ok(_) | Err(certificate::CertificateFault::Several(_) | certificate::CertificateFault::TooLarge) => Ok(()),
        Err(fault) => Err(format!("{} {fault}", path.display())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what it expects by panicking")]
mod tests;
