//! Puts the parts together: configuration in, a running node proxy out, and its orderly end.
//!
//! The order of the start is that of spec configuration 6. Everything that can be wrong with the set-up ends the start
//! with one line that says what and what to do; what was opened before is closed by being dropped.

pub mod check;
pub mod redirect;
pub mod supervisor;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hbone::h2::Allowance;
use mesh::lookup::{Families, Search};
use mesh::{AdmitSettings, LocalWorkload, LookupSettings, RetrySettings, RouteSettings};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use self::supervisor::Supervisor;
use crate::admin::dump::Sources;
use crate::admin::ready::{Ready, Task, TaskName};
use crate::admin::{self, Inside};
use crate::config::{self, Config, LocalState, Mode, ports};
use crate::control::{self, Connector, Credentials};
use crate::crypto::Crypto;
use crate::dns::{self, HostConfig, HostResolver, PodResolver, Resolvers};
use crate::drain::signals::{Request, Signals};
use crate::drain::{self, Drained, Mode as End, Watcher};
use crate::export::{self, Collector};
use crate::identity::metrics::InUse;
use crate::identity::tenants::Stay;
use crate::identity::{self, Behalf, FakeCa, Identities, IstioCa, LeafCheck, Rules, Signer, Tenants};
use crate::inpod::{self, DataPlane, Observer, PodStates};
use crate::memory;
use crate::net::listen::{PortReuse, Transparency};
use crate::net::netns::Netns;
use crate::net::options::{Keepalive, Liveness};
use crate::proxy::{
    self, EarlyData, HostNames, Listeners, NamesOf, PodProxy, Proxies, Resolving, SameNode, Shutdown, WorkerThreads,
    Workers,
};
use crate::state::Views;
use crate::telemetry::logging::Logging;
use crate::telemetry::metrics::{self, Metrics, PodCounts, PodMetrics};
use crate::telemetry::{self, Exporter, Exporters, PolicyLogging, Telemetry};
use crate::version::BuildInfo;
use crate::xds::{self, Lookups, NodeDescription, Rejected, Remote, Source};

/// How long requests to the admin servers may take once everything else has ended.
const LAST_REQUESTS: Duration = Duration::from_secs(1);
/// The machine's table of hosts.
const HOSTS: &str = "/etc/hosts";
/// Where systemd-resolved names the resolvers behind itself.
const SYSTEMD_RESOLV_CONF: &str = "/run/systemd/resolve/resolv.conf";

/// Why the process cannot start or go on; one line for the operator.
#[derive(Debug)]
pub struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

fn failure(error: impl fmt::Display) -> Failure {
    Failure(error.to_string())
}

