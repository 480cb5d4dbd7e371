//! Configuration: the environment, `PROXY_CONFIG`, and the mesh configuration file (spec configuration 2 and 3).
//!
//! Nothing else reads the environment. Every variable is a row of `table`; everything that is wrong is reported at once,
//! each problem in one line that names the variable, its value and the reason.

mod dump;
mod environment;
mod manual;
mod metadata;
mod parse;
mod reader;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use mesh::{Direction, LocalWorkload};

pub use environment::Environment;
pub use manual::manual;

use self::metadata::ProxyConfig;
use self::reader::Reader;
use crate::control;
pub use crate::control::{Roots, Token};
use crate::crypto::{self, KeyExchange, Versions};
use crate::export::Collector;
use crate::telemetry::access_log::{self, Sample, Wells};
use crate::telemetry::metrics::{self, Histograms, Shown};

/// Longest wait for a certificate before the node agent is answered, which gives up after 5 s (spec in-pod 2).
const LONGEST_CERTIFICATE_WAIT: Duration = Duration::from_secs(4);

/// Ports that are not configurable (spec configuration 4).
pub mod ports {
    /// HBONE into a pod.
    pub const INBOUND: u16 = 15008;
    /// Captured plain connections into a pod.
    pub const INBOUND_PLAINTEXT: u16 = 15006;
    /// Captured connections out of a pod.
    pub const OUTBOUND: u16 = 15001;
    /// SOCKS5 out of a pod.
    pub const SOCKS5: u16 = 15080;
    /// Readiness.
    pub const READINESS: u16 = 15021;
}

/// Mark of our packets in shared mode, which the packet rules know (spec in-pod 5).
const SHARED_MARK: u32 = 1337;
/// Longest share of a pod's grace period that is kept back for the end of the process itself.
const GRACE_KEPT_BACK: u64 = 5;
/// Drain deadline when nothing says otherwise (spec data-plane 3).
const DEFAULT_DRAIN: Duration = Duration::from_secs(5);

/// Node proxy or proxy of one workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// For the pods that the node agent announces.
    Shared,
    /// For one workload.
    Dedicated(LocalWorkload),
}

/// State of the mesh that does not come from the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalState {
    /// A file or a folder of files, loaded again when it changes.
    Path(PathBuf),
    /// Text.
    Text(String),
}

/// ztunnel's own pod, as far as it is known; parts that are not are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

/// Keepalive of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketConfig {
    /// Whether probes are sent.
    pub keepalive_enabled: bool,
    /// Silence before the first.
    pub keepalive_time: Duration,
    /// Time between two.
    pub keepalive_interval: Duration,
    /// How many go unanswered before the connection is given up.
    pub keepalive_retries: u32,
    /// Whether unacknowledged bytes end a connection as well.
    pub user_timeout_enabled: bool,
    /// Silence before the first probe towards apps.
    pub app_keepalive_time: Duration,
    /// Time between two probes towards apps.
    pub app_keepalive_interval: Duration,
    /// How many go unanswered before the connection to an app is given up.
    pub app_keepalive_retries: u32,
}

/// What one pod may take of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is a row of the table, documented in docs/configuration.md")]
pub struct PodLimits {
    pub connections: usize,
    pub connections_per_second: u32,
    pub handshakes: usize,
    pub buffered: usize,
}

