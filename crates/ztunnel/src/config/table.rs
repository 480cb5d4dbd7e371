//! Every setting that comes from an environment variable of its own: one row each.
//!
//! Names, types, defaults and ranges are read from here by the parser, and `docs/configuration.md` is printed from here,
//! so that the three cannot drift apart.

use Kind::{Bool, Duration, Number, Switch, Text};

/// What a variable's text may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `true` or `false`.
    Bool,
    /// `true` in any spelling; everything else is off.
    Switch,
    /// A whole number within bounds.
    Number { min: u64, max: u64 },
    /// A time such as `90s` or `1h30m`, at least `min` milliseconds.
    Duration { min: u64 },
    /// Any text.
    Text,
}

/// One setting.
#[derive(Debug)]
pub(super) struct Knob {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// What an unset variable means: a value in the variable's own spelling, or nothing.
    pub(super) default: Option<&'static str>,
    /// The key in `/config_dump`, if it is shown there.
    pub(super) key: Option<&'static str>,
    /// One or two sentences for the manual.
    pub(super) doc: &'static str,
}

const fn knob(
    name: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    key: Option<&'static str>,
    doc: &'static str,
) -> Knob {
    Knob { name, kind, default, key, doc }
}

const U16: Kind = Number { min: 1, max: u16::MAX as u64 };
const U32: Kind = Number { min: 0, max: u32::MAX as u64 };
/// Receive windows (RFC 9113 §6.9.1); below the protocol's default they would only slow things down.
const WINDOW: Kind = Number { min: 65_535, max: 0x7fff_ffff };
/// SETTINGS_MAX_FRAME_SIZE (RFC 9113 §6.5.2).
const FRAME: Kind = Number { min: 16_384, max: 16_777_215 };
/// Limits of one pod; none of them can be 0, which would be a pod without network.
const COUNT: Kind = Number { min: 1, max: u32::MAX as u64 };
const SECONDS: Kind = Duration { min: 1_000 };
const MILLISECONDS: Kind = Duration { min: 1 };

