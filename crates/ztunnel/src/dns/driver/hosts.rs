//! Host names of endpoints, looked up for connections from the process's own namespace (spec data-plane 4.6).
//!
//! Everybody who wants a name at the same time shares one look-up, which goes on when whoever began it has gone. Both
//! families are asked for at once; one that is late is not waited for.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mesh::lookup::Families;
use mesh::{Hostname, Resolution};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;
use tokio::time::timeout;

use super::ask::{self, Question, Received};
use super::servers::Servers;
use crate::dns::counts::{Reason, Transport};
use crate::dns::hosts::{Answer, Extent, Hosts, candidates, file};
use crate::dns::resolv_conf::ResolvConf;
use crate::dns::wire::query::Query;
use crate::dns::wire::{Rcode, addresses, kind};
use crate::files;
use crate::net::datagram::Outlet;

/// How long a name may take, with all that it may be short for: a connection waits meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one family is waited for once the other is known ("resolution delay", RFC 8305 §3).
const OTHER_FAMILY: Duration = Duration::from_millis(50);
/// How long an answer without any time to live is kept, such as one of the table of hosts, or one that there is no such
/// name and not for how long: a moment.
const UNSAID: Duration = Duration::from_secs(1);
/// Names that are looked up at a time. They are the control plane's, so that only a mesh with more such services than
/// this, all silent, gets there; further ones fail at once.
const MOST_UNDER_WAY: usize = 1024;
/// A table of hosts that is longer is none.
const MOST_BYTES: u64 = 1 << 20;

/// Where host names are looked up.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// Names resolvers (resolv.conf(5)).
    pub resolv_conf: PathBuf,
    /// The table of hosts, which counts first (hosts(5)).
    pub hosts: PathBuf,
    /// Mark of the packets that go to resolvers; `None` sends unmarked.
    pub mark: Option<u32>,
    /// Which addresses are asked for.
    pub families: Families,
    /// Counts the names that are not known already.
    pub asked: Counter,
}

/// Looks host names up; clones share what they have found.
#[derive(Clone)]
pub struct HostResolver(Arc<Shared>);

struct Shared {
    config: HostConfig,
    servers: Servers,
    outlet: Outlet,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: Hosts,
    under_way: HashMap<Box<str>, watch::Receiver<Option<Resolution>>>,
}

/// A look-up that others wait for, until it is dropped.
struct UnderWay {
    shared: Arc<Shared>,
    name: Box<str>,
    result: watch::Sender<Option<Resolution>>,
}

impl HostResolver {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(config: HostConfig) -> Self {
        let servers = Servers::new(vec![config.resolv_conf.clone()]);
        let outlet = Outlet { mark: config.mark, netns: None };
        Self(Arc::new(Shared { config, servers, outlet, state: Mutex::default() }))
    }

    /// The addresses of a host; within five seconds, at once if they are known.
    pub async fn resolve(&self, hostname: &Hostname) -> Resolution {
        let name = hostname.as_str().to_ascii_lowercase();
        if let Ok(ip) = name.parse::<IpAddr>() {
            return Resolution::Addresses(vec![ip]);
        }
        let mut result = match self.begin(&name) {
            Begun::Known(resolution) => return resolution,
            Begun::UnderWay(result) => result,
            Begun::TooMany => {
                tracing::warn!(%hostname, "too many host names are being looked up");
                return Resolution::Failed;
            }
        };
        // A look-up that went away with its thread has found nothing.
        result.wait_for(Option::is_some).await.ok().and_then(|found| found.clone()).unwrap_or(Resolution::Failed)
    }

    fn begin(&self, name: &str) -> Begun {
        let mut state = self.0.state();
        if let Some(answer) = state.known.get(Instant::now(), name) {
            return Begun::Known(answer.into());
        }
        if let Some(result) = state.under_way.get(name) {
            return Begun::UnderWay(result.clone());
        }
        if state.under_way.len() >= MOST_UNDER_WAY {
            return Begun::TooMany;
        }
        self.0.config.asked.inc();
        let (sender, result) = watch::channel(None);
        state.under_way.insert(name.into(), result.clone());
        super::detach(UnderWay { shared: Arc::clone(&self.0), name: name.into(), result: sender }.run());
        Begun::UnderWay(result)
    }
}

