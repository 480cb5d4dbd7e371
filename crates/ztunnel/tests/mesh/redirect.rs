//! `ztunnel redirect` programs what leads traffic to a ztunnel, and takes exactly that away.

use std::io::Error;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use socket2::SockRef;
use testkit::apps::{connect, exchange, serve_echo};
use testkit::harness::{Test, test};
use testkit::mesh::{Capture, Mesh, Pod, PodSpec};
use testkit::redirect::netlink::{Family, Message, Socket};
use testkit::redirect::nft::list;

use super::{DEADLINE, Outcome, access_lines, at, eventually, spec};

/// A user who owns nothing.
const SOMEBODY: &str = "4242";
/// Who runs tests, in the sandbox's eyes.
const OURSELVES: &str = "root";

pub fn tests() -> Vec<Test> {
    vec![
        test("a host is redirected, served by a dedicated ztunnel, and left without a trace", || {
            let (_mesh, host, server) = host_and_server()?;
            let _echo = serve_echo(&server, 9000)?;
            let before = traces(&host)?;
            redirect(&host, &["install", "host", "--dns", "--inbound", "9000"])?;
            redirect(&host, &["install", "host", "--inbound", "9000"])?;
            let mut zt = host.start_dedicated_ztunnel(&spec())?;
            zt.wait_ready(DEADLINE)?;
            assert_eq!(exchange(&host, at(&server, 9000), b"out")?, b"out");
            eventually("the connection out is recorded", || {
                !access_lines(&zt, &["direction=\"outbound\""]).is_empty()
            })?;
            // Plaintext comes in by ztunnel, which keeps the client's address; replies find their way back.
            let app = serve_echo(&host, 9000)?;
            assert_eq!(exchange(&server, at(&host, 9000), b"in")?, b"in");
            assert_eq!(app.peers().iter().map(SocketAddr::ip).collect::<Vec<_>>(), [server.ip()]);
            eventually("the connection in is recorded", || !access_lines(&zt, &["direction=\"inbound\""]).is_empty())?;
            let shown = redirect(&host, &["show"])?;
            assert!(shown.starts_with("by `ztunnel redirect install host --inbound 9000`\n"), "{shown}");
            let told: serde_json::Value = serde_json::from_str(&redirect(&host, &["show", "--json"])?)?;
            let rules = told["rules"].as_array().ok_or("no rules")?;
            let used = |purpose: &str| rules.iter().any(|rule| rule["purpose"] == purpose && rule["packets"] != 0);
            assert!(
                used("what apps open goes to ztunnel") && used("plaintext for port 9000 goes to ztunnel"),
                "{told}"
            );
            assert!(!shown.contains("name queries"), "the second installation takes the place of the first: {shown}");
            zt.terminate()?;
            assert!(zt.wait(DEADLINE)?.success());
            assert_eq!(redirect(&host, &["remove"])?, "removed\n");
            assert_eq!(traces(&host)?, before);
            assert_eq!(redirect(&host, &["remove"])?, "nothing was installed here\n");
            Ok(())
        }),
        test("of a user's connections all are redirected, of others' none", || {
            let (_mesh, host, server) = host_and_server()?;
            let listener = host.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 15001)))??;
            let app = serve_echo(&server, 9000)?;
            redirect(&host, &["install", "user", SOMEBODY])?;
            exchange(&host, at(&server, 9000), b"another user")?;
            redirect(&host, &["install", "user", OURSELVES])?;
            for target in [at(&server, 9000), "127.10.0.1:80".parse()?] {
                let _client = connect(&host, target)?;
                let (stream, _) = listener.accept()?;
                assert_eq!(SockRef::from(&stream).original_dst_v4()?.as_socket(), Some(target));
            }
            assert_eq!(app.peers().len(), 1);
            Ok(())
        }),
        test(
            "a pod is redirected by the name of its namespace, and one that the node agent redirects is left alone",
            || {
                let (mesh, subject, other) = host_and_server()?;
                let netns = subject.netns_path();
                let netns = netns.to_str().ok_or("no text")?;
                let before = traces(&subject)?;
                redirect(&other, &["install", "pod", netns, "--dns"])?;
                let plaintext = subject.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 15006)))??;
                let _client = connect(&other, at(&subject, 80))?;
                let (stream, peer) = plaintext.accept()?;
                assert_eq!(
                    (SockRef::from(&stream).original_dst_v4()?.as_socket(), peer.ip()),
                    (Some(at(&subject, 80)), other.ip())
                );
                redirect(&other, &["remove", netns])?;
                assert_eq!(traces(&subject)?, before);
                let enrolled =
                    mesh.add_node("b")?.add_pod(PodSpec::new("enrolled", "shop", "front", Capture::Enrolled))?;
                let before = traces(&enrolled)?;
                let error = redirect(&enrolled, &["install", "host"]).unwrap_err().to_string();
                assert!(error.contains("redirected already, by the node agent"), "{error}");
                assert_eq!(traces(&enrolled)?, before);
                Ok(())
            },
        ),
    ]
}

/// Two pods without any rules, the first of which stands for a host.
fn host_and_server() -> Outcome<(Mesh, Pod, Pod)> {
    let mesh = Mesh::new()?;
    let node = mesh.add_node("a")?;
    let host = node.add_pod(PodSpec::new("host", "shop", "front", Capture::Off))?;
    let server = node.add_pod(PodSpec::new("server", "shop", "cart", Capture::Off))?;
    Ok((mesh, host, server))
}

/// Runs the command in a pod; what it printed, or the one line that it ended with.
fn redirect(pod: &Pod, arguments: &[&str]) -> Outcome<String> {
    let output = pod.command(env!("CARGO_BIN_EXE_ztunnel")).arg("redirect").args(arguments).output()?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
    }
    let error = String::from_utf8(output.stderr)?;
    assert_eq!(error.lines().count(), 1, "{error}");
    Err(error.into())
}

/// Everything that redirection leaves in a namespace: tables, rules, and the heads of routing rules and of all routes.
type Traces = (Vec<list::Table>, Vec<list::Rule>, Vec<Vec<u8>>);

fn traces(pod: &Pod) -> Outcome<Traces> {
    Ok(pod.run(|| {
        let mut routing = Vec::new();
        for kind in [libc::RTM_GETRULE, libc::RTM_GETROUTE] {
            for family in [libc::AF_INET, libc::AF_INET6] {
                let mut head = [0; ROUTE_HEAD];
                head[0] = family as u8;
                let message = Message::list(kind, &head);
                Socket::open(Family::Route)?.list(&message, 0, |object| routing.push(object[..ROUTE_HEAD].to_vec()))?;
            }
        }
        routing.sort();
        let (tables, rules) = (list::tables().map_err(Error::other)?, list::rules().map_err(Error::other)?);
        Ok::<Traces, Error>((tables, rules, routing))
    })??)
}

/// `struct rtmsg` and `struct fib_rule_hdr`.
const ROUTE_HEAD: usize = 12;
