//! Puts the parts together: configuration in, a running node proxy out, and its orderly end.
//!
//! The order of the start is that of spec configuration 6. Everything that can be wrong with the set-up ends the start
//! with one line that says what and what to do; what was opened before is closed by being dropped.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mesh::{AdmitSettings, LocalWorkload, RouteSettings};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinHandle;

use crate::admin::dump::Sources;
use crate::admin::ready::{Ready, Task, TaskName};
use crate::admin::{self, Inside};
use crate::config::{Config, LocalState, Mode, ports};
use crate::drain::signals::{Request, Signals};
use crate::drain::{self, Drained, Mode as End, Watcher};
use crate::identity::{self, FakeCa, Identities, LeafCheck};
use crate::inpod::{self, DataPlane, Observer, PodStates};
use crate::net::listen::{PortReuse, Transparency};
use crate::net::netns::Netns;
use crate::net::options::{Keepalive, Liveness};
use crate::proxy::{self, EarlyData, Listeners, Proxies, Shutdown, WorkerThreads, Workers};
use crate::state::Views;
use crate::telemetry::logging::Logging;
use crate::telemetry::metrics::{self, Metrics, PodCounts, PodMetrics};
use crate::telemetry::{PolicyLogging, Telemetry};
use crate::version::BuildInfo;
use crate::xds::{self, Source, local};

