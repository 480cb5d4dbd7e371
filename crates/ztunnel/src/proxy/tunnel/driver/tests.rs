use std::io::{Read, Write};
use std::net::Shutdown;

use hbone::h2::Config;
use mesh::Reporter;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::identity::Side;
use crate::identity::fixtures::{Ca, Leaf, id};
use crate::proxy::tunnel::Handle;
use crate::telemetry::PolicyLogging;
use crate::telemetry::fixtures::telemetry;

/// First byte of a TLS record that carries handshake messages (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;

#[tokio::test]
async fn what_arrived_during_a_pause_of_the_process_is_read_before_its_deadline_counts() {
    let ca = Ca::new("root");
    let certificate = ca.workload(&Leaf::of(&["spiffe://cluster.local/ns/default/sa/app"]));
    let (mut peer, socket) = connected().await;
    let now = Instant::now();
    let expected = [id("spiffe://cluster.local/ns/default/sa/app")];
    let mut client = Tunnel::client(certificate.client_config(&expected), Config::client(), now).unwrap();
    let mut outbox = Outbox::default();
    client.seal(&mut outbox).unwrap();
    peer.write_all(outbox.unsent()).unwrap();
    peer.shutdown(Shutdown::Write).unwrap();

    let long_ago = now.checked_sub(Duration::from_secs(60)).unwrap();
    let server = Tunnel::server(certificate.server_config(), Config::server(), long_ago).unwrap();
    while !socket.ready(Interest::READABLE).await.unwrap().is_read_closed() {
        tokio::task::yield_now().await;
    }
    let (_handle, mailbox) = Handle::new(1);
    let role = Role::Server(ServerRole::Unauthenticated(Box::new(|_| unreachable!("the handshake is not complete"))));
    let census = telemetry("info", PolicyLogging::default()).0.census(Reporter::Destination);
    let (carrier, acceptance) = (Transport::Socket(socket), certificate.acceptance(Side::Server));
    let ended = Driver::new(carrier, server, role, mailbox, acceptance, Duration::from_secs(60), census).await;

    let Ended::Handshake(why) = ended else { panic!("{ended:?}") };
    assert!(matches!(why, TunnelFailure::PeerClosed), "the end was read as well: {why}");
    let mut answer = Vec::new();
    peer.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.first(), Some(&HANDSHAKE), "the hello was answered although it was found late");
}

/// A blocking socket and the driver's end of it.
async fn connected() -> (std::net::TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (peer, listener.accept().await.unwrap().0)
}