/// All settings.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each is a row of the table, documented in docs/configuration.md")]
pub struct Config {
    pub mode: Mode,
    pub local_node: Option<String>,
    pub network: String,
    pub cluster_id: String,
    pub cluster_domain: String,
    pub own_workload: Option<LocalWorkload>,
    pub own_pod: Pod,
    pub own_trust_domain: String,
    pub instance_ip: String,
    pub ipv6_enabled: bool,
    pub xds_address: Option<String>,
    pub ca_address: Option<String>,
    pub xds_roots: Roots,
    pub ca_roots: Roots,
    pub alt_xds_hostname: Option<String>,
    pub alt_ca_hostname: Option<String>,
    pub xds_headers: Vec<(String, String)>,
    pub ca_headers: Vec<(String, String)>,
    pub auth_token: Token,
    pub xds_on_demand: bool,
    pub local_state: Option<LocalState>,
    pub secret_ttl: Duration,
    pub fake_ca: bool,
    pub prefered_service_namespace: Option<String>,
    pub crl_path: Option<PathBuf>,
    pub trust_bundles: Vec<PathBuf>,
    pub trust_domain_aliases: Vec<String>,
    pub crypto: crypto::Config,
    pub proxy: bool,
    pub socks5: bool,
    pub dns_proxy: bool,
    pub dns_proxy_address: Address,
    /// The file that names resolvers for what is not the mesh's (`RESOLV_CONF`).
    pub resolv_conf: PathBuf,
    pub require_original_source: Option<bool>,
    pub packet_mark: Option<u32>,
    pub inpod_uds: PathBuf,
    pub inpod_port_reuse: bool,
    pub inpod_certificate_wait: Duration,
    pub unknown_workload_timeout: Duration,
    pub pod_limits: PodLimits,
    pub pool_max_streams: u16,
    pub pool_unused_release: Duration,
    pub half_closed_timeout: Duration,
    pub endpoint_retry: bool,
    pub endpoint_retry_deadline: Duration,
    pub early_data: bool,
    pub same_node_direct: bool,
    pub buffer_budget: usize,
    pub stream_window: u32,
    pub connection_window: u32,
    pub frame_size: u32,
    pub socket: SocketConfig,
    pub drain_deadline: Duration,
    pub localhost_app_tunnel: bool,
    pub baggage: bool,
    pub worker_threads: usize,
    pub log_filter: String,
    pub log_json: bool,
    pub authz_info_logging: bool,
    pub unknown_policy: UnknownPolicy,
    pub traffic_metrics: metrics::Settings,
    pub histograms: Histograms,
    pub access_log: access_log::Filter,
    /// Connections that last so long are logged with the state of their sockets.
    pub slow_connection: Duration,
    pub access_log_collector: Option<Collector>,
    pub span_collector: Option<Collector>,
    pub collector_roots: Roots,
    pub admin_port: u16,
    pub stats_port: u16,
    pub proxy_metadata: BTreeMap<String, String>,
    pub structured_metadata: BTreeMap<String, serde_json::Value>,
    pub proxy_arguments: String,
    /// Things that look like mistakes and are not fatal, to be logged.
    pub warnings: Vec<String>,
}

pub use mesh::UnknownPolicy;

/// Where a server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// Loopback of all families in use.
    Localhost(u16),
    /// One address.
    Socket(SocketAddr),
}

/// All that is wrong with a configuration, one problem a line.
#[derive(Debug)]
pub struct ConfigError(Vec<String>);

impl ConfigError {
    /// The problems, a line each.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads all settings.
    ///
    /// # Errors
    /// Everything that is wrong with them, at once.
    pub fn load(environment: &Environment) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(environment);
        let config = read(&mut reader);
        match (config, reader.into_problems()) {
            (Some(config), problems) if problems.is_empty() => Ok(config),
            (_, problems) => Err(ConfigError(problems)),
        }
    }

    /// The wildcard address of the families in use.
    #[must_use]
    pub fn wildcard(&self) -> IpAddr {
        if self.ipv6_enabled { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
    }

    /// Ports that are never a destination (spec data-plane 1.2).
    #[must_use]
    pub fn illegal_ports(&self) -> Vec<u16> {
        let socks5 = self.socks5.then_some(ports::SOCKS5);
        [ports::INBOUND, ports::INBOUND_PLAINTEXT, ports::OUTBOUND].into_iter().chain(socks5).collect()
    }
}

