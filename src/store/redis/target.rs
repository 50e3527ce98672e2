//! What a store's URL says: which servers, of which kind, and how they are spoken to.

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, RedisError,
    RedisResult, TlsCertificates, aio::MultiplexedConnection,
};
use std::{fmt, sync::Arc, time::Duration};

/// How long connecting may take.
pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// How long an answer may take before the connection is given up.
pub(super) const RESPONSE_WITHIN: Duration = Duration::from_secs(4);

const FORM: &str = "must be like redis://user:password@host:6379/0";
const CLUSTER_FORM: &str =
    "must be like redis+cluster://user:password@host1:6379,host2:6379; a cluster has one database";
const SENTINEL_FORM: &str = "must be like redis+sentinel://user:password@host1:26379,host2:26379/mymaster";

const CA_FORM: &str = "store.ca is not a file of certificates in PEM";
const PEM: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// How a connection is made.
pub(super) fn connection_config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_WITHIN))
        .set_response_timeout(Some(RESPONSE_WITHIN))
}

/// Host and port of a server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Address {
    pub(super) host: Arc<str>,
    pub(super) port: u16,
}

impl Address {
    pub(super) fn new(host: &str, port: u16) -> Self {
        Self { host: host.into(), port }
    }
    /// From `host:port`, the host perhaps in brackets.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        (!host.is_empty()).then_some(Self::new(host, port.parse().ok()?))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// What kind of deployment it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// One server.
    Standalone,
    /// Several that share the keys.
    Cluster,
    /// One at a time, which sentinels know by this name.
    Sentinel(String),
}

/// A URL that was read.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) kind: Kind,
    /// Servers, some of the cluster's, or sentinels. Never empty.
    pub(super) seeds: Vec<Address>,
    /// How all servers are spoken to; the address is the first one's.
    info: ConnectionInfo,
}

impl Target {
    /// Whether it is a URL that can be read.
    pub(super) fn check(url: &str, has_ca: bool) -> Result<(), &'static str> {
        Self::begin(url, has_ca).map(drop)
    }

    /// Reads a URL. `ca` is PEM: whom to trust instead of the system's authorities.
    pub(super) fn read(url: &str, ca: Option<&[u8]>) -> Result<Self, &'static str> {
        let mut target = Self::begin(url, ca.is_some())?;
        if let Some(ca) = ca {
            let certificates = TlsCertificates { client_tls: None, root_cert: Some(ca.to_vec()) };
            let client = Client::build_with_tls(target.info, certificates).map_err(|_| CA_FORM)?;
            if !ca.windows(PEM.len()).any(|part| part == PEM) {
                return Err(CA_FORM);
            }
            target.info = client.get_connection_info().clone();
        }
        Ok(target)
    }

    fn begin(url: &str, has_ca: bool) -> Result<Self, &'static str> {
        let Some((scheme, rest)) = url.split_once("://") else { return Err(FORM) };
        let (tls, kind) = match scheme {
            "redis" => (false, Kind::Standalone),
            "rediss" => (true, Kind::Standalone),
            "redis+cluster" => (false, Kind::Cluster),
            "rediss+cluster" => (true, Kind::Cluster),
            "redis+sentinel" => (false, Kind::Sentinel(String::new())),
            "rediss+sentinel" => (true, Kind::Sentinel(String::new())),
            _ => return Err("must begin with redis://, redis+cluster:// or redis+sentinel://, or with rediss for TLS"),
        };
        let form = match kind {
            Kind::Standalone => FORM,
            Kind::Cluster => CLUSTER_FORM,
            Kind::Sentinel(_) => SENTINEL_FORM,
        };
        if has_ca && !tls {
            return Err("has no TLS, so store.ca means nothing: begin it with rediss");
        }
        // What follows a `?` or `#` means nothing here; one of a password is written %3F or %23.
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if rest.contains(['?', '#']) {
            return Err(form);
        }
        let (user, hosts) = authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
        let (kind, database) = match kind {
            Kind::Sentinel(_) => {
                let (name, database) = path.split_once('/').unwrap_or((path, ""));
                if name.is_empty() {
                    return Err(form);
                }
                (Kind::Sentinel(name.to_owned()), database)
            }
            Kind::Cluster if matches!(path, "" | "0") => (kind, ""),
            Kind::Standalone if !hosts.contains(',') => (kind, path),
            Kind::Cluster | Kind::Standalone => return Err(form),
        };
        let (at, scheme) = (if user.is_empty() { "" } else { "@" }, if tls { "rediss" } else { "redis" });
        let default_port = if matches!(kind, Kind::Sentinel(_)) { ":26379" } else { "" };
        let mut seeds = Vec::new();
        let mut info = None;
        for host in hosts.split(',') {
            let has_port = !host.is_empty() && host.rsplit(']').next().is_some_and(|end| end.contains(':'));
            let port = if has_port { "" } else { default_port };
            let one = format!("{scheme}://{user}{at}{host}{port}/{database}").into_connection_info();
            let one = one.map_err(|_| form)?;
            // An older server does not know it, and a user may not be allowed to.
            let settings = one.redis_settings().clone().set_skip_set_lib_name();
            let one = one.set_redis_settings(settings);
            seeds.push(match one.addr() {
                ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                    Address::new(host, *port)
                }
                _ => return Err(form),
            });
            info.get_or_insert(one);
        }
        let info = info.ok_or(form)?;
        Ok(Self { kind, seeds, info })
    }

    /// All seeds, without user and password.
    pub(super) fn shown(&self) -> String {
        self.seeds.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    /// How the server there is spoken to.
    pub(super) fn info(&self, address: &Address) -> ConnectionInfo {
        let (host, port) = (address.host.to_string(), address.port);
        let addr = match self.info.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        self.info.clone().set_addr(addr)
    }

    /// A connection to the server there.
    pub(super) async fn connect(&self, address: &Address) -> RedisResult<MultiplexedConnection> {
        connect(self.info(address)).await
    }

    /// A connection to the sentinel there. The user and password are the servers'; `known` is whether it asks for them, too.
    pub(super) async fn connect_sentinel(&self, address: &Address, known: bool) -> RedisResult<MultiplexedConnection> {
        let info = self.info(address);
        let settings = if known { info.redis_settings().clone().set_db(0) } else { RedisConnectionInfo::default() };
        connect(info.set_redis_settings(settings)).await
    }

    /// Whether user or password are given.
    pub(super) fn has_password(&self) -> bool {
        self.info.redis_settings().password().is_some()
    }
}

