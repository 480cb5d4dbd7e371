//! The mesh's wires and the rules in its pods, looked at with plain sockets in place of a ztunnel.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, ExitCode};
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use socket2::{Domain, SockRef, Socket, Type};
use testkit::apps::{self, Server};
use testkit::harness::{self, Outcome, test};
use testkit::mesh::{Capture, Families, Mesh, Node, Pod, PodSpec};
use testkit::redirect::{DnsCapture, ZTUNNEL_MARK};

/// Long enough for a loaded machine; only a failing test waits for it.
const DEADLINE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    harness::main(vec![
        test("pods on two nodes reach each other and see each other's addresses", across_nodes),
        test("pods of a dual-stack mesh reach each other by IPv6", across_nodes_by_ipv6),
        test("a node keeps its hardware address towards its pods, whoever comes and goes", same_gateway),
        test("what an enrolled pod sends is redirected to 15001, which learns the original destination", outbound),
        test("what a dedicated pod sends is redirected to 15001, and nothing that it receives", dedicated),
        test("plaintext for an enrolled pod is redirected to 15006, which learns the original destination", inbound),
        test("tunnels to 15008 are not redirected", tunnels),
        test("what ztunnel marks goes out as it is", marked),
        test("a connection of ztunnel's under a foreign address gets its replies", spoofed),
        test("a pod's connection to itself is not redirected", to_itself),
        test("DNS by TCP goes to 15053 if it is captured and to 15001 if not", dns),
        test("a tap on the fabric sees what passes between nodes and nothing else", tap),
        test("commands run in a pod's network", command),
        test("congestion control is set for a pod's connections, both ends of those within it included", congestion),
        test("a pod that is redirected without an agent is redirected alike", redirected),
        test("two meshes live side by side, and a dropped one leaves no files", two_meshes),
    ])
}

/// Two pods on two nodes; the one that is the test's subject has the given capture.
struct Pair {
    mesh: Mesh,
    subject: Pod,
    other: Pod,
}

fn pair(capture: Capture) -> Result<Pair, Box<dyn Error>> {
    let mesh = Mesh::new()?;
    let subject = mesh.add_node("a")?.add_pod(PodSpec::new("subject", "shop", "front", capture))?;
    let other = mesh.add_node("b")?.add_pod(PodSpec::new("other", "shop", "cart", Capture::Off))?;
    Ok(Pair { mesh, subject, other })
}

fn listen(pod: &Pod, port: u16) -> Result<TcpListener, Box<dyn Error>> {
    Ok(pod.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))??)
}

/// The next connection and the destination that its client had in mind. The client has connected before this is called.
fn accept(listener: &TcpListener) -> Result<(TcpStream, SocketAddr), Box<dyn Error>> {
    listener.set_nonblocking(true)?;
    let (stream, _) = listener.accept()?;
    let destination = SockRef::from(&stream).original_dst_v4()?.as_socket().ok_or("no address")?;
    Ok((stream, destination))
}

fn nobody_came(listener: &TcpListener) -> Outcome {
    listener.set_nonblocking(true)?;
    match listener.accept() {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        other => Err(format!("unexpected: {other:?}").into()),
    }
}

fn at(pod: &Pod, port: u16) -> SocketAddr {
    SocketAddr::new(pod.ip(), port)
}

fn across_nodes() -> Outcome {
    let Pair { subject, other, .. } = pair(Capture::Off)?;
    let app = apps::serve_http(&other, 8080)?;
    let answer = apps::http_get(&subject, app.address())?;
    assert_eq!((answer.status, answer.told("pod")), (200, Some("other")));
    let peer: SocketAddr = answer.told("peer").ok_or("no peer told")?.parse()?;
    assert_eq!(peer.ip(), subject.ip());
    assert_eq!(app.peers(), [peer]);
    let echo = apps::serve_echo(&subject, 0)?;
    assert_eq!(apps::exchange(&other, echo.address(), &[7; 300_000])?, [7; 300_000]);
    Ok(())
}

fn across_nodes_by_ipv6() -> Outcome {
    let mesh = Mesh::with(Families::Dual)?;
    let client = mesh.add_node("a")?.add_pod(PodSpec::new("client", "shop", "front", Capture::Off))?;
    let server = mesh.add_node("b")?.add_pod(PodSpec::new("server", "shop", "cart", Capture::Off))?;
    let _app = apps::serve_http(&server, 8080)?;
    for (index, ip) in server.ips().iter().enumerate() {
        let answer = apps::http_get(&client, SocketAddr::new(*ip, 8080))?;
        let peer: SocketAddr = answer.told("peer").ok_or("no peer told")?.parse()?;
        assert_eq!(peer.ip(), client.ips()[index]);
    }
    assert!(server.ips()[1].is_ipv6());
    Ok(())
}