/// Yields nothing if something without which nothing can be said is wrong; the reader holds what.
fn read(reader: &mut Reader<'_>) -> Option<Config> {
    let proxy_config = ProxyConfig::read(reader);
    let metadata = metadata::proxy_metadata(&proxy_config, reader.environment);
    let mut warnings = reader.typos();
    let structured_metadata = metadata::structured(reader.environment, &mut warnings);
    let fake_ca = reader.boolean("FAKE_CA");
    let ca_address = uri(reader, "CA_ADDRESS", None);
    if fake_ca == Some(false) && ca_address == Some(None) {
        reader
            .problem("invalid env var CA_ADDRESS= (ca_address must be set to use CA; or set FAKE_CA=true)".to_owned());
    }
    let mode = mode(reader);
    let shared = matches!(mode, Some(Mode::Shared));
    let xds_address = uri(reader, "XDS_ADDRESS", proxy_config.discovery_address.as_deref());
    let own_workload = own_workload(reader);
    let dns_capture = metadata.get("DNS_CAPTURE").is_none_or(|text| text.eq_ignore_ascii_case("true"));
    let socket = socket_config(reader);
    let config = Config {
        local_node: reader.text("NODE_NAME"),
        network: reader.text("NETWORK")?,
        cluster_id: metadata::cluster_id(reader)?,
        cluster_domain: reader.text("CLUSTER_DOMAIN")?,
        own_workload,
        own_pod: Pod {
            name: reader.text("POD_NAME").unwrap_or_default(),
            namespace: reader.text("POD_NAMESPACE").unwrap_or_default(),
        },
        own_trust_domain: reader.text("TRUST_DOMAIN")?,
        instance_ip: reader.text("INSTANCE_IP")?,
        ipv6_enabled: reader.boolean("IPV6_ENABLED")?,
        xds_roots: roots(reader, "XDS_ROOT_CA")?,
        ca_roots: roots(reader, "CA_ROOT_CA")?,
        alt_xds_hostname: reader.text("ALT_XDS_HOSTNAME"),
        alt_ca_hostname: reader.text("ALT_CA_HOSTNAME"),
        xds_headers: metadata::headers(reader, "XDS_HEADER_"),
        ca_headers: metadata::headers(reader, "CA_HEADER_"),
        auth_token: auth_token(reader),
        xds_on_demand: reader.boolean("XDS_ON_DEMAND")?,
        local_state: local_state(reader),
        secret_ttl: reader.duration("SECRET_TTL")?,
        prefered_service_namespace: reader.text("PREFERED_SERVICE_NAMESPACE"),
        crl_path: reader.text("CRL_PATH").filter(|path| !path.is_empty()).map(PathBuf::from),
        trust_bundles: list(reader, "TRUST_BUNDLES").map(PathBuf::from).collect(),
        trust_domain_aliases: list(reader, "TRUST_DOMAIN_ALIASES").collect(),
        crypto: crypto_config(reader)?,
        proxy: reader.boolean("ENABLE_PROXY")?,
        socks5: reader.boolean("UNSTABLE_ENABLE_SOCKS5")?,
        dns_proxy: dns_capture,
        dns_proxy_address: dns_address(reader, metadata.get("DNS_PROXY_ADDR").map(String::as_str)),
        resolv_conf: reader.text("RESOLV_CONF")?.into(),
        require_original_source: reader.boolean("ENABLE_ORIG_SRC"),
        packet_mark: packet_mark(reader, shared),
        inpod_uds: reader.text("INPOD_UDS")?.into(),
        inpod_port_reuse: reader.boolean("INPOD_PORT_REUSE")?,
        inpod_certificate_wait: certificate_wait(reader)?,
        unknown_workload_timeout: reader.duration("UNKNOWN_WORKLOAD_TIMEOUT")?,
        pod_limits: PodLimits {
            connections: narrow(reader.number("POD_MAX_CONNECTIONS")?),
            connections_per_second: narrow(reader.number("POD_MAX_CONNECTIONS_PER_SECOND")?),
            handshakes: narrow(reader.number("POD_MAX_HANDSHAKES")?),
            buffered: narrow(reader.number("POD_BUFFER_BUDGET")?),
        },
        pool_max_streams: narrow(reader.number("POOL_MAX_STREAMS_PER_CONNECTION")?),
        pool_unused_release: reader.duration("POOL_UNUSED_RELEASE_TIMEOUT")?,
        stream_window: narrow(reader.number("HTTP2_STREAM_WINDOW_SIZE")?),
        connection_window: narrow(reader.number("HTTP2_CONNECTION_WINDOW_SIZE")?),
        frame_size: narrow(reader.number("HTTP2_FRAME_SIZE")?),
        socket: socket?,
        half_closed_timeout: reader.duration("HALF_CLOSED_TIMEOUT")?,
        endpoint_retry: reader.boolean("ENDPOINT_RETRY")?,
        endpoint_retry_deadline: reader.duration("ENDPOINT_RETRY_DEADLINE")?,
        early_data: reader.boolean("HBONE_EARLY_DATA")?,
        same_node_direct: reader.boolean("SAME_NODE_DIRECT")?,
        buffer_budget: narrow(reader.number("BUFFER_BUDGET")?),
        drain_deadline: drain_deadline(reader),
        localhost_app_tunnel: reader.boolean("LOCALHOST_APP_TUNNEL")?,
        baggage: reader.boolean("ENABLE_RESPONSE_BAGGAGE")?,
        worker_threads: worker_threads(reader, proxy_config.concurrency),
        log_filter: reader.text("RUST_LOG")?,
        log_json: reader.text("LOG_FORMAT")? == "json",
        authz_info_logging: reader.switch("AUTHZ_POLICY_INFO_LOGGING"),
        unknown_policy: unknown_policy(reader)?,
        traffic_metrics: traffic_metrics(reader)?,
        histograms: if reader.boolean("METRICS_HISTOGRAMS")? { Histograms::Shown } else { Histograms::Absent },
        access_log: access_log(reader)?,
        slow_connection: reader.duration("ACCESS_LOG_SLOW")?,
        access_log_collector: collector(reader, "ACCESS_LOG_OTLP"),
        span_collector: collector(reader, "SPANS_OTLP"),
        collector_roots: roots(reader, "OTLP_ROOT_CA")?,
        admin_port: proxy_config.admin_port(reader)?,
        stats_port: proxy_config.stats_port(reader)?,
        proxy_metadata: metadata,
        structured_metadata,
        proxy_arguments: reader.environment.arguments.join(" "),
        warnings,
        // Last, so that problems with everything else have been found.
        fake_ca: fake_ca?,
        ca_address: if fake_ca? { None } else { ca_address? },
        xds_address: xds_address?,
        mode: mode?,
    };
    if !config.proxy && !config.dns_proxy {
        reader.problem("error parsing proxy config: ztunnel run without any servers enabled".to_owned());
    }
    Some(config)
}

