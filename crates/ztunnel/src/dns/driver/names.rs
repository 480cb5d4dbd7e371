//! Names that are asked for by this process on behalf of a pod: the same lookup, servers, cache and counts as for queries
//! of the pod itself, without a socket.

use std::net::IpAddr;
use std::sync::Arc;

use mesh::LocalWorkload;
use mesh::ask::Resolution;
use mesh::lookup::Families;
use tokio::sync::mpsc;
use tracing::Instrument;

use super::{Pod, Resolvers, Taken};
use crate::dns::counts::Transport;
use crate::dns::wire::query::question;
use crate::dns::wire::{answer, kind};
use crate::net::netns::Netns;

/// Names as the apps of one pod would get them.
#[derive(Clone)]
pub struct PodNames(Arc<Pod>);

impl Resolvers {
    /// Names for `who`, whose resolvers are asked from `netns` (`None`: our own).
    #[must_use]
    pub fn names(&self, who: LocalWorkload, netns: Option<Arc<Netns>>) -> PodNames {
        PodNames(Arc::new(self.pod(who, netns)))
    }
}

impl PodNames {
    /// The addresses of a name: those of IPv4, or those of IPv6 if it has no others. Takes as long as a query may.
    pub async fn resolve(&self, name: &str) -> Resolution {
        let kinds: &[u16] = match self.0.shared.config.lookup.families {
            Families::Dual => &[kind::A, kind::AAAA],
            Families::Ipv4 => &[kind::A],
        };
        let mut resolution = Resolution::Failed;
        for kind in kinds {
            match self.ask(name, *kind).await {
                Some(addresses) if addresses.is_empty() => resolution = Resolution::Addresses(addresses),
                Some(addresses) => return Resolution::Addresses(addresses),
                None => {}
            }
        }
        resolution
    }

    async fn ask(&self, name: &str, kind: u16) -> Option<Vec<IpAddr>> {
        let message = question(name, kind, rand::random())?;
        let pod = Arc::clone(&self.0);
        let (query, permit) = {
            let mut desk = pod.desk();
            match pod.take(&mut desk, &message, Transport::Udp) {
                Taken::Ignored => return None,
                Taken::Answered => return answer::addresses(&desk.answers.out, kind),
                Taken::Open(query, permit) => (query, permit),
            }
        };
        let (told, mut answers) = mpsc::channel(1);
        let one =
            super::Open { message: message.into(), query, transport: Transport::Udp, addressed: None, _permit: permit };
        // It may go on after the first answer, to have a fresh one for the next who asks.
        let asking = async move { super::later::answer(&pod, &one, |m| drop(told.try_send(m.to_vec()))).await };
        tokio::spawn(asking.in_current_span());
        answer::addresses(&answers.recv().await?, kind)
    }
}