/// Runs until the drain is over.
///
/// # Errors
/// [`Failure`] if the process cannot start.
pub async fn run(
    config: Config,
    build: BuildInfo,
    logging: Logging,
    supervisor: &supervisor::Config,
) -> Result<(), Failure> {
    tracing::info!("version: {}", build.line());
    raise_descriptor_limit();
    tracing::info!("running with config: {}", config.log_yaml());
    let amiss = check::look(&config).into_iter().filter(|finding| finding.verdict != check::Verdict::Good);
    amiss.for_each(|finding| tracing::warn!("{finding}"));
    let crypto = Crypto::new(config.crypto).map_err(failure)?;

    let mut signals = Signals::watch().map_err(failure)?;
    let shutdown = Request::default();
    let (trigger, drain) = drain::channel();
    let ready = Ready::default();
    let [state, proxy] = [TaskName::StateManager, TaskName::Proxy].map(|name| ready.task(name));
    let dns = config.dns_proxy.then(|| ready.task(TaskName::DnsProxy));
    let pods = if config.mode == Mode::Shared { PodMetrics::Shown } else { PodMetrics::Absent };
    let allowance = Allowance::new(config.buffer_budget);
    let exporters = start_exporters(&config, &crypto, &build);
    let metrics_config = metrics::Config {
        istio_version: build.istio_version.clone(),
        pods,
        allowance: allowance.clone(),
        traffic: config.traffic_metrics,
        histograms: config.histograms,
        export: exporters.clone(),
    };
    let mut metrics = Metrics::new(&metrics_config, logging.clone());
    let (rejected, (synced, sync)) = (Rejected::default(), oneshot::channel());
    let reports =
        xds::Reports { counts: xds::Counts::register(metrics.registry()), rejected: rejected.clone(), synced };
    let xds = xds_config(&config, &crypto)?;
    let source = xds.source.clone();
    let (teller, views) = xds::Driver::new(xds, reports).map_err(failure)?;
    let certificates = identity::Counts::register(metrics.registry());
    let identities = start_identities(&config, &crypto, certificates, metrics.registry())?;
    let tenants = Tenants::default();
    tokio::spawn(tenants.clone().look_after(views.clone(), identities.clone()));
    let resolvers = start_resolvers(&config, &views, metrics.registry());
    let metrics = Arc::new(metrics);
    let states = PodStates::default();
    let admin = admin::bind(&admin_config(&config)).map_err(failure)?;

    let (workers, threads) = Workers::start(config.worker_threads).map_err(failure)?;
    metrics.workers_are(workers.all().to_vec());
    tokio::spawn(workers.clone().watch());
    let supervisor = Arc::new(Supervisor::find(supervisor));
    let (fed, turns) = (Arc::clone(&supervisor), workers.clone());
    tokio::spawn(async move { fed.feed(turns).await });
    tokio::spawn(Arc::clone(&metrics).forget_unused());
    let loaded = Arc::clone(&metrics);
    tokio::spawn(memory::give_back_after_load(move || loaded.load()));
    let policies = if config.authz_info_logging { PolicyLogging::Info } else { PolicyLogging::Debug };
    let told = telemetry::Config {
        policies,
        access: config.access_log.clone(),
        slow: config.slow_connection,
        export: exporters,
    };
    let telemetry = Telemetry::new(Arc::clone(&metrics), logging.clone(), told);
    let hosts = host_names(&config, metrics.hosts_asked());
    let proxy_config = proxy_config(&config, allowance, hosts);
    let debug = admin::debug::Sources {
        views: views.clone(),
        telemetry: telemetry.clone(),
        identities: identities.clone(),
        ready: ready.clone(),
        route: proxy_config.route.clone(),
        admit: proxy_config.admit.clone(),
        cluster_domain: config.cluster_domain.trim_end_matches('.').to_ascii_lowercase(),
        node: config.local_node.clone(),
    };
    let inside = Inside {
        ready: ready.clone(),
        metrics: Arc::clone(&metrics),
        logging: logging.clone(),
        shutdown: shutdown.clone(),
        dump: dump_sources(&config, &build, (&debug, &states), source, rejected),
        debug,
    };
    let proxies = Proxies::new(proxy_config, views.clone(), identities, telemetry, workers.clone());
    let proxies = match resolvers.clone().filter(|_| config.socks5) {
        Some(resolvers) => proxies.with_names(names_of(resolvers)),
        None => proxies,
    };
    let resolvers = resolvers.filter(|_| config.dns_proxy);
    let data = DataPlane { proxies, resolvers, workers, tenants, outbound: ports::OUTBOUND };
    let plane = Plane::prepare(&config, data, &ready, &metrics, states)?;

    let (last, servers) = drain::channel();
    tokio::spawn(admin::serve(admin, inside, servers));
    tokio::spawn(teller.run(drain.clone()));
    // Nothing is served on half a view; whoever wants us to end need not wait for the whole.
    let told = tokio::select! {
        _ = signals.reason(&shutdown) => false,
        told = sync => told.is_ok(),
    };
    if told {
        state.done();
        let mut plane = plane.start(drain)?;
        proxy.done();
        dns.iter().for_each(Task::done);
        supervisor.serving();
        tokio::select! {
            _ = signals.reason(&shutdown) => {}
            Err(error) = &mut plane => tracing::error!(%error, "the data plane failed"),
        }
    } else {
        drop((plane, drain));
    }
    ready.drain();
    supervisor.draining();
    // Pods bound their own drains; this bound is for what does not keep to that.
    let deadline = config.drain_deadline + 2 * drain::FORCED_END;
    tokio::select! {
        drained = trigger.drain(End::Graceful(deadline)) => {
            if drained == Drained::Abandoned {
                tracing::warn!("something did not end when told to");
            }
        }
        () = signals.insisted() => {
            let _ = logging.flush();
            std::process::exit(0);
        }
    }
    let _ = last.drain(End::Graceful(LAST_REQUESTS)).await;
    stop(threads, &logging);
    Ok(())
}