/// How connections are told apart in metrics.
fn traffic_metrics(reader: &mut Reader<'_>) -> Option<metrics::Settings> {
    let labels = match reader.text("METRICS_LABELS") {
        None => Shown::default(),
        Some(text) => {
            let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
            Shown::only(names).unwrap_or_else(|unknown| {
                reader.invalid("METRICS_LABELS", &text, format_args!("there is no label {unknown}"));
                Shown::default()
            })
        }
    };
    let quiet = reader.duration("METRICS_QUIET_PERIOD")?;
    let most = narrow(reader.number("METRICS_MAX_SERIES")?);
    Some(metrics::Settings { most, quiet: (!quiet.is_zero()).then_some(quiet), labels })
}

/// Which connections have a line in the access log.
fn access_log(reader: &mut Reader<'_>) -> Option<access_log::Filter> {
    let direction = reader.special("ACCESS_LOG_DIRECTION", |text| match text {
        "inbound" => Ok(Some(Direction::Inbound)),
        "outbound" => Ok(Some(Direction::Outbound)),
        "both" => Ok(None),
        _ => Err("expected `inbound`, `outbound` or `both`".to_owned()),
    })?;
    Some(access_log::Filter {
        wells: if reader.boolean("ACCESS_LOG_ERRORS_ONLY")? { Wells::Left } else { Wells::Logged },
        at_least: reader.duration("ACCESS_LOG_MIN_DURATION")?,
        direction,
        namespaces: list(reader, "ACCESS_LOG_NAMESPACES").collect(),
        sample: reader.special("ACCESS_LOG_SAMPLE", Sample::percent)?,
    })
}

/// Where records of connections are sent besides, if anywhere.
fn collector(reader: &mut Reader<'_>, setting: &'static str) -> Option<Collector> {
    let text = reader.text(setting)?;
    let collector = text.parse();
    if let Err(error) = &collector {
        reader.invalid(setting, &text, error);
    }
    collector.ok()
}

fn socket_config(reader: &mut Reader<'_>) -> Option<SocketConfig> {
    let time = reader.duration("KEEPALIVE_TIME");
    let interval = reader.duration("KEEPALIVE_INTERVAL");
    let retries = reader.number("KEEPALIVE_RETRIES");
    let (app_time, app_interval) = (reader.duration("APP_KEEPALIVE_TIME"), reader.duration("APP_KEEPALIVE_INTERVAL"));
    let app_retries = reader.number("APP_KEEPALIVE_RETRIES");
    Some(SocketConfig {
        keepalive_enabled: reader.boolean("KEEPALIVE_ENABLED")?,
        keepalive_time: time?,
        keepalive_interval: interval?,
        keepalive_retries: narrow(retries?),
        user_timeout_enabled: reader.boolean("USER_TIMEOUT_ENABLED")?,
        app_keepalive_time: app_time.or(time)?,
        app_keepalive_interval: app_interval.or(interval)?,
        app_keepalive_retries: narrow(app_retries.or(retries)?),
    })
}