enum Begun {
    Known(Resolution),
    UnderWay(watch::Receiver<Option<Resolution>>),
    TooMany,
}

impl From<Answer> for Resolution {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Addresses(addresses) => Self::Addresses(addresses),
            Answer::NoName => Self::Failed,
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.shared.state().under_way.remove(&self.name);
    }
}

impl UnderWay {
    async fn run(self) {
        let found = timeout(PATIENCE, self.shared.look_up(&self.name)).await.unwrap_or(Err(Reason::Timeout));
        let resolution = {
            let (mut state, now) = (self.shared.state(), Instant::now());
            match found {
                Ok((answer, extent, ttl)) => {
                    state.known.keep(now, &self.name, answer.clone(), extent, ttl);
                    answer.into()
                }
                Err(reason) => {
                    let stale = state.known.get_stale(now, &self.name);
                    tracing::debug!(hostname = &*self.name, ?reason, stale = stale.is_some(), "failed to resolve");
                    stale.map_or(Resolution::Failed, Resolution::from)
                }
            }
        };
        self.result.send_replace(Some(resolution));
    }
}

type Found = Result<(Answer, Extent, Duration), Reason>;

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under the lock can leave it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look_up(&self, name: &str) -> Found {
        let listed: Vec<IpAddr> = match files::read_text(&self.config.hosts, MOST_BYTES) {
            Ok(table) => file::addresses(&table, name).into_iter().filter(|ip| self.wants(*ip)).collect(),
            Err(error) => {
                tracing::debug!(path = %self.config.hosts.display(), %error, "cannot read the table of hosts");
                Vec::new()
            }
        };
        if !listed.is_empty() {
            return Ok((Answer::Addresses(listed), Extent::Whole, UNSAID));
        }
        let conf = self.servers.current();
        let servers = self.servers.in_order(&conf);
        // The last name decides, unless one before it has addresses; a name that exists is one even if the last is none.
        let mut last: Found = Err(Reason::NoUpstream);
        for candidate in candidates(name, &conf.search, conf.ndots) {
            let found = self.both_families(&candidate, &conf, &servers).await;
            match (&found, &last) {
                (Ok((Answer::Addresses(addresses), ..)), _) if !addresses.is_empty() => return found,
                (Ok((Answer::NoName, ..)), Ok((Answer::Addresses(_), ..))) => {}
                _ => last = found,
            }
        }
        last
    }

    fn wants(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() || self.config.families == Families::Dual
    }

    async fn both_families(&self, name: &str, conf: &ResolvConf, servers: &[SocketAddr]) -> Found {
        let v4 = self.one_family(name, kind::A, conf, servers);
        if self.config.families == Families::Ipv4 {
            return v4.await.map(|(answer, ttl)| (answer, Extent::Whole, ttl));
        }
        let (mut v4, mut v6) = (pin!(v4), pin!(self.one_family(name, kind::AAAA, conf, servers)));
        let (first, other): (_, Pin<&mut (dyn Future<Output = OneFamily> + Send)>) = tokio::select! {
            found = &mut v4 => (found, v6),
            found = &mut v6 => (found, v4),
        };
        let second = match &first {
            Ok((Answer::Addresses(addresses), _)) if !addresses.is_empty() => timeout(OTHER_FAMILY, other).await.ok(),
            // Without addresses there is every reason to wait.
            Ok(_) | Err(_) => Some(other.await),
        };
        join(first, second.unwrap_or(Err(Reason::Timeout)))
    }

    async fn one_family(&self, name: &str, kind: u16, conf: &ResolvConf, servers: &[SocketAddr]) -> OneFamily {
        let message = addresses::question(name, kind).ok_or(Reason::Malformed)?;
        let query = Query::parse(&message).map_err(|_| Reason::Malformed)?;
        let mut question = Question { message: message.into(), query, transport: Transport::Udp };
        let mut received = ask::ask(&self.outlet, &question, servers, conf.attempts, conf.timeout).await?;
        if received.1.truncated {
            question.transport = Transport::Tcp;
            received = ask::ask(&self.outlet, &question, servers, conf.attempts, conf.timeout).await?;
        }
        read(&received, &query)
    }
}