fn xds_config(config: &Config, crypto: &Crypto) -> Result<xds::Config, Failure> {
    let source = match &config.local_state {
        Some(LocalState::Path(path)) => Source::Path(path.clone()),
        Some(LocalState::Text(text)) => Source::Text(text.clone()),
        None => Source::Nothing,
    };
    let remote = config.xds_address.as_ref().map(|address| {
        let control = control::Config {
            address: address.parse().map_err(failure)?,
            roots: config.xds_roots.clone(),
            alternative_name: config.alt_xds_hostname.clone(),
            credentials: credentials(config, &config.xds_headers),
            crypto: crypto.clone(),
        };
        let lookups = if config.xds_on_demand { Lookups::OnDemand } else { Lookups::Everything };
        Ok(Remote { control, node: node_description(config), lookups })
    });
    Ok(xds::Config { source, remote: remote.transpose()?, node: config.local_node.as_deref().map(Into::into) })
}

fn credentials(config: &Config, headers: &[(String, String)]) -> Credentials {
    Credentials { token: config.auth_token.clone(), cluster_id: config.cluster_id.clone(), headers: headers.to_vec() }
}

/// Who we are (spec wire-protocols 6.3).
fn node_description(config: &Config) -> NodeDescription {
    let config::Pod { name, namespace } = &config.own_pod;
    let own = [
        ("NAME", name.clone()),
        ("NAMESPACE", namespace.clone()),
        ("INSTANCE_IPS", config.instance_ip.clone()),
        ("NODE_NAME", config.local_node.clone().unwrap_or_default()),
    ];
    let mut metadata: BTreeMap<String, String> = own.map(|(key, value)| (key.to_owned(), value)).into();
    metadata.extend(config.proxy_metadata.clone());
    NodeDescription {
        id: format!("ztunnel~{}~{name}.{namespace}~{namespace}.svc.cluster.local", config.instance_ip),
        metadata,
        structured: config.structured_metadata.clone(),
    }
}

/// Sends records of connections to where the settings say.
fn start_exporters(config: &Config, crypto: &Crypto, build: &BuildInfo) -> Exporters {
    let (node, cluster) = (config.local_node.clone(), config.cluster_id.clone());
    let sender = export::Sender { node, cluster, version: build.istio_version.clone() };
    let to = |collector: &Collector| {
        let (roots, crypto) = (config.collector_roots.clone(), crypto.clone());
        export::Config { collector: collector.clone(), roots, crypto }
    };
    let logs = config.access_log_collector.as_ref().map(|collector| {
        let (exporter, records) = Exporter::new();
        tokio::spawn(export::logs(to(collector), sender.clone(), records));
        exporter
    });
    let spans = config.span_collector.as_ref().map(|collector| {
        let (exporter, records) = Exporter::new();
        tokio::spawn(export::spans(to(collector), sender.clone(), records));
        exporter
    });
    Exporters { logs, spans }
}