/// How long requests to the admin servers may take once everything else has ended.
const LAST_REQUESTS: Duration = Duration::from_secs(1);

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
pub async fn run(config: Config, build: BuildInfo, logging: Logging) -> Result<(), Failure> {
    tracing::info!("version: {}", build.line());
    raise_descriptor_limit();
    tracing::info!("running with config: {}", config.log_yaml());
    config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    check_supported(&config)?;

    let mut signals = Signals::watch().map_err(failure)?;
    let shutdown = Request::default();
    let (trigger, drain) = drain::channel();
    let ready = Ready::default();
    let [state, proxy] = [TaskName::StateManager, TaskName::Proxy].map(|name| ready.task(name));
    let xds = xds_config(&config);
    let views = Views::new(xds::load(&xds).map_err(failure)?);
    let identities = start_identities(&config);
    let pods = if config.mode == Mode::Shared { PodMetrics::Shown } else { PodMetrics::Absent };
    let metrics_config = metrics::Config { istio_version: build.istio_version.clone(), pods };
    let metrics = Arc::new(Metrics::new(&metrics_config, logging.clone()));
    let states = PodStates::default();
    let admin = admin::bind(&admin_config(&config)).map_err(failure)?;
    let inside = Inside {
        ready: ready.clone(),
        metrics: Arc::clone(&metrics),
        logging: logging.clone(),
        shutdown: shutdown.clone(),
        dump: dump_sources(&config, &build, &views, &identities, &states, &xds),
    };

    let (workers, threads) = Workers::start(config.worker_threads).map_err(failure)?;
    let policies = if config.authz_info_logging { PolicyLogging::Info } else { PolicyLogging::Debug };
    let telemetry = Telemetry::new(Arc::clone(&metrics), logging.clone(), policies);
    let proxies = Proxies::new(proxy_config(&config), views.clone(), identities, telemetry, workers.clone());
    let data = DataPlane { proxies, workers };
    let mut plane = start_data_plane(&config, &data, drain.clone(), &ready, &metrics, states)?;

    let (last, servers) = drain::channel();
    tokio::spawn(admin::serve(admin, inside, servers));
    tokio::spawn(xds::watch(xds, views, drain));
    state.done();
    proxy.done();
    tokio::select! {
        _ = signals.reason(&shutdown) => {}
        Err(error) = &mut plane => tracing::error!(%error, "the data plane failed"),
    }
    ready.drain();
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

/// What this version cannot do yet is said, not silently left out.
fn check_supported(config: &Config) -> Result<(), Failure> {
    if let Some(address) = &config.xds_address {
        return Err(Failure(format!(
            "XDS_ADDRESS={address}: this version cannot talk to a control plane yet; set XDS_ADDRESS=\"\" and give the \
             state of the mesh in LOCAL_XDS_PATH"
        )));
    }
    if !config.fake_ca {
        return Err(Failure(
            "this version cannot talk to a CA yet; set FAKE_CA=true for demonstrations (its certificates are not secret)"
                .to_owned(),
        ));
    }
    if config.dns_proxy {
        tracing::warn!(
            "this version has no DNS proxy yet: do not redirect DNS to port 15053; set ISTIO_META_DNS_CAPTURE=false to \
             not be told"
        );
    }
    Ok(())
}

fn xds_config(config: &Config) -> xds::Config {
    let source = match &config.local_state {
        Some(LocalState::File(path)) => Source::File(path.clone()),
        Some(LocalState::Text(text)) => Source::Text(text.clone()),
        None => Source::Nothing,
    };
    xds::Config { source, node: config.local_node.as_deref().map(Into::into) }
}

fn start_identities(config: &Config) -> Identities {
    let leaf = match config.mode {
        Mode::Shared => LeafCheck::Requested,
        Mode::Dedicated(_) => LeafCheck::Any,
    };
    let (identities, driver) = identity::new(identity::Config { ttl: config.secret_ttl, leaf }, FakeCa::new());
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
    views: &Views,
    identities: &Identities,
    states: &PodStates,
    xds: &xds::Config,
) -> Sources {
    let (config_dump, version, identities, states) = (config.dump(), build.dump(), identities.clone(), states.clone());
    let source = xds.source.clone();
    Sources {
        views: views.clone(),
        certificates: Box::new(move || identities.dump()),
        config: Box::new(move || config_dump.clone()),
        version: Box::new(move || version.clone()),
        pods: (config.mode == Mode::Shared).then(|| -> admin::dump::Part { Box::new(move || states.dump()) }),
        // What cannot be read at the moment is reported by whoever loads it.
        static_config: Box::new(move || match &source {
            Source::Nothing => local::shape::StaticConfig::default(),
            Source::Text(text) => local::parse(text).unwrap_or_default(),
            Source::File(path) => {
                std::fs::read_to_string(path).ok().and_then(|text| local::parse(&text).ok()).unwrap_or_default()
            }
        }),
    }
}

fn proxy_config(config: &Config) -> proxy::Config {
    let socket = &config.socket;
    let liveness = |time, interval, retries| Liveness {
        keepalive: socket.keepalive_enabled.then_some(Keepalive { time, interval, retries }),
        user_timeout: socket.user_timeout_enabled.then(|| time + interval * retries),
    };
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
        },
        mark: config.packet_mark,
        port_reuse: if config.inpod_port_reuse && config.mode == Mode::Shared {
            PortReuse::Shared
        } else {
            PortReuse::Exclusive
        },
        transparency: match config.require_original_source {
            Some(true) => Transparency::Required,
            Some(false) => Transparency::Never,
            None => Transparency::IfPossible,
        },
        peers: liveness(socket.keepalive_time, socket.keepalive_interval, socket.keepalive_retries),
        apps: liveness(socket.app_keepalive_time, socket.app_keepalive_interval, socket.app_keepalive_retries),
        half_closed_timeout: config.half_closed_timeout,
        early_data: if config.early_data { EarlyData::Allowed } else { EarlyData::Off },
        allowance: hbone::h2::Allowance::new(config.buffer_budget),
        route: RouteSettings {
            network: config.network.as_str().into(),
            hbone_port: ports::INBOUND,
            illegal_ports: config.illegal_ports(),
            on_demand: false,
        },
        admit: AdmitSettings {
            network: config.network.as_str().into(),
            illegal_ports: config.illegal_ports(),
            preserve_source: true, // narrowed to what the listeners allow
            localhost_app_tunnel: config.localhost_app_tunnel,
            baggage: config.baggage,
            unknown_policy: config.unknown_policy,
            on_demand: false,
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

/// Starts what carries traffic; the task ends when it has been drained.
fn start_data_plane(
    config: &Config,
    data: &DataPlane,
    mut drain: Watcher,
    ready: &Ready,
    metrics: &Metrics,
    states: PodStates,
) -> Result<JoinHandle<()>, Failure> {
    let deadline = config.drain_deadline;
    if !config.proxy {
        return Ok(tokio::spawn(async move {
            drain.begun().await;
        }));
    }
    match &config.mode {
        Mode::Shared => {
            check_in_pod(config.packet_mark)?;
            let inpod = inpod::Config { socket: config.inpod_uds.clone(), drain_deadline: deadline };
            let reporter =
                Reporter { task: ready.task(TaskName::WorkloadProxyManager), counts: metrics.pods().clone() };
            let pods = data.clone();
            // The watcher is held until all pods have ended, for that is what whoever drains waits for.
            let task = async move {
                let begun = async {
                    drain.begun().await;
                };
                inpod::run(inpod, pods, reporter, states, begun).await;
            };
            Ok(data.workers.next().spawn(task))
        }
        Mode::Dedicated(who) => {
            let mut pod = data.proxies.bind(LocalWorkload::clone(who), None).map_err(failure)?;
            pod.accept(&data.workers).map_err(failure)?;
            Ok(tokio::spawn(async move {
                drain.begun().await;
                pod.shutdown(Shutdown::Graceful(deadline)).await;
            }))
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