/// Values of the policy other than ours are the control plane's (spec identity-and-tls 7).
fn crypto_config(reader: &mut Reader<'_>) -> Option<crypto::Config> {
    let policy = reader.text("COMPLIANCE_POLICY");
    Some(crypto::Config {
        versions: if reader.boolean("TLS12_ENABLED")? { Versions::Tls12And13 } else { Versions::Tls13 },
        key_exchange: match policy.as_deref() {
            Some("pqc") => KeyExchange::HybridOnly,
            _ => KeyExchange::HybridPreferred,
        },
    })
}

/// A number whose bounds in the table fit the type.
fn narrow<T: TryFrom<u64> + Default>(number: u64) -> T {
    T::try_from(number).unwrap_or_default()
}

/// Texts between commas.
fn list(reader: &mut Reader<'_>, name: &'static str) -> impl Iterator<Item = String> + use<> {
    let text = reader.text(name).unwrap_or_default();
    let parts: Vec<String> =
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect();
    parts.into_iter()
}

fn mode(reader: &mut Reader<'_>) -> Option<Mode> {
    match reader.text("PROXY_MODE")?.as_str() {
        "shared" => Some(Mode::Shared),
        "dedicated" => {
            let Some(info) = reader.text("PROXY_WORKLOAD_INFO") else {
                let text = "invalid configuration: PROXY_MODE=dedicated requires PROXY_WORKLOAD_INFO to be set";
                reader.problem(text.to_owned());
                return None;
            };
            let parts: Vec<&str> = info.splitn(3, '/').collect();
            let &[namespace, name, service_account] = parts.as_slice() else {
                let format = "must match the format 'namespace/name/service-account'";
                reader.invalid("PROXY_WORKLOAD_INFO", &info, format_args!("{format} (got {parts:?})"));
                return None;
            };
            Some(Mode::Dedicated(LocalWorkload {
                name: name.into(),
                namespace: namespace.into(),
                service_account: service_account.into(),
            }))
        }
        other => {
            reader.invalid("PROXY_MODE", other, "PROXY_MODE must be one of dedicated, shared");
            None
        }
    }
}

fn own_workload(reader: &mut Reader<'_>) -> Option<LocalWorkload> {
    let (name, namespace, account) =
        (reader.text("POD_NAME"), reader.text("POD_NAMESPACE"), reader.text("SERVICE_ACCOUNT"));
    Some(LocalWorkload {
        name: name?.as_str().into(),
        namespace: namespace?.as_str().into(),
        service_account: account?.as_str().into(),
    })
}

/// A URI; `Some(None)` if it is set to nothing, `None` if it is wrong.
fn uri(reader: &mut Reader<'_>, name: &'static str, configured: Option<&str>) -> Option<Option<String>> {
    let in_cluster = reader.environment.get("KUBERNETES_SERVICE_HOST").is_some();
    let default = if in_cluster { "https://istiod.istio-system.svc:15012" } else { "https://localhost:15012" };
    let text = reader.text(name).or(configured.map(str::to_owned)).unwrap_or_else(|| default.to_owned());
    if text.is_empty() {
        return Some(None);
    }
    match text.parse::<control::Address>() {
        Ok(address) => Some(Some(address.to_string())),
        Err(cause) => {
            reader.invalid(name, &text, cause);
            None
        }
    }
}

/// A value with a slash is a path, as no token is: a mistyped path must not become a token that is sent to a server. A
/// file that is not there yet is looked for again at every use.
fn auth_token(reader: &mut Reader<'_>) -> Token {
    match reader.environment.get("AUTH_TOKEN").map(str::to_owned) {
        None => Token::OptionalFile(reader.text("AUTH_TOKEN").unwrap_or_default().into()),
        Some(path) if path.contains('/') => Token::File(path.into()),
        Some(text) => match reader.environment.file(text.as_ref()) {
            Ok(Some(_)) => Token::File(text.into()),
            Ok(None) | Err(_) => Token::Text(text),
        },
    }
}