fn start_identities(
    config: &Config,
    crypto: &Crypto,
    counts: identity::Counts,
    registry: &mut Registry,
) -> Result<Identities, Failure> {
    let (leaf, behalf) = match config.mode {
        Mode::Shared => (LeafCheck::Requested, Behalf::Others),
        Mode::Dedicated(_) => (LeafCheck::Any, Behalf::Own),
    };
    let aliases = config.trust_domain_aliases.iter().map(|alias| alias.as_str().into()).collect();
    let rules = Rules { aliases, crypto: crypto.clone(), ..Rules::default() };
    let mesh_root = match (&config.ca_address, &config.ca_roots) {
        (Some(_), config::Roots::File(path)) => Some(path.clone()),
        _ => None,
    };
    let files =
        identity::Files { bundles: config.trust_bundles.clone(), revocations: config.crl_path.clone(), mesh_root };
    let settings = identity::Config { ttl: config.secret_ttl, leaf, rules: rules.clone(), files };
    let identities = match &config.ca_address {
        None => run_identities(settings, FakeCa::new(), counts),
        Some(address) => run_identities(settings, istio_ca(config, address, behalf, crypto)?, counts),
    };
    let in_use = InUse { identities: identities.clone(), revocations: rules.revocations };
    registry.register_collector(Box::new(in_use));
    Ok(identities)
}

fn istio_ca(config: &Config, address: &str, behalf: Behalf, crypto: &Crypto) -> Result<IstioCa, Failure> {
    let control = control::Config {
        address: address.parse().map_err(failure)?,
        roots: config.ca_roots.clone(),
        alternative_name: config.alt_ca_hostname.clone(),
        credentials: credentials(config, &config.ca_headers),
        crypto: crypto.clone(),
    };
    Ok(IstioCa::new(Connector::new(control), behalf))
}

fn run_identities(settings: identity::Config, signer: impl Signer, counts: identity::Counts) -> Identities {
    let (identities, driver) = identity::new(settings, signer, counts);
    tokio::spawn(driver.run());
    identities
}

fn admin_config(config: &Config) -> admin::Config {
    let wildcard = config.wildcard();
    let mut admin = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, config.admin_port))];
    if config.ipv6_enabled {
        admin.push(SocketAddr::from((Ipv6Addr::LOCALHOST, config.admin_port)));
    }
    admin::Config {
        admin,
        stats: SocketAddr::new(wildcard, config.stats_port),
        readiness: SocketAddr::new(wildcard, ports::READINESS),
    }
}

fn dump_sources(
    config: &Config,
    build: &BuildInfo,
    (debug, states): (&admin::debug::Sources, &PodStates),
    source: Source,
    rejected: Rejected,
) -> Sources {
    let (config_dump, version, identities) = (config.dump(), build.dump(), debug.identities.clone());
    let (states, telemetry) = (states.clone(), debug.telemetry.clone());
    let pods = move || states.dump(admin::debug::of_pods(&telemetry));
    Sources {
        views: debug.views.clone(),
        certificates: Box::new(move || identities.dump()),
        config: Box::new(move || config_dump.clone()),
        version: Box::new(move || version.clone()),
        pods: (config.mode == Mode::Shared).then(|| -> admin::dump::Part { Box::new(pods) }),
        // What cannot be read at the moment is reported by whoever loads it.
        static_config: Box::new(move || xds::static_config(&source).unwrap_or_default()),
        rejected: Box::new(move || rejected.dump()),
        local_ip: config.instance_ip.clone(),
    }
}

fn port_reuse(config: &Config) -> PortReuse {
    let shared = config.inpod_port_reuse && config.mode == Mode::Shared;
    if shared { PortReuse::Shared } else { PortReuse::Exclusive }
}

fn towards_peers(config: &Config) -> Liveness {
    let socket = &config.socket;
    liveness(config, socket.keepalive_time, socket.keepalive_interval, socket.keepalive_retries)
}

