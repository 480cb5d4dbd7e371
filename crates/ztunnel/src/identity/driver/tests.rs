//! Handle, driver and a signer that does what the test says. Time is tokio's paused clock, so deadlines take none.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Mutex;

use super::*;
use crate::identity::fixtures::{handshake, id};
use crate::identity::schedule::{DEMAND_FLOOR, Priority};
use crate::identity::{CERTIFICATE_DEADLINE, Counts, Csr, FakeCa, Identities, Issued, LeafCheck, SignError, new};

const A: &str = "spiffe://cluster.local/ns/default/sa/a";
const B: &str = "spiffe://cluster.local/ns/default/sa/b";

/// What a signer does with one request.
#[derive(Debug, Clone, Copy)]
enum Act {
    Refuse,
    Hang,
    Panic,
    SignForB,
    SendNothing,
}

/// Signs, unless the script has something else to do next.
#[derive(Debug)]
struct Scripted {
    ca: FakeCa,
    script: Mutex<VecDeque<Act>>,
    requests: Mutex<Vec<Identity>>,
}

impl Signer for Arc<Scripted> {
    async fn sign(&self, identity: &Identity, csr: &Csr, ttl: Duration) -> Result<Issued, SignError> {
        self.requests.lock().unwrap().push(identity.clone());
        let act = self.script.lock().unwrap().pop_front();
        let issued = self.ca.sign(identity, csr, ttl);
        match act {
            None => issued.await,
            Some(Act::Refuse) => Err(refused()),
            Some(Act::Hang) => pending().await,
            Some(Act::Panic) => panic!("the script says so"),
            Some(Act::SignForB) => self.ca.sign(&id(B), csr, ttl).await,
            Some(Act::SendNothing) => Ok(Issued { chain: Vec::new(), ..issued.await? }),
        }
    }
}