fn roots(reader: &mut Reader<'_>, name: &'static str) -> Option<Roots> {
    let text = reader.text(name)?;
    Some(match text.as_str() {
        "SYSTEM" => Roots::System,
        pem if pem.contains("-----BEGIN") => Roots::Text(text),
        _ => Roots::File(text.into()),
    })
}

fn local_state(reader: &mut Reader<'_>) -> Option<LocalState> {
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    match (reader.text("LOCAL_XDS_PATH").and_then(some), reader.text("LOCAL_XDS").and_then(some)) {
        (Some(_), Some(_)) => {
            reader.problem("only one of LOCAL_XDS_PATH or LOCAL_XDS may be set".to_owned());
            None
        }
        (Some(path), None) => Some(LocalState::Path(path.into())),
        (None, Some(text)) => Some(LocalState::Text(text)),
        (None, None) => None,
    }
}

fn dns_address(reader: &mut Reader<'_>, text: Option<&str>) -> Address {
    const DEFAULT: Address = Address::Localhost(15053);
    let Some(text) = text else { return DEFAULT };
    if let Some(Ok(port)) = text.strip_prefix("localhost:").map(str::parse) {
        return Address::Localhost(port);
    }
    match text.parse() {
        Ok(address) => Address::Socket(address),
        Err(cause) => {
            reader.problem(format!("invalid configuration: failed to parse DNS_PROXY_ADDR: {text} ({cause})"));
            DEFAULT
        }
    }
}

fn packet_mark(reader: &mut Reader<'_>, shared: bool) -> Option<u32> {
    let default = shared.then_some(SHARED_MARK);
    let mark = reader.number("PACKET_MARK").map_or(default, |mark| Some(narrow(mark)));
    mark.filter(|mark| *mark != 0)
}

fn certificate_wait(reader: &mut Reader<'_>) -> Option<Duration> {
    let wait = reader.duration("INPOD_CERTIFICATE_WAIT")?;
    if wait > LONGEST_CERTIFICATE_WAIT {
        let bound = format!("must be at most {LONGEST_CERTIFICATE_WAIT:?}, or the node agent gives up waiting");
        reader.invalid("INPOD_CERTIFICATE_WAIT", &format!("{wait:?}"), bound);
        return None;
    }
    Some(wait)
}

fn drain_deadline(reader: &mut Reader<'_>) -> Duration {
    let grace = reader.number("TERMINATION_GRACE_PERIOD_SECONDS");
    reader.duration("CONNECTION_TERMINATION_DEADLINE").unwrap_or(match grace {
        None => DEFAULT_DRAIN,
        Some(grace) if grace > 2 * GRACE_KEPT_BACK => Duration::from_secs(grace - GRACE_KEPT_BACK),
        Some(grace) => Duration::from_secs(grace.saturating_sub(1).max(1)),
    })
}

fn worker_threads(reader: &mut Reader<'_>, concurrency: Option<u16>) -> usize {
    let limit = reader.special("ZTUNNEL_RESOURCE_CPU_LIMIT", parse::cpu);
    let request = reader.special("ZTUNNEL_RESOURCE_CPU_REQUEST", parse::cpu);
    let override_cores = reader.number("ZTUNNEL_CPU_LIMIT").map(|n| n as usize);
    let cores = limit.or(override_cores).unwrap_or(reader.environment.cores).max(1);
    if let Some(threads) = reader.special("ZTUNNEL_WORKER_THREADS", |text| parse::threads(text, cores)) {
        return threads;
    }
    match (concurrency, limit) {
        (Some(0), _) => cores,
        (Some(n), _) => n.into(),
        (None, Some(limit)) => limit.max(request.unwrap_or(1)),
        (None, None) => cores.div_ceil(4).max(request.unwrap_or(1)).max(2),
    }
}

fn unknown_policy(reader: &mut Reader<'_>) -> Option<UnknownPolicy> {
    reader.special("UNKNOWN_POLICY", |text| match text {
        "deny" => Ok(UnknownPolicy::Deny),
        "skip" => Ok(UnknownPolicy::Skip),
        _ => Err("expected `deny` or `skip`".to_owned()),
    })
}
