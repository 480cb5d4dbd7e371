//! A query that cannot be answered at once: the control plane or an upstream is asked first.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh::ask::Learnt;
use mesh::{Standing, Workload};
use tokio::time::timeout;

use super::ask::{self, Question};
use super::{Open, Pod};
use crate::dns::cache::{Kept, Refresh};
use crate::dns::counts::{Reason, Source, Transport};
use crate::dns::local::{Asked, Step};
use crate::dns::wire::{LARGEST, Rcode, answer};
use crate::state::ANNOUNCEMENT_TIMEOUT;

/// How long the control plane may take to tell what it knows of a name. A name that it is too slow about is carried on, as
/// it would be without on-demand lookups.
const DEMAND_TIMEOUT: Duration = Duration::from_secs(1);
/// Things that are found out for one query.
const MOST_NEEDS: usize = 2;
/// How long a client waits before it gets an answer whose time is over, if there is one (RFC 8767 §5, "client response
/// timer").
const STALE_AFTER: Duration = Duration::from_millis(1800);

/// Finds the answer and hands it to `send`. Goes on asking for a while after an answer whose time is over has been sent.
pub(super) async fn answer(pod: &Pod, one: &Open, send: impl Fn(&[u8])) {
    let Some(client) = pod.shared.views.local(&pod.who, ANNOUNCEMENT_TIMEOUT).await else {
        return pod.fail(one, Reason::UnknownClient, &send);
    };
    let mut learnt = Learnt::default();
    let mut standing = Standing::Stranger;
    for _ in 0..=MOST_NEEDS {
        let need = {
            let versioned = pod.shared.views.current();
            let mut desk = pod.desk();
            let (settings, message) = (&pod.shared.config.lookup, &*one.message);
            let (query, transport) = (&one.query, one.transport);
            let (view, client, learnt) = (&versioned.view, &*client, &learnt);
            let asked = Asked { view, client, settings, learnt, message, query, transport };
            match desk.answers.answer(&asked, &mut rand::rng()) {
                Step::Told(count) => {
                    pod.told(&desk, &one.query, message, count);
                    return send(&desk.answers.out);
                }
                Step::Forward(found) => {
                    standing = found;
                    break;
                }
                Step::Need(need) => need,
            }
        };
        // Whether it knew or took too long, it is not asked again.
        let _ = timeout(DEMAND_TIMEOUT, pod.shared.views.find_out(&need)).await;
        learnt.asked(need);
    }
    carry_on(pod, one, &client, standing, &send).await;
}

async fn carry_on(pod: &Pod, one: &Open, client: &Arc<Workload>, standing: Standing, send: &impl Fn(&[u8])) {
    let conf = pod.shared.servers.current();
    // The cluster's own resolver stands for all of them.
    let addressed = one.addressed.filter(|server| !conf.servers.contains(server));
    let kept = pod.desk().cache.get(Instant::now(), &one.query, &one.message, addressed);
    let mut answered = false;
    let tell = |message: Vec<u8>, source| {
        pod.send(one, standing, message, source, send);
    };
    match kept {
        Kept::Fresh(message) => return tell(message, Source::Cached),
        Kept::Stale(message, refresh) => {
            tell(message, Source::Stale);
            answered = true;
            if refresh == Refresh::NotDue {
                return;
            }
        }
        Kept::Nothing => {}
    }
    let servers = addressed.map_or_else(|| pod.shared.servers.in_order(&conf), |server| vec![server]);
    let question = Question { message: Arc::clone(&one.message), query: one.query, transport: one.transport };
    let began = Instant::now();
    let asking = ask::ask(&pod.outlet, &question, &servers, conf.attempts, conf.timeout);
    let mut asking = std::pin::pin!(asking);
    let outcome = match timeout(STALE_AFTER, &mut asking).await {
        Ok(outcome) => outcome,
        Err(_) => {
            if !answered {
                let stale = pod.desk().cache.get_stale(Instant::now(), &one.query, &one.message, addressed);
                if let Some(message) = stale {
                    tell(message, Source::Stale);
                    answered = true;
                }
            }
            asking.await
        }
    };
    let of_use = match &outcome {
        Ok((_, answer)) if answer.rcode == Rcode::ServFail as u16 => Err(Reason::BadAnswer),
        Ok(_) => Ok(()),
        Err(reason) => Err(*reason),
    };
    let asked = (one.query.kind, one.transport);
    pod.shared.counts.forwarded(Some(client), asked, began.elapsed(), of_use);
    let stale = || pod.desk().cache.get_stale(Instant::now(), &one.query, &one.message, addressed);
    match (outcome, of_use) {
        (Ok((message, answer)), Ok(())) => {
            let mut desk = pod.desk();
            desk.cache.keep(Instant::now(), &one.query, &one.message, addressed, (&message, &answer));
            drop(desk);
            if !answered {
                tell(message, Source::Forwarded);
            }
        }
        (outcome, _) => match (answered, stale(), outcome) {
            (true, ..) => {}
            (false, Some(message), _) => tell(message, Source::Stale),
            (false, None, Ok((message, _))) => tell(message, Source::Forwarded),
            (false, None, Err(reason)) => pod.fail(one, reason, send),
        },
    }
}

impl Pod {
    /// Sends what an upstream said, now or once.
    fn send(&self, one: &Open, standing: Standing, mut message: Vec<u8>, source: Source, send: &impl Fn(&[u8])) {
        if standing == Standing::Exists {
            answer::to_no_data_if_absent(&mut message);
        }
        let limit = match one.transport {
            Transport::Udp => one.query.udp_size(),
            Transport::Tcp => LARGEST,
        };
        answer::cut(&mut message, &one.query, limit);
        self.desk().frequent.told(source, Reason::None);
        let result = match source {
            Source::Stale => "stale",
            Source::Cached => "cached",
            Source::Local | Source::Forwarded | Source::Failed => "forwarded",
        };
        self.log(&one.query, &one.message, result, None, answer::count(&message));
        send(&message);
    }

    fn fail(&self, one: &Open, reason: Reason, send: &impl Fn(&[u8])) {
        let mut desk = self.desk();
        desk.frequent.told(Source::Failed, reason);
        self.log(&one.query, &one.message, "forwarding failed", Some(reason), 0);
        desk.answers.fail(&one.message, &one.query, Rcode::ServFail);
        send(&desk.answers.out);
    }
}