fn towards_apps(config: &Config) -> Liveness {
    let socket = &config.socket;
    liveness(config, socket.app_keepalive_time, socket.app_keepalive_interval, socket.app_keepalive_retries)
}

fn liveness(config: &Config, time: Duration, interval: Duration, retries: u32) -> Liveness {
    Liveness {
        keepalive: config.socket.keepalive_enabled.then_some(Keepalive { time, interval, retries }),
        user_timeout: config.socket.user_timeout_enabled.then(|| time + interval * retries),
    }
}

/// Who looks up the host names of endpoints.
fn host_names(config: &Config, asked: Counter) -> HostNames {
    let hosts = HostResolver::new(HostConfig {
        resolv_conf: config.resolv_conf.clone(),
        hosts: HOSTS.into(),
        mark: config.packet_mark,
        families: families(config),
        asked,
    });
    HostNames::new(move |name| -> Resolving {
        let hosts = hosts.clone();
        Box::pin(async move { hosts.resolve(&name).await })
    })
}

fn families(config: &Config) -> Families {
    if config.ipv6_enabled { Families::Dual } else { Families::Ipv4 }
}

fn proxy_config(config: &Config, allowance: Allowance, host_names: HostNames) -> proxy::Config {
    let windows = |base: hbone::limits::Config| hbone::limits::Config {
        stream_window: config.stream_window,
        connection_window: config.connection_window,
        max_frame_size: config.frame_size,
        ..base
    };
    proxy::Config {
        listeners: Listeners {
            address: config.wildcard(),
            outbound: ports::OUTBOUND,
            inbound_plaintext: ports::INBOUND_PLAINTEXT,
            inbound: ports::INBOUND,
            socks5: config.socks5.then_some(ports::SOCKS5),
        },
        mark: config.packet_mark,
        port_reuse: port_reuse(config),
        transparency: match config.require_original_source {
            Some(true) => Transparency::Required,
            Some(false) => Transparency::Never,
            None => Transparency::IfPossible,
        },
        peers: towards_peers(config),
        apps: towards_apps(config),
        unknown_workload_timeout: config.unknown_workload_timeout,
        half_closed_timeout: config.half_closed_timeout,
        retry: if config.endpoint_retry {
            RetrySettings::Within(config.endpoint_retry_deadline)
        } else {
            RetrySettings::Off
        },
        early_data: if config.early_data { EarlyData::Allowed } else { EarlyData::Off },
        same_node: if config.same_node_direct { SameNode::Direct } else { SameNode::Tunnel },
        allowance,
        limits: proxy::Limits {
            connections: config.pod_limits.connections,
            per_second: config.pod_limits.connections_per_second,
            handshakes: config.pod_limits.handshakes,
            buffered: config.pod_limits.buffered,
        },
        host_names,
        route: RouteSettings {
            network: config.network.as_str().into(),
            hbone_port: ports::INBOUND,
            illegal_ports: config.illegal_ports(),
            on_demand: config.xds_on_demand,
        },
        admit: AdmitSettings {
            network: config.network.as_str().into(),
            illegal_ports: config.illegal_ports(),
            preserve_source: true, // narrowed to what the listeners allow
            localhost_app_tunnel: config.localhost_app_tunnel,
            baggage: config.baggage,
            unknown_policy: config.unknown_policy,
            on_demand: config.xds_on_demand,
        },
        client: windows(hbone::limits::Config {
            assumed_peer_streams: config.pool_max_streams.into(),
            ..hbone::limits::Config::client()
        }),
        server: windows(hbone::limits::Config::server()),
        pool_streams: config.pool_max_streams.into(),
        pool_unused_release: config.pool_unused_release,
    }
}

/// What names mean to the apps of a pod.
fn names_of(resolvers: Resolvers) -> NamesOf {
    Arc::new(move |who, netns| {
        let names = resolvers.names(who.clone(), netns);
        Arc::new(move |name: String| {
            let names = names.clone();
            Box::pin(async move { names.resolve(&name).await })
        })
    })
}