fn same_gateway() -> Outcome {
    let mesh = Mesh::new()?;
    let node = mesh.add_node("a")?;
    let before = hardware_address(&node, "br0")?;
    let pod = node.add_pod(PodSpec::new("front", "shop", "front", Capture::Off))?;
    assert_eq!(hardware_address(&node, "br0")?, before, "a pod came");
    node.remove_pod(&pod)?;
    assert_eq!(hardware_address(&node, "br0")?, before, "it left");
    Ok(())
}

fn hardware_address(node: &Node, interface: &str) -> Result<[u8; 6], Box<dyn Error>> {
    let found = node.netns().run(|| {
        let mut own = getifaddrs()?.filter(|address| address.interface_name == interface);
        Ok::<_, io::Error>(own.find_map(|address| address.address?.as_link_addr()?.addr()))
    });
    Ok(found??.ok_or("it has none")?)
}

fn outbound() -> Outcome {
    let Pair { subject, other, .. } = pair(Capture::Enrolled)?;
    let outbound = listen(&subject, 15001)?;
    let target = listen(&other, 8080)?;
    let _client = apps::connect(&subject, at(&other, 8080))?;
    assert_eq!(accept(&outbound)?.1, at(&other, 8080));
    nobody_came(&target)?;
    // Not even an address that leads nowhere.
    let nowhere = "10.96.0.1:80".parse()?;
    let _client = apps::connect(&subject, nowhere)?;
    assert_eq!(accept(&outbound)?.1, nowhere);
    Ok(())
}

fn dedicated() -> Outcome {
    let Pair { subject, other, .. } = pair(Capture::Dedicated)?;
    let outbound = listen(&subject, 15001)?;
    let _client = apps::connect(&subject, at(&other, 8080))?;
    assert_eq!(accept(&outbound)?.1, at(&other, 8080));
    let app = apps::serve_http(&subject, 8080)?;
    assert_eq!(apps::http_get(&other, app.address())?.told("pod"), Some("subject"));
    Ok(())
}

fn redirected() -> Outcome {
    let Pair { subject, other, .. } = pair(Capture::Redirected)?;
    let listener = listen(&subject, 15001)?;
    let _client = apps::connect(&subject, at(&other, 80))?;
    assert_eq!(accept(&listener)?.1, at(&other, 80));
    Ok(())
}

fn congestion() -> Outcome {
    let mesh = Mesh::new()?;
    let node = mesh.add_node("a")?;
    let subject = node.add_pod(PodSpec::new("subject", "shop", "front", Capture::Redirected))?;
    let neighbour = node.add_pod(PodSpec::new("neighbour", "shop", "cart", Capture::Off))?;
    let far = mesh.add_node("b")?.add_pod(PodSpec::new("far", "shop", "cart", Capture::Off))?;
    let is_reno = |stream: &TcpStream| SockRef::from(stream).tcp_congestion().map(|name| name.starts_with(b"reno"));
    // Every kernel has reno; it is nobody's default.
    subject.set_congestion_control("reno")?;
    let outbound = listen(&subject, 15001)?;
    for pod in [&neighbour, &far] {
        assert!(is_reno(&apps::connect(&subject, at(pod, 80))?)?, "the app's end towards {}", pod.name());
        assert!(is_reno(&accept(&outbound)?.0)?, "the proxy's end");
    }
    let tunnels = listen(&subject, 15008)?;
    for pod in [&neighbour, &far] {
        assert!(!is_reno(&apps::connect(pod, at(&subject, 15008))?)?, "{} is left alone", pod.name());
        assert!(is_reno(&accept(&tunnels)?.0)?, "accepted from {}", pod.name());
    }
    Ok(())
}

fn inbound() -> Outcome {
    let Pair { subject, other, .. } = pair(Capture::Enrolled)?;
    let plaintext = listen(&subject, 15006)?;
    let app = listen(&subject, 8080)?;
    let _client = apps::connect(&other, at(&subject, 8080))?;
    assert_eq!(accept(&plaintext)?.1, at(&subject, 8080));
    nobody_came(&app)
}

fn tunnels() -> Outcome {
    let Pair { subject, other, .. } = pair(Capture::Enrolled)?;
    let plaintext = listen(&subject, 15006)?;
    let tunnels = listen(&subject, 15008)?;
    let _client = apps::connect(&other, at(&subject, 15008))?;
    tunnels.set_nonblocking(true)?;
    let (stream, peer) = tunnels.accept()?;
    assert_eq!((stream.local_addr()?, peer.ip()), (at(&subject, 15008), other.ip()));
    nobody_came(&plaintext)
}

/// A socket as ztunnel makes it, in a pod.
fn ztunnel_socket(pod: &Pod) -> io::Result<Socket> {
    let socket = pod.run(|| Socket::new(Domain::IPV4, Type::STREAM, None))??;
    socket.set_mark(ZTUNNEL_MARK)?;
    Ok(socket)
}