/// All rows, in the order of the manual.
#[rustfmt::skip]
pub(super) const KNOBS: &[Knob] = &[
    knob("PROXY_MODE", Text, Some("shared"), Some("proxyMode"),
        "`shared`: node proxy for many pods, which the node agent announces. `dedicated`: proxy of one workload, in its own namespace."),
    knob("PROXY_WORKLOAD_INFO", Text, None, Some("proxyWorkloadInformation"),
        "`namespace/name/service-account` of the workload; required in dedicated mode, ignored in shared mode."),
    knob("NODE_NAME", Text, None, Some("localNode"), "Name of this node: tells which workloads are local."),
    knob("NETWORK", Text, Some(""), Some("network"), "Network of this node."),
    knob("CLUSTER_ID", Text, Some("Kubernetes"), Some("clusterId"), "Id of this cluster. `ISTIO_META_CLUSTER_ID` wins."),
    knob("CLUSTER_DOMAIN", Text, Some("cluster.local"), Some("clusterDomain"), "Domain of this cluster, for DNS."),
    knob("POD_NAME", Text, None, Some("ztunnelWorkload"), "Name of ztunnel's own pod. With `POD_NAMESPACE` and `SERVICE_ACCOUNT`, a ztunnel in shared mode is a workload of the mesh itself: its own ports, metrics among them, are reached at 15008 of its namespace through mutual TLS."),
    knob("POD_NAMESPACE", Text, None, Some("ztunnelWorkload"), "Namespace of ztunnel's own pod."),
    knob("SERVICE_ACCOUNT", Text, None, Some("ztunnelWorkload"), "Service account of ztunnel's own pod."),
    knob("TRUST_DOMAIN", Text, Some("cluster.local"), Some("ztunnelIdentity"), "Trust domain of ztunnel's own identity."),
    knob("INSTANCE_IP", Text, Some("1.1.1.1"), None, "Address of ztunnel's own pod, told to the control plane."),
    knob("IPV6_ENABLED", Bool, Some("true"), Some("ipv6Enabled"), "Whether IPv6 is used at all."),

    knob("XDS_ADDRESS", Text, None, Some("xdsAddress"),
        "URI of the control plane: `https://HOST:PORT`, or `unix:///PATH` for a Unix socket without TLS. Set to nothing: there is none, and the state of the mesh comes from `LOCAL_XDS_PATH`. Unset: `discoveryAddress` of the proxy configuration, else istiod of the cluster."),
    knob("CA_ADDRESS", Text, None, Some("caAddress"), "URI of the mesh CA. Unset: istiod of the cluster."),
    knob("XDS_ROOT_CA", Text, Some("./var/run/secrets/istio/root-cert.pem"), Some("xdsRootCert"),
        "Roots that the control plane is verified with: a path, `SYSTEM`, or PEM text."),
    knob("CA_ROOT_CA", Text, Some("./var/run/secrets/istio/root-cert.pem"), Some("caRootCert"),
        "Roots that the CA is verified with: a path, `SYSTEM`, or PEM text."),
    knob("ALT_XDS_HOSTNAME", Text, None, Some("altXdsHostname"), "Another host name that the control plane may prove."),
    knob("ALT_CA_HOSTNAME", Text, None, Some("altCaHostname"), "Another host name that the CA may prove."),
    knob("AUTH_TOKEN", Text, Some("./var/run/secrets/tokens/istio-token"), None,
        "Path of the token that proves who we are to the control plane and the CA, read at every use; or the token itself. Unset: the default path, or no credentials while there is no such file."),
    knob("XDS_ON_DEMAND", Bool, Some("false"), Some("xdsOnDemand"), "Ask the control plane for addresses when they are needed."),
    knob("LOCAL_XDS_PATH", Text, None, None, "Path of a file with workloads, services and policies, or of a folder of such files (`.yaml`, `.yml`, `.json`); loaded again when it changes. The control plane, if there is one, may overwrite what it says."),
    knob("LOCAL_XDS", Text, None, None, "The same as text. Only one of the two may be set."),
    knob("SECRET_TTL", Duration { min: 1_000 }, Some("24h"), Some("secretTtl"), "Lifetime to ask for in certificates."),
    knob("FAKE_CA", Bool, Some("false"), Some("fakeCa"),
        "Certificates come from a root that is built in and public. For demonstrations only: whoever has this program can be anybody."),
    knob("PREFERED_SERVICE_NAMESPACE", Text, None, Some("preferedServiceNamespace"), "Namespace preferred among services of one name, in DNS."),
    knob("RESOLV_CONF", Text, Some("/etc/resolv.conf"), None,
        "File that names the resolvers for what the mesh does not know, looked at again when it changes. If it names only this machine, `/run/systemd/resolve/resolv.conf` is used."),
    knob("CRL_PATH", Text, None, Some("crlPath"),
        "Path of certificate revocation lists (PEM, or one in DER), loaded again when it changes; a file that cannot be used leaves the lists before it in force."),
    knob("TRUST_BUNDLES", Text, None, None,
        "Paths, separated by commas, of PEM files with roots that peers may have besides those that the CA names; loaded again when they change."),
    knob("TRUST_DOMAIN_ALIASES", Text, None, None,
        "Other names of our own trust domain, separated by commas: peers may be of any of them."),
    knob("TLS12_ENABLED", Bool, Some("false"), None,
        "Speak TLS 1.2 too, with peers and a control plane that have no TLS 1.3."),
    knob("COMPLIANCE_POLICY", Text, None, None,
        "`pqc`: agree on keys with X25519MLKEM768 only, and so in TLS 1.3 only; a build whose cryptography library cannot do that refuses to start. Everything else is for the control plane. Unset: X25519MLKEM768 is preferred."),

    knob("ENABLE_PROXY", Bool, Some("true"), Some("proxy"), "Whether traffic is proxied."),
    knob("UNSTABLE_ENABLE_SOCKS5", Bool, Some("false"), Some("socks5Addr"),
        "Offer SOCKS5 (CONNECT, without authentication) to apps, at port 15080 of each pod's IPv4 loopback. Host names are resolved as the pod's own queries are, whether or not those are captured."),
    knob("ENABLE_ORIG_SRC", Bool, None, Some("requireOriginalSource"),
        "Keep the client's address towards apps. Unset: if the kernel allows. `true`: refuse to start otherwise. `false`: never."),
    knob("PACKET_MARK", U32, None, Some("packetMark"), "Mark of the packets that ztunnel sends. Unset: 1337 in shared mode, none in dedicated mode; 0 is none."),
    knob("INPOD_UDS", Text, Some("/var/run/ztunnel/ztunnel.sock"), Some("inpodUds"), "Socket of the node agent."),
    knob("INPOD_CERTIFICATE_WAIT", Duration { min: 0 }, Some("0"), None,
        "How long the answer to the node agent that a new pod is served may wait for the pod's certificate, at most 4 s; pods of a snapshot run already and are answered at once. The node agent tells of one pod at a time, so that the wait for one holds up the next."),
    knob("UNKNOWN_WORKLOAD_TIMEOUT", MILLISECONDS, Some("15s"), None,
        "How long connections of a pod that the control plane has not announced yet wait for that."),
    knob("POD_MAX_CONNECTIONS", COUNT, Some("50000"), None,
        "Connections and tunnels that are accepted for one pod and open at a time; more are reset."),
    knob("POD_MAX_CONNECTIONS_PER_SECOND", COUNT, Some("10000"), None,
        "Connections and tunnels that are accepted for one pod in a second, through each of its ports; more wait to be accepted."),
    knob("POD_MAX_HANDSHAKES", COUNT, Some("2048"), None,
        "TLS handshakes of peers of one pod that are under way at a time; more wait."),
    knob("POD_BUFFER_BUDGET", U32, Some("134217728"), None,
        "The part of `BUFFER_BUDGET` that tunnels of one pod may use up."),
    knob("INPOD_PORT_REUSE", Bool, Some("true"), Some("inpodPortReuse"), "Let a second ztunnel listen beside this one, as while one replaces the other."),
    knob("POOL_MAX_STREAMS_PER_CONNECTION", U16, Some("100"), Some("poolMaxStreamsPerConn"), "Connections that share a tunnel at the most."),
    knob("POOL_UNUSED_RELEASE_TIMEOUT", MILLISECONDS, Some("5m"), Some("poolUnusedReleaseTimeout"), "How long a tunnel without connections is kept."),
    knob("HTTP2_STREAM_WINDOW_SIZE", WINDOW, Some("4194304"), Some("windowSize"), "Bytes that a peer may have under way on one connection."),
    knob("HTTP2_CONNECTION_WINDOW_SIZE", WINDOW, Some("16777216"), Some("connectionWindowSize"), "Bytes that a peer may have under way on one tunnel."),
    knob("HTTP2_FRAME_SIZE", FRAME, Some("1048576"), Some("frameSize"), "Largest frame that a peer may send."),
    knob("KEEPALIVE_ENABLED", Bool, Some("true"), Some("socketConfig"), "TCP keepalive on all connections."),
    knob("KEEPALIVE_TIME", SECONDS, Some("180s"), Some("socketConfig"), "Silence before the first keepalive probe."),
    knob("KEEPALIVE_INTERVAL", SECONDS, Some("180s"), Some("socketConfig"), "Time between keepalive probes."),
    knob("KEEPALIVE_RETRIES", Number { min: 1, max: 127 }, Some("9"), Some("socketConfig"), "Unanswered probes that end a connection."),
    knob("USER_TIMEOUT_ENABLED", Bool, Some("true"), Some("socketConfig"),
        "Give up when sent bytes stay unacknowledged for as long as keepalive would take."),
    knob("APP_KEEPALIVE_TIME", SECONDS, None, None, "Silence before the first keepalive probe towards apps. Unset: `KEEPALIVE_TIME`, as towards peers."),
    knob("APP_KEEPALIVE_INTERVAL", SECONDS, None, None, "Time between keepalive probes towards apps. Unset: `KEEPALIVE_INTERVAL`."),
    knob("APP_KEEPALIVE_RETRIES", Number { min: 1, max: 127 }, None, None, "Unanswered probes that end a connection to an app. Unset: `KEEPALIVE_RETRIES`."),
    knob("HALF_CLOSED_TIMEOUT", SECONDS, Some("1h"), None,
        "How long a connection whose one direction has ended may carry nothing in the other before it is cut."),
    knob("ENDPOINT_RETRY", Bool, Some("true"), None,
        "Try another endpoint of a service when one cannot be reached and nothing has been sent yet, and avoid those that failed for a while."),
    knob("ENDPOINT_RETRY_DEADLINE", MILLISECONDS, Some("10s"), None, "How long all tries of one connection may take together."),
    knob("HBONE_EARLY_DATA", Bool, Some("true"), None,
        "Send up to 16 KiB of what an app says first along with the request for its connection, which saves a round trip. Peers that refuse it are not given it again."),
    knob("SAME_NODE_DIRECT", Bool, Some("false"), None,
        "Carry connections between two pods of this node from app to app, without tunnel or encryption. Authorization, records and metrics are as through a tunnel; NetworkPolicies between the two pods are NOT enforced, since no packet travels between them."),
    knob("BUFFER_BUDGET", Number { min: 0, max: u32::MAX as u64 }, Some("268435456"), None,
        "Bytes that all tunnels together may let their peers send ahead, beyond 64 KiB for each connection. Windows do not grow past it."),
    knob("CONNECTION_TERMINATION_DEADLINE", Duration { min: 0 }, None, Some("selfTerminationDeadline"),
        "How long connections may take to finish when ztunnel ends. Wins over the next."),
    knob("TERMINATION_GRACE_PERIOD_SECONDS", Number { min: 0, max: 86_400 }, None, Some("selfTerminationDeadline"),
        "The pod's grace period, of which 5 s (1 s if it is 10 s or less) are kept back. Neither set: 5 s."),
    knob("LOCALHOST_APP_TUNNEL", Bool, Some("true"), Some("localhostAppTunnel"), "Dial apps that take the PROXY protocol by loopback."),
    knob("ENABLE_RESPONSE_BAGGAGE", Bool, Some("true"), Some("enableEnhancedBaggage"), "Exchange workload descriptions with peers, for telemetry."),

    knob("ZTUNNEL_WORKER_THREADS", Text, None, Some("numWorkerThreads"), "Threads of the data plane: a number, 0 for one per core, or a share of the cores such as `50%`."),
    knob("ZTUNNEL_CPU_LIMIT", Number { min: 1, max: 4096 }, None, None, "Number of cores to reckon with."),
    knob("ZTUNNEL_RESOURCE_CPU_LIMIT", Text, None, None, "The container's CPU limit, such as `2` or `1500m`."),
    knob("ZTUNNEL_RESOURCE_CPU_REQUEST", Text, None, None, "The container's CPU request."),
    knob("RUST_LOG", Text, Some("info"), None, "Log filter: a comma-separated list of `level` and `target=level`."),
    knob("LOG_FORMAT", Text, Some("plain"), None, "`json`, or text for people."),
    knob("AUTHZ_POLICY_INFO_LOGGING", Switch, Some("false"), None, "Log decisions of policies at info instead of debug."),
    knob("UNKNOWN_POLICY", Text, Some("deny"), None,
        "What a policy means that a workload refers to and that the control plane has not announced: `deny` once a short wait is over, or `skip` it as older ztunnels do."),
    knob("ACCESS_LOG_ERRORS_ONLY", Bool, Some("false"), None, "Log only connections that failed."),
    knob("ACCESS_LOG_MIN_DURATION", Duration { min: 0 }, Some("0"), None,
        "Connections that were shorter than this and did not fail are not logged."),
    knob("ACCESS_LOG_SAMPLE", Text, Some("100"), None,
        "How many percent of the connections that did not fail are logged, such as `2.5`; both ends log the same ones."),
    knob("ACCESS_LOG_DIRECTION", Text, Some("both"), None, "Log only connections that are `inbound` or `outbound`."),
    knob("ACCESS_LOG_NAMESPACES", Text, None, None,
        "Log only connections of which one side is in one of these namespaces, separated by commas."),
    knob("ACCESS_LOG_SLOW", Duration { min: 0 }, Some("10s"), None,
        "Connections that last at least so long are logged with round-trip times and retransmits, as those are that fail."),
    knob("ACCESS_LOG_OTLP", Text, None, None,
        "`http://HOST:PORT` or `https://HOST:PORT` of a collector that takes OTLP over gRPC: connections that have a line in the access log are told there too, whatever the level of the log."),
    knob("SPANS_OTLP", Text, None, None,
        "The same for spans, one for each connection that would have a line in the access log."),
    knob("OTLP_ROOT_CA", Text, Some("SYSTEM"), None,
        "Roots that collectors with `https` are verified with: a path, `SYSTEM`, or PEM text."),
    knob("METRICS_MAX_SERIES", Number { min: 1, max: 1_000_000 }, Some("10000"), None,
        "Combinations of labels by which metrics tell connections apart; more are counted together, with `unknown` labels."),
    knob("METRICS_QUIET_PERIOD", Duration { min: 0 }, Some("1h"), None,
        "How long metrics of connections are shown after the last connection with their labels has ended; they begin at 0 when they come back. `0`: as long as ztunnel runs."),
    knob("METRICS_LABELS", Text, None, None,
        "Labels by which metrics of connections are told apart, separated by commas, besides `reporter` and `response_flags`; fewer labels are fewer series. Unset: all of them."),
    knob("METRICS_HISTOGRAMS", Bool, Some("false"), None,
        "Also count how long connecting, TLS handshakes and connections take."),
];

/// The row of a variable.
pub(super) fn row(name: &str) -> Option<&'static Knob> {
    KNOBS.iter().find(|knob| knob.name == name)
}