/// The makers of pods' name servers, if anybody wants names.
fn start_resolvers(config: &Config, views: &Views, registry: &mut Registry) -> Option<Resolvers> {
    // Names that SOCKS5 asks for are found as if the pod had, whether or not its queries are captured.
    if !config.dns_proxy && !config.socks5 {
        return None;
    }
    let localhost = |port| {
        let v6 = config.ipv6_enabled.then_some((Ipv6Addr::LOCALHOST, port).into());
        std::iter::once((Ipv4Addr::LOCALHOST, port).into()).chain(v6).collect()
    };
    let resolv_conf = vec![config.resolv_conf.clone(), SYSTEMD_RESOLV_CONF.into()];
    let domain = config.cluster_domain.trim_end_matches('.').to_ascii_lowercase();
    let settings = dns::Config {
        addresses: match config.dns_proxy_address {
            config::Address::Localhost(port) => localhost(port),
            config::Address::Socket(address) => vec![address],
        },
        mark: config.packet_mark,
        port_reuse: port_reuse(config),
        apps: towards_apps(config),
        lookup: LookupSettings {
            domain: domain.into(),
            search: match config.mode {
                Mode::Shared => Search::OfPod,
                Mode::Dedicated(_) => Search::These(dns::resolvers(&resolv_conf).search.into()),
            },
            preferred: config.prefered_service_namespace.as_deref().map(Into::into),
            families: families(config),
            on_demand: config.xds_on_demand,
        },
        resolv_conf,
    };
    Some(Resolvers::new(settings, views.clone(), dns::Counts::register(registry)))
}

/// What carries traffic, set up as far as it can be before the mesh is known.
enum Plane {
    /// Nothing is proxied.
    Off,
    /// The pods of the node, as its agent announces them.
    Shared {
        inpod: inpod::Config,
        data: DataPlane,
        reporter: Reporter,
        states: PodStates,
        own: Option<(PodProxy, Stay)>,
    },
    /// One workload, whose listeners are bound.
    Dedicated { pod: PodProxy, resolver: Option<PodResolver>, stay: Stay, data: DataPlane, deadline: Duration },
    /// One workload, whose names are answered and whose traffic is its own affair.
    Names { resolver: PodResolver, data: DataPlane },
}

impl Plane {
    /// Whatever is wrong with the set-up shows here.
    fn prepare(
        config: &Config,
        data: DataPlane,
        ready: &Ready,
        metrics: &Metrics,
        states: PodStates,
    ) -> Result<Self, Failure> {
        let deadline = config.drain_deadline;
        let resolver = |who: &LocalWorkload| {
            let bound = data.resolvers.as_ref().map(|resolvers| resolvers.bind(who.clone(), None));
            bound.transpose().map_err(failure)
        };
        match &config.mode {
            Mode::Shared if !config.proxy => Ok(Self::Off),
            Mode::Dedicated(who) if !config.proxy => {
                let resolver = resolver(who)?;
                Ok(resolver.map_or(Self::Off, |resolver| Self::Names { resolver, data }))
            }
            Mode::Shared => {
                check_in_pod(config.packet_mark)?;
                let inpod = inpod::Config {
                    socket: config.inpod_uds.clone(),
                    certificate_wait: config.inpod_certificate_wait,
                    drain_deadline: deadline,
                };
                let reporter =
                    Reporter { task: ready.task(TaskName::WorkloadProxyManager), counts: metrics.pods().clone() };
                let own = config.own_workload.as_ref().map(|who| {
                    let pod = data.proxies.bind_own(LocalWorkload::clone(who)).map_err(failure)?;
                    Ok((pod, data.tenants.come(LocalWorkload::clone(who))))
                });
                Ok(Self::Shared { inpod, data, reporter, states, own: own.transpose()? })
            }
            Mode::Dedicated(who) => {
                let resolver = resolver(who)?;
                let pod = data.proxies.bind(LocalWorkload::clone(who), None).map_err(failure)?;
                let stay = data.tenants.come(LocalWorkload::clone(who));
                Ok(Self::Dedicated { pod, resolver, stay, data, deadline })
            }
        }
    }