impl Scripted {
    fn requests(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

fn refused() -> SignError {
    SignError::Status {
        code: "The request does not have valid authentication credentials".into(),
        message: "request authenticate failure".into(),
    }
}

/// A running driver whose signer acts by `script` and signs when that is over.
fn running(script: impl IntoIterator<Item = Act>) -> (Identities, Arc<Scripted>) {
    let signer = Arc::new(Scripted {
        ca: FakeCa::new(),
        script: Mutex::new(script.into_iter().collect()),
        requests: Mutex::default(),
    });
    let (identities, driver) = new(config(), signer.clone(), Counts::default());
    tokio::spawn(driver.run());
    (identities, signer)
}

fn config() -> Config {
    Config { ttl: Duration::from_secs(24 * 3600), leaf: LeafCheck::Requested, ..Config::default() }
}

async fn ask(identities: &Identities, identity: &str) -> Result<Arc<WorkloadCertificate>, IdentityError> {
    identities.certificate(&id(identity), Priority::RealTime).await
}

/// Identity and state of each row of the dump.
fn states(identities: &Identities) -> Vec<(String, String)> {
    let text = |row: &serde_json::Value, key: &str| row[key].as_str().unwrap().to_owned();
    identities.dump().as_array().unwrap().iter().map(|row| (text(row, "identity"), text(row, "state"))).collect()
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_fetched_once_and_at_hand_from_then_on() {
    let (identities, signer) = running([]);
    assert!(identities.current(&id(A)).is_none());
    let first = ask(&identities, A).await.unwrap();
    assert_eq!(first.identity(), Some(&id(A)));
    assert!(Arc::ptr_eq(&first, &identities.current(&id(A)).unwrap()));
    assert!(Arc::ptr_eq(&first, &ask(&identities, A).await.unwrap()));
    assert_eq!(signer.requests(), 1);
    assert_eq!(states(&identities), [(A.into(), "Available".into())]);
}

#[tokio::test(start_paused = true)]
async fn two_workloads_complete_a_handshake_with_what_they_are_given() {
    let (identities, _) = running([]);
    let (client, server) = (ask(&identities, A).await.unwrap(), ask(&identities, B).await.unwrap());
    let done = handshake(client.client_config(&[id(B)]), server.server_config());
    assert_eq!((done.client_result, done.server_result), (Ok(()), Ok(())));
}

#[tokio::test(start_paused = true)]
async fn many_callers_share_one_request_and_its_result() {
    let (identities, signer) = running([]);
    let mut callers = JoinSet::new();
    for _ in 0..1000 {
        let identities = identities.clone();
        callers.spawn(async move { ask(&identities, A).await.unwrap() });
    }
    let certificates = callers.join_all().await;
    assert!(certificates.iter().all(|certificate| Arc::ptr_eq(certificate, &certificates[0])));
    assert_eq!(signer.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failure_reaches_all_who_wait_and_is_shared_until_another_attempt_is_due() {
    let (identities, signer) = running([Act::Refuse; 5]);
    let (one, two) = tokio::join!(ask(&identities, A), ask(&identities, A));
    let text = "signing gRPC error (The request does not have valid authentication credentials): \
                request authenticate failure";
    assert_eq!(one.unwrap_err().to_string(), text);
    assert_eq!(two.unwrap_err(), refused().into());
    assert_eq!(states(&identities), [(A.into(), format!("Unavailable: {text}"))]);

    assert_eq!(ask(&identities, A).await.unwrap_err(), refused().into());
    assert_eq!(signer.requests(), 1, "too soon for another attempt");
    tokio::time::sleep(DEMAND_FLOOR * 100).await;
    assert!(signer.requests() > 5, "it is retried without demand");
    assert!(identities.current(&id(A)).is_some());
}

#[tokio::test(start_paused = true)]
async fn demand_finds_a_recovered_ca_long_before_the_backoff_ends() {
    let (identities, signer) = running([Act::Refuse; 8]);
    assert!(ask(&identities, A).await.is_err());
    tokio::time::sleep(Duration::from_secs(160)).await;
    assert_eq!(
        signer.requests(),
        8,
        "the eighth failed 102 to 153 s after the first, the next is due 102 s later or more"
    );
    let asked = Instant::now();
    assert!(ask(&identities, A).await.is_ok());
    assert_eq!(asked.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_ca_that_never_answers_costs_one_deadline_and_no_place() {
    let (identities, signer) = running([Act::Hang]);
    let asked = Instant::now();
    let error = ask(&identities, A).await.unwrap_err();
    assert_eq!(error.to_string(), "CA did not answer within 10s; check that it is reachable and not overloaded");
    assert_eq!(asked.elapsed().as_secs(), SIGN_DEADLINE.as_secs());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(signer.requests(), 2);
    assert!(identities.current(&id(A)).is_some(), "the retry succeeded");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_cannot_be_served_in_time_is_told_so() {
    let (identities, _) = running([Act::Hang; 16]);
    for n in 0..8 {
        identities.prefetch(&id(&format!("spiffe://cluster.local/ns/default/sa/hang{n}"))).await;
    }
    let asked = Instant::now();
    let error = ask(&identities, A).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("no certificate for {A} within 15s; requests to the CA are queued or unanswered")
    );
    assert_eq!(asked.elapsed().as_secs(), CERTIFICATE_DEADLINE.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_signer_that_panics_costs_one_attempt() {
    let (identities, _) = running([Act::Panic]);
    assert_eq!(ask(&identities, A).await.unwrap_err(), IdentityError::Aborted);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(identities.current(&id(A)).is_some());
}

#[tokio::test(start_paused = true)]
async fn what_the_ca_signs_for_others_or_not_at_all_is_not_used() {
    let (identities, _) = running([Act::SignForB, Act::SendNothing]);
    assert_eq!(ask(&identities, A).await.unwrap_err().to_string(), format!("did not find expected SAN: {A}"));
    assert_eq!(ask(&identities, B).await.unwrap_err().to_string(), format!("chain returned from CA is empty for: {B}"));
    assert!(identities.current(&id(A)).is_none() && identities.current(&id(B)).is_none());
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_cannot_be_requested_fails_without_the_ca() {
    let (identities, signer) = running([]);
    let name = "spiffe://cluster.local/ns/default/sa/ünnamed";
    let error = ask(&identities, name).await.unwrap_err();
    assert_eq!(error.to_string(), format!("failed to create CSR: invalid uri: {name}"));
    assert_eq!(signer.requests(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_prefetched_certificate_is_there_without_anybody_waiting() {
    let (identities, signer) = running([]);
    identities.prefetch(&id(A)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(identities.current(&id(A)).is_some());
    assert_eq!(signer.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn forgetting_tells_those_who_wait_and_drops_the_result() {
    let (identities, signer) = running([Act::Hang]);
    let waiting = async {
        let (one, two) = tokio::join!(ask(&identities, A), ask(&identities, A));
        (one.unwrap_err(), two.unwrap_err())
    };
    let forget = async {
        while signer.requests() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(states(&identities), [(A.into(), "Initializing".into())]);
        identities.forget(&id(A)).await;
    };
    let asked = Instant::now();
    let (errors, ()) = tokio::join!(waiting, forget);
    assert_eq!(errors, (IdentityError::Forgotten, IdentityError::Forgotten));
    assert_eq!(errors.0.to_string(), "the identity is no longer needed");
    assert_eq!(asked.elapsed(), Duration::ZERO, "at once, not when the CA answers");
    assert!(states(&identities).is_empty());
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(signer.requests(), 1, "nobody wants it any more");
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_certificate_is_out_of_use_at_once_and_back_at_once() {
    let (identities, signer) = running([]);
    let first = ask(&identities, A).await.unwrap();
    identities.forget(&id(A)).await;
    assert!(ask(&identities, B).await.is_ok(), "the driver has seen what came before");
    assert!(identities.current(&id(A)).is_none());
    assert_eq!(states(&identities).len(), 1);
    assert!(Arc::ptr_eq(&first, &ask(&identities, A).await.unwrap()), "a pod that restarts costs no request");
    assert_eq!(signer.requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn callers_who_gave_up_do_not_pile_up() {
    let signer = Arc::new(Scripted { ca: FakeCa::new(), script: Mutex::default(), requests: Mutex::default() });
    let (identities, mut driver) = new(config(), signer, Counts::default());
    for _ in 0..10_000 {
        driver.park(id(A), tokio::sync::oneshot::channel().0);
    }
    assert!(driver.waiting[&id(A)].len() < 10);
    drop(identities);
}

#[tokio::test(start_paused = true)]
async fn more_waiting_callers_than_can_be_real_are_turned_away() {
    let signer = Arc::new(Scripted { ca: FakeCa::new(), script: Mutex::default(), requests: Mutex::default() });
    let (_identities, mut driver) = new(config(), signer, Counts::default());
    let mut answers: Vec<_> = (0..=MAX_WAITING)
        .map(|_| {
            let (reply, answer) = tokio::sync::oneshot::channel();
            driver.park(id(A), reply);
            answer
        })
        .collect();
    assert_eq!(answers.pop().unwrap().await.unwrap().unwrap_err(), IdentityError::Crowded(id(A)));
    assert!(answers[0].try_recv().is_err(), "those before still wait");
}

#[tokio::test(start_paused = true)]
async fn without_its_driver_the_handle_answers_and_the_driver_ends_with_the_last_handle() {
    let (identities, driver) = new(config(), FakeCa::new(), Counts::default());
    drop(driver);
    assert_eq!(ask(&identities, A).await.unwrap_err(), IdentityError::Stopped);
    identities.prefetch(&id(A)).await;
    identities.forget(&id(A)).await;

    let (identities, driver) = new(config(), FakeCa::new(), Counts::default());
    let running = tokio::spawn(driver.run());
    drop(identities.clone());
    drop(identities);
    running.await.unwrap();
}

#[test]
fn callers_may_live_on_other_threads_with_their_own_runtimes() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (identities, driver) = new(config(), FakeCa::new(), Counts::default());
    let control = std::thread::spawn(move || runtime().block_on(driver.run()));
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let identities = identities.clone();
            std::thread::spawn(move || runtime().block_on(ask(&identities, A)).unwrap())
        })
        .collect();
    let certificates: Vec<_> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
    assert!(certificates.iter().all(|certificate| Arc::ptr_eq(certificate, &certificates[0])));
    drop(identities);
    control.join().unwrap();
}