async fn connect(info: ConnectionInfo) -> Result<MultiplexedConnection, RedisError> {
    Client::open(info)?.get_multiplexed_async_connection_with_config(&connection_config()).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn seeds(url: &str) -> (Kind, String) {
        let target = Target::read(url, None).unwrap();
        (target.kind.clone(), target.shown())
    }

    #[test]
    fn urls_name_servers_of_a_kind() {
        let sentinel = Kind::Sentinel("mine".to_owned());
        for (url, kind, hosts) in [
            ("redis://h", Kind::Standalone, "h:6379"),
            ("rediss://u:p%40@[::1]:7/3", Kind::Standalone, "[::1]:7"),
            ("redis+cluster://:p@a:1,b:2,c", Kind::Cluster, "a:1,b:2,c:6379"),
            ("rediss+cluster://a/0", Kind::Cluster, "a:6379"),
            ("redis+sentinel://u:p@a:1,b/mine", sentinel.clone(), "a:1,b:26379"),
            ("rediss+sentinel://[::1]/mine/2", sentinel, "[::1]:26379"),
        ] {
            assert_eq!(seeds(url), (kind, hosts.to_owned()), "{url}");
        }
    }

    #[test]
    fn users_and_databases_are_the_same_everywhere() {
        let target = Target::read("rediss+sentinel://u:p%2F@a,b/mine/2", None).unwrap();
        let info = target.info(&Address::new("c", 9));
        assert_eq!(info.addr().to_string(), "c:9");
        assert!(matches!(info.addr(), ConnectionAddr::TcpTls { insecure: false, .. }));
        let settings = info.redis_settings();
        assert_eq!((settings.username(), settings.password(), settings.db()), (Some("u"), Some("p/"), 2));
    }

    #[test]
    fn what_is_no_url_is_said() {
        for (url, why) in [
            ("nonsense", "must be like redis://"),
            ("http://h", "must begin with redis://"),
            ("redis://", "must be like redis://"),
            ("redis://a,b", "must be like redis://"),
            ("redis://h/x", "must be like redis://"),
            ("rediss://h/#insecure", "must be like redis://"),
            ("redis+cluster://a,,b", "must be like redis+cluster://"),
            ("redis+cluster://a/1", "has one database"),
            ("redis+sentinel://a:1", "/mymaster"),
            ("redis+sentinel://a:1/m/x", "/mymaster"),
        ] {
            let fault = Target::read(url, None).err().unwrap();
            assert!(fault.contains(why), "{url}: {fault}");
        }
        let fault = Target::read("redis://h", Some(b"")).err().unwrap();
        assert!(fault.contains("store.ca"), "{fault}");
        for bad in [&b""[..], b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"] {
            assert_eq!(Target::read("rediss://h", Some(bad)).err(), Some(CA_FORM));
        }
    }
}