    /// Lets traffic in; the task ends when it has been drained.
    fn start(self, mut drain: Watcher) -> Result<JoinHandle<()>, Failure> {
        // The watcher is held until all traffic has ended, for that is what whoever drains waits for.
        match self {
            Self::Off => Ok(tokio::spawn(async move {
                drain.begun().await;
            })),
            Self::Shared { inpod, data, reporter, states, mut own } => {
                if let Some((pod, _)) = &mut own {
                    pod.accept(&data.workers).map_err(failure)?;
                }
                let (pods, deadline) = (data.clone(), inpod.drain_deadline);
                let task = async move {
                    let begun = async {
                        drain.begun().await;
                    };
                    inpod::run(inpod, pods, reporter, states, begun).await;
                    // Whoever reads our metrics may do so until the pods have ended.
                    if let Some((pod, _stay)) = own {
                        pod.shutdown(Shutdown::Graceful(deadline)).await;
                    }
                };
                Ok(data.workers.next().spawn(task))
            }
            Self::Names { mut resolver, data } => {
                resolver.serve(data.workers.next()).map_err(failure)?;
                Ok(tokio::spawn(async move {
                    drain.begun().await;
                    drop(resolver);
                }))
            }
            Self::Dedicated { mut pod, mut resolver, stay, data, deadline } => {
                if let Some(resolver) = &mut resolver {
                    resolver.serve(data.workers.next()).map_err(failure)?;
                }
                pod.accept(&data.workers).map_err(failure)?;
                Ok(tokio::spawn(async move {
                    drain.begun().await;
                    pod.shutdown(Shutdown::Graceful(deadline)).await;
                    drop((stay, resolver));
                }))
            }
        }
    }
}

/// Whether the process may do what shared mode needs, tried before anything depends on it (spec in-pod 1).
fn check_in_pod(mark: Option<u32>) -> Result<(), Failure> {
    let fail = |what: &str, error: &dyn fmt::Display, remedy: &str| {
        Failure(format!("failed to start workload proxy manager: {what}: {error} ({remedy})"))
    };
    let netns = Netns::current().and_then(|own| own.run(|| ()));
    netns.map_err(|e| fail("failed to set netns", &e, "shared mode needs CAP_SYS_ADMIN"))?;
    let Some(mark) = mark else { return Ok(()) };
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let marked = socket.and_then(|socket| socket.set_mark(mark));
    marked.map_err(|e| fail("failed to set socket mark", &e, "shared mode needs CAP_NET_ADMIN"))
}

/// Passes on what the pods do.
struct Reporter {
    task: Task,
    counts: PodCounts,
}

impl Observer for Reporter {
    fn ready(&self, ready: bool) {
        if ready { self.task.done() } else { self.task.pending() }
    }

    fn count(&self, active: usize, pending: usize) {
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.counts.active.set(gauge(active));
        self.counts.pending.set(gauge(pending));
    }

    fn started(&self) {
        self.counts.started.inc();
    }

    fn stopped(&self) {
        self.counts.stopped.inc();
    }
}

/// A node proxy needs many sockets: as many as the hard limit allows.
fn raise_descriptor_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::info!(
            "set file descriptor limits from {} to {}",
            current.unwrap_or(u64::MAX),
            maximum.unwrap_or(u64::MAX)
        ),
        Err(error) => tracing::warn!(%error, "failed to raise the file descriptor limit"),
    }
}

fn stop(threads: WorkerThreads, logging: &Logging) {
    drop(threads);
    tracing::info!("shutdown complete");
    let _ = logging.flush(); // what standard output does not take by now is lost
}
