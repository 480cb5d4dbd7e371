use std::collections::BTreeSet;

use mesh::lookup::{Families, Search};
use mesh::view::State;
use mesh::{Service, Uid};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::dns::wire::number;
use crate::dns::wire::tests::{opt, query};

struct Fixture {
    view: View,
    client: Workload,
    settings: LookupSettings,
    answers: Answers,
    rng: StdRng,
}

impl Fixture {
    fn new(vips: usize) -> Self {
        let mut service = Service::new("ns1/many.example".parse().unwrap());
        service.vips = (0..vips).map(|n| format!("/10.0.{}.{}", n / 250, n % 250).parse().unwrap()).collect();
        let mut state = State::new(None);
        let _ = state.apply([service.into()]);
        let settings = LookupSettings {
            domain: "cluster.local".into(),
            search: Search::OfPod,
            preferred: None,
            families: Families::Dual,
            on_demand: false,
        };
        let client = Workload::new(Uid::from("client"));
        let (answers, rng) = (Answers::default(), StdRng::seed_from_u64(1));
        Self { view: state.view(), client, settings, answers, rng }
    }

    fn ask(&mut self, message: &[u8], transport: Transport) -> Step {
        let query = Query::parse(message).unwrap();
        let (view, client, settings) = (&self.view, &self.client, &self.settings);
        let asked = Asked { view, client, settings, learnt: &Learnt::default(), message, query: &query, transport };
        self.answers.answer(&asked, &mut self.rng)
    }

    /// The last bytes of the addresses, in the order in which they are told.
    fn told(&self, message: &[u8]) -> Vec<[u8; 2]> {
        let records = &self.answers.out[message.len()..];
        records.chunks_exact(16).map(|record| [record[14], record[15]]).collect()
    }
}

#[test]
fn every_address_comes_first_as_often_as_the_others() {
    let mut fixture = Fixture::new(3);
    let message = query("many.example", 1, [0; 3], &[]);
    let mut first = [0; 3];
    for _ in 0..3000 {
        assert_eq!(fixture.ask(&message, Transport::Udp), Step::Told(3));
        let told = fixture.told(&message);
        assert_eq!(told.iter().collect::<BTreeSet<_>>().len(), 3, "each is told once");
        first[usize::from(told[0][1])] += 1;
    }
    assert!(first.iter().all(|n| (850..1150).contains(n)), "{first:?}");
}

#[test]
fn what_does_not_fit_a_datagram_is_cut_off_and_comes_by_connection() {
    let mut fixture = Fixture::new(1000);
    let plain = query("many.example", 1, [0; 3], &[]);
    let Step::Told(told) = fixture.ask(&plain, Transport::Udp) else { panic!("it was told") };
    assert_eq!(
        (told, fixture.answers.out.len() <= 512, fixture.answers.out[2] & 2),
        ((512 - plain.len()) / 16, true, 2)
    );
    let larger = query("many.example", 1, [0, 0, 1], &opt(0, 0, &[]));
    assert!(matches!(fixture.ask(&larger, Transport::Udp), Step::Told(more) if more > told));
    assert!(fixture.answers.out.len() <= 1232);
    assert_eq!(fixture.ask(&plain, Transport::Tcp), Step::Told(1000));
    assert_eq!((number(&fixture.answers.out, 6), fixture.answers.out[2] & 2), (Some(1000), 0));
}

#[test]
fn other_classes_and_names_that_no_host_has_are_somebody_elses() {
    let mut fixture = Fixture::new(1);
    let mut chaos = query("many.example", 1, [0; 3], &[]);
    *chaos.last_mut().unwrap() = 3;
    assert_eq!(fixture.ask(&chaos, Transport::Udp), Step::Forward(Standing::Stranger));
    let odd = query("ma ny.example", 1, [0; 3], &[]);
    assert_eq!(fixture.ask(&odd, Transport::Udp), Step::Forward(Standing::Stranger));
    let text = query("many.example", 16, [0; 3], &[]);
    assert_eq!(fixture.ask(&text, Transport::Udp), Step::Forward(Standing::Exists));
}