fn marked() -> Outcome {
    let Pair { subject, other, .. } = pair(Capture::Enrolled)?;
    let outbound = listen(&subject, 15001)?;
    let target = listen(&other, 8080)?;
    let socket = ztunnel_socket(&subject)?;
    socket.connect_timeout(&at(&other, 8080).into(), DEADLINE)?;
    target.set_nonblocking(true)?;
    assert_eq!(target.accept()?.1.ip(), subject.ip());
    nobody_came(&outbound)
}

fn spoofed() -> Outcome {
    let Pair { subject, other, .. } = pair(Capture::Enrolled)?;
    let (plaintext, outbound) = (listen(&subject, 15006)?, listen(&subject, 15001)?);
    let app: Server = apps::serve_echo(&subject, 8080)?;
    let socket = ztunnel_socket(&subject)?;
    socket.set_ip_transparent_v4(true)?;
    socket.set_freebind_v4(true)?;
    socket.bind(&SocketAddr::new(other.ip(), 0).into())?;
    socket.connect_timeout(&at(&subject, 8080).into(), DEADLINE)?;
    let mut stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(b"are you there?")?;
    let mut reply = [0; 14];
    stream.read_exact(&mut reply)?;
    assert_eq!(&reply, b"are you there?");
    assert_eq!(app.peers().iter().map(SocketAddr::ip).collect::<Vec<IpAddr>>(), [other.ip()]);
    nobody_came(&plaintext)?;
    nobody_came(&outbound)
}

fn to_itself() -> Outcome {
    let Pair { subject, .. } = pair(Capture::Enrolled)?;
    let (plaintext, outbound) = (listen(&subject, 15006)?, listen(&subject, 15001)?);
    let app = apps::serve_http(&subject, 8080)?;
    for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), subject.ip()] {
        assert_eq!(apps::http_get(&subject, SocketAddr::new(ip, app.address().port()))?.told("pod"), Some("subject"));
    }
    nobody_came(&outbound)?;
    nobody_came(&plaintext)
}

fn dns() -> Outcome {
    let mesh = Mesh::new()?;
    let node = mesh.add_node("a")?;
    let server: SocketAddr = "10.96.0.10:53".parse()?;
    for (name, capture, port) in [("captured", DnsCapture::On, 15053), ("not-captured", DnsCapture::Off, 15001)] {
        let pod = node.add_pod(PodSpec::new(name, "shop", "front", Capture::Enrolled).dns(capture))?;
        let listener = listen(&pod, port)?;
        let _client = apps::connect(&pod, server)?;
        assert_eq!(accept(&listener)?.1, server);
    }
    Ok(())
}

fn tap() -> Outcome {
    let Pair { mesh, subject, other } = pair(Capture::Off)?;
    let neighbour = subject.node().add_pod(PodSpec::new("neighbour", "shop", "cart", Capture::Off))?;
    let tap = mesh.tap()?;
    let (near, far) = (apps::serve_echo(&neighbour, 8080)?, apps::serve_echo(&other, 9090)?);
    apps::exchange(&subject, near.address(), b"between neighbours")?;
    apps::exchange(&subject, far.address(), b"between nodes")?;
    assert!(tap.contains(b"between nodes") && tap.saw_tcp_port(9090));
    assert!(!tap.contains(b"between neighbours") && !tap.saw_tcp_port(8080));
    assert!(!tap.saw_tls_application_data());
    apps::exchange(&subject, far.address(), &[23, 3, 3, 0, 1, 0])?;
    assert!(tap.saw_tls_application_data());
    assert!(tap.is_complete());
    Ok(())
}

fn command() -> Outcome {
    let Pair { subject, .. } = pair(Capture::Off)?;
    let addresses = |mut command: Command| -> Result<String, Box<dyn Error>> {
        Ok(String::from_utf8(command.arg("/proc/self/net/fib_trie").output()?.stdout)?)
    };
    let own = subject.ip().to_string();
    assert!(addresses(subject.command("/bin/cat"))?.contains(&own));
    let outside = addresses(Command::new("/bin/cat"))?;
    assert!(outside.contains("127.0.0.1") && !outside.contains(&own), "{outside}");
    Ok(())
}

fn two_meshes() -> Outcome {
    let (one, two) = (pair(Capture::Off)?, pair(Capture::Off)?);
    assert_ne!(one.subject.netns_path(), two.subject.netns_path());
    let app = apps::serve_http(&two.other, 8080)?;
    assert_eq!(apps::http_get(&two.subject, app.address())?.told("pod"), Some("other"));
    assert!(apps::http_get(&one.subject, app.address()).is_err(), "the meshes are not apart");
    let directory = one.mesh.directory().to_owned();
    assert!(directory.exists());
    drop(one);
    assert!(!directory.exists());
    Ok(())
}
