//! DNS messages of apps and of upstreams.

use mesh::ask::Learnt;
use mesh::lookup::{Families, Kind, Search};
use mesh::{Lookup, LookupSettings, Question, Uid, View, Workload};
use ztunnel::dns::wire::answer::{self, Answer};
use ztunnel::dns::wire::query::{Fault, Query};
use ztunnel::dns::wire::reply::{Reply, refuse};
use ztunnel::dns::wire::{CLASSIC_UDP, HEADER, LARGEST, Rcode};

/// The first bytes say where a query ends and an upstream's answer to it begins.
pub fn names(data: &[u8]) {
    let Some((split, rest)) = data.split_first_chunk::<2>() else { return };
    let (asked, said) = rest.split_at(usize::from(u16::from_be_bytes(*split)).min(rest.len()));
    let mut out = Vec::new();
    let query = match Query::parse(asked) {
        Ok(query) => query,
        Err(Fault::Ignore) => return,
        Err(Fault::Answer(rcode)) => {
            refuse(&mut out, asked, rcode);
            assert!(out.len() <= asked.len() + 11, "an error is not larger than what caused it");
            return;
        }
    };
    look_up(asked, &query);
    for limit in [CLASSIC_UDP, LARGEST] {
        let mut reply = Reply::new(&mut out, asked, &query, limit);
        let owner = reply.canonical("some.name").ok();
        while reply.address(owner, [10, 0, 0, 1].into()).is_ok() {}
        reply.finish(Rcode::NoError);
        assert!(out.len() <= limit);
        assert_eq!(out.get(HEADER..query.question_end()), asked.get(HEADER..query.question_end()));
    }
    let Ok(read) = Answer::parse(said, asked, &query) else { return };
    let mut message = said.to_vec();
    answer::age(&mut message, &read.ttls, 1);
    answer::shorten(&mut message, &read.ttls, 30);
    answer::readdress(&mut message, &query, asked);
    let again = Answer::parse(&message, asked, &query).expect("what was read can be read again");
    assert_eq!((again.rcode, &again.ttls), (read.rcode, &read.ttls));
    answer::cut(&mut message, &query, CLASSIC_UDP);
    assert!(message.len() <= CLASSIC_UDP.max(query.question_end()));
}

fn look_up(asked: &[u8], query: &Query) {
    let mut name = String::new();
    let shown = query.shown_name(asked);
    assert!(shown.is_ascii() && shown.ends_with('.'));
    if !query.write_name(asked, &mut name) {
        return;
    }
    let (view, client, learnt) = (View::default(), Workload::new(Uid::from("client")), Learnt::default());
    let settings = LookupSettings {
        domain: "cluster.local".into(),
        search: Search::OfPod,
        preferred: None,
        families: Families::Dual,
        on_demand: true,
    };
    for kind in [Kind::A, Kind::Aaaa, Kind::Ptr, Kind::Other] {
        let (view, client, name, learnt, settings) = (&view, &client, name.as_str(), &learnt, &settings);
        let _ = Lookup::default().find(&Question { view, client, name, kind, learnt, settings });
    }
}
