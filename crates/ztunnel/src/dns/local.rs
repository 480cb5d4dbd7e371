//! What the mesh answers to a query, and which queries are not for it to answer.

use std::net::IpAddr;

use mesh::ask::{Learnt, Need};
use mesh::lookup::{Kind, MAX_NAME};
use mesh::{Found, Lookup, LookupSettings, Question, Standing, View, Workload};
use rand::Rng;

use super::counts::Transport;
use super::wire::query::Query;
use super::wire::reply::Reply;
use super::wire::{LARGEST, Rcode, kind};

/// Addresses that are told of one name: as many as any message holds, and more than any client tries.
const MOST_ADDRESSES: usize = 4000;

/// Answers from the mesh; keeps its buffers from one query to the next.
#[derive(Debug, Default)]
pub struct Answers {
    lookup: Lookup,
    name: String,
    /// The answer, if there is one.
    pub out: Vec<u8>,
}

/// What a query comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// An answer of the mesh; how many addresses or names it has.
    Told(usize),
    /// To be asked of an upstream.
    Forward(Standing),
    /// Not before this is known.
    Need(Need),
}

/// A query and who asks it.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// What is known.
    pub view: &'a View,
    /// Who asks.
    pub client: &'a Workload,
    /// What the operator set.
    pub settings: &'a LookupSettings,
    /// What has been found out since the query came.
    pub learnt: &'a Learnt,
    /// The query's bytes.
    pub message: &'a [u8],
    /// What they say.
    pub query: &'a Query,
    /// How it came.
    pub transport: Transport,
}

impl Answers {
    /// Decides what a query comes to, and writes the answer if it is the mesh's.
    pub fn answer(&mut self, asked: &Asked<'_>, rng: &mut impl Rng) -> Step {
        let query = asked.query;
        let is_host = query.write_name(asked.message, &mut self.name);
        if !is_host || self.name.len() > MAX_NAME || !query.is_internet() {
            return Step::Forward(Standing::Stranger);
        }
        let kind = match query.kind {
            kind::A => Kind::A,
            kind::AAAA => Kind::Aaaa,
            kind::PTR => Kind::Ptr,
            _ => Kind::Other,
        };
        let &Asked { view, client, settings, learnt, .. } = asked;
        let found = self.lookup.find(&Question { view, client, name: &self.name, kind, learnt, settings });
        let limit = match asked.transport {
            Transport::Udp => query.own_udp_size(),
            Transport::Tcp => LARGEST,
        };
        let mut reply = Reply::new(&mut self.out, asked.message, query, limit);
        match found {
            Found::Addresses { canonical } => {
                // Without its canonical name the answer would be as right; it is left out where the name is none.
                let owner = canonical.and_then(|name| reply.canonical(name).ok());
                let told = tell(&mut reply, owner, self.lookup.addresses_mut(), rng);
                reply.finish(Rcode::NoError);
                Step::Told(told)
            }
            Found::Name(name) => match reply.pointer(&name) {
                Ok(()) => {
                    reply.finish(Rcode::NoError);
                    Step::Told(1)
                }
                Err(_) => Step::Forward(Standing::Stranger),
            },
            Found::NoData => {
                reply.finish(Rcode::NoError);
                Step::Told(0)
            }
            Found::NoName => {
                reply.finish(Rcode::NxDomain);
                Step::Told(0)
            }
            Found::Forward(standing) => Step::Forward(standing),
            Found::Need(need) => Step::Need(need),
        }
    }

    /// Answers that something is wrong.
    pub fn fail(&mut self, message: &[u8], query: &Query, rcode: Rcode) {
        Reply::new(&mut self.out, message, query, LARGEST).fail(rcode);
    }
}

/// Tells addresses in random order: every one has the same chance to come first, and of too many to be told at all.
fn tell(reply: &mut Reply<'_>, owner: Option<u16>, addresses: &mut [IpAddr], rng: &mut impl Rng) -> usize {
    for next in 0..addresses.len().min(MOST_ADDRESSES) {
        if next + 1 < addresses.len() {
            let other = rng.random_range(next..addresses.len());
            addresses.swap(next, other);
        }
        if reply.address(owner, addresses[next]).is_err() {
            return next;
        }
    }
    addresses.len().min(MOST_ADDRESSES)
}

#[cfg(test)]
mod scripts;
#[cfg(test)]
mod tests;