/// What there is of one family, and for how long that holds.
type OneFamily = Result<(Answer, Duration), Reason>;

fn read((message, answer): &Received, query: &Query) -> OneFamily {
    let ttl = answer.ttl.map_or(UNSAID, |seconds| Duration::from_secs(seconds.into()));
    match answer.rcode {
        rcode if rcode == Rcode::NoError as u16 => Ok((Answer::Addresses(addresses::addresses(message, query)), ttl)),
        rcode if rcode == Rcode::NxDomain as u16 => Ok((Answer::NoName, ttl)),
        _ => Err(Reason::BadAnswer),
    }
}

/// Both families together. That there is nothing is known only if both say so.
fn join(first: OneFamily, second: OneFamily) -> Found {
    use Answer::{Addresses, NoName};
    let (known, reason) = match (first, second) {
        (Ok((Addresses(mut some), ttl)), Ok((Addresses(more), other_ttl))) => {
            let ttl = match (some.is_empty(), more.is_empty()) {
                (false, true) => ttl,
                (true, false) => other_ttl,
                _ => ttl.min(other_ttl),
            };
            some.extend(more);
            return Ok((Addresses(some), Extent::Whole, ttl));
        }
        (Ok((NoName, ttl)), Ok((NoName, other_ttl))) => return Ok((NoName, Extent::Whole, ttl.min(other_ttl))),
        // Servers that say that there is no such name where there is only no such type: the other answer is right.
        (Ok((NoName, _)), Ok((answer, ttl))) | (Ok((answer, ttl)), Ok((NoName, _))) => {
            return Ok((answer, Extent::Whole, ttl));
        }
        (Ok(known), Err(reason)) | (Err(reason), Ok(known)) => (known, reason),
        (Err(reason), Err(_)) => return Err(reason),
    };
    match known {
        (Addresses(some), ttl) if !some.is_empty() => Ok((Addresses(some), Extent::Part, ttl)),
        _ => Err(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);

    fn some(last: u8) -> Answer {
        Answer::Addresses(vec![IpAddr::from([192, 0, 2, last])])
    }

    fn nothing() -> Answer {
        Answer::Addresses(Vec::new())
    }

    #[test]
    fn both_families_make_one_answer_and_one_alone_a_part_of_it() {
        let both = Answer::Addresses(vec![IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2])]);
        assert_eq!(join(Ok((some(1), HOUR)), Ok((some(2), MINUTE))), Ok((both, Extent::Whole, MINUTE)));
        assert_eq!(join(Ok((nothing(), MINUTE)), Ok((some(2), HOUR))), Ok((some(2), Extent::Whole, HOUR)));
        assert_eq!(join(Ok((some(1), HOUR)), Err(Reason::Timeout)), Ok((some(1), Extent::Part, HOUR)));
        assert_eq!(join(Err(Reason::Timeout), Ok((some(1), HOUR))), Ok((some(1), Extent::Part, HOUR)));
    }

    #[test]
    fn that_there_is_nothing_is_known_only_if_both_say_so() {
        assert_eq!(join(Ok((nothing(), HOUR)), Ok((nothing(), MINUTE))), Ok((nothing(), Extent::Whole, MINUTE)));
        assert_eq!(join(Ok((nothing(), HOUR)), Err(Reason::Timeout)), Err(Reason::Timeout));
        assert_eq!(
            join(Ok((Answer::NoName, HOUR)), Ok((Answer::NoName, HOUR))),
            Ok((Answer::NoName, Extent::Whole, HOUR))
        );
        assert_eq!(join(Ok((Answer::NoName, HOUR)), Ok((some(1), MINUTE))), Ok((some(1), Extent::Whole, MINUTE)));
        assert_eq!(join(Ok((Answer::NoName, HOUR)), Err(Reason::BadAnswer)), Err(Reason::BadAnswer));
        assert_eq!(join(Err(Reason::BadAnswer), Err(Reason::Timeout)), Err(Reason::BadAnswer));
    }
}
