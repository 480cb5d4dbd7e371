//! Starts, ends, and what is wrong with the set-up.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output, Stdio};

use rustix::thread::UnshareFlags;
use testkit::apps::{connect, exchange, http_get, serve_echo, serve_http};
use testkit::harness::{Test, test};
use testkit::mesh::{Capture, Mesh, PodSpec};
use testkit::netns::NetNs;

use super::{DEADLINE, Outcome, TwoNodes, at, eventually, metric, spec, two_nodes};

pub fn tests() -> Vec<Test> {
    vec![
        two_nodes("SIGTERM lets open connections finish, takes no new ones, and ends with status 0", |mesh| {
            let _echo = serve_echo(&mesh.server, 9000)?;
            let mut open = connect(&mesh.client, at(&mesh.server, 9000))?;
            open.write_all(b"x")?;
            open.read_exact(&mut [0])?;
            mesh.zt_a.terminate()?;
            mesh.zt_a.wait_for_log("received signal SIGTERM, starting shutdown", DEADLINE)?;
            eventually("no new connection is taken", || {
                exchange(&mesh.client, at(&mesh.server, 9000), b"new").is_err()
            })?;
            let answer = mesh.zt_a.http_get(15021, "/healthz/ready")?;
            assert_eq!((answer.status, answer.body.as_str()), (500, "not ready, draining\n"));
            open.write_all(b"still here")?;
            open.read_exact(&mut [0; 10])?;
            drop(open);
            let TwoNodes { mut zt_a, zt_b: _zt_b, .. } = mesh;
            assert!(zt_a.wait(DEADLINE)?.success());
            assert!(zt_a.logs().contains("shutdown complete"));
            Ok(())
        }),
        test("a drain that takes too long is cut short, and says so", || {
            let spec = spec().env("CONNECTION_TERMINATION_DEADLINE", "200ms");
            let mesh = TwoNodes::start_with(&spec)?;
            let _echo = serve_echo(&mesh.server, 9000)?;
            let mut open = connect(&mesh.client, at(&mesh.server, 9000))?;
            open.write_all(b"x")?;
            open.read_exact(&mut [0])?;
            let TwoNodes { zt_a, zt_b: _zt_b, .. } = mesh;
            zt_a.terminate()?;
            zt_a.wait_for_log("drain duration expired with pending connections", DEADLINE)?;
            zt_a.wait_for_log("error=\"connection closed due to connection drain\"", DEADLINE)?;
            assert_eq!(open.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
            assert!(zt_a.stop(DEADLINE)?.success());
            Ok(())
        }),
        two_nodes("a pod that is removed is cut off and its neighbours are not", |mesh| {
            let neighbour = mesh.enrol(&mesh.b, "neighbour", "near")?;
            let _apps = (serve_echo(&mesh.server, 9000)?, serve_http(&neighbour, 8080)?);
            let mut open = connect(&mesh.client, at(&mesh.server, 9000))?;
            open.write_all(b"x")?;
            open.read_exact(&mut [0])?;
            mesh.b.remove_pod(&mesh.server)?;
            assert_eq!(open.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
            let late = exchange(&mesh.client, at(&mesh.server, 9000), b"x");
            assert!(late.is_err(), "nobody serves it now: {late:?}");
            assert!(http_get(&mesh.client, at(&neighbour, 8080)).is_ok());
            Ok(())
        }),
        two_nodes(
            "peers are asked to leave a pod that is about to end, and what they have under way goes on",
            |mesh| {
                let _echo = serve_echo(&mesh.server, 9000)?;
                let tunnels = || metric(&mesh.zt_b, "istio_hbone_tunnels_open", &["destination"]).unwrap_or_default();
                let mut open = connect(&mesh.client, at(&mesh.server, 9000))?;
                open.write_all(b"x")?;
                open.read_exact(&mut [0])?;
                assert_eq!(tunnels(), 1);
                mesh.mesh.control_plane().update(|plane| plane.unhealthy.extend(["server".to_owned()]))?;
                mesh.zt_b.wait_for_log("pod is unhealthy or about to end", DEADLINE)?;
                eventually("new connections come through another tunnel", || {
                    exchange(&mesh.client, at(&mesh.server, 9000), b"new").is_ok() && tunnels() == 2
                })?;
                open.write_all(b"still here")?;
                open.read_exact(&mut [0; 10])?;
                drop(open);
                eventually("the first tunnel ends with its last connection", || tunnels() == 1)?;
                let mut open = connect(&mesh.client, at(&mesh.server, 9000))?;
                open.write_all(b"x")?;
                open.read_exact(&mut [0])?;
                mesh.b.remove_pod(&mesh.server)?;
                assert_eq!(open.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
                mesh.zt_b.wait_for_log("error=\"connection closed due to connection drain\"", DEADLINE)?;
                Ok(())
            },
        ),
        two_nodes("the dump shows pods, workloads, certificates and settings", |mesh| {
            let _app = serve_http(&mesh.server, 8080)?;
            http_get(&mesh.client, at(&mesh.server, 8080))?;
            let dump: serde_json::Value = serde_json::from_str(&mesh.zt_a.http_get(15000, "/config_dump")?.body)?;
            let names = |list: &str, key: &str| -> Vec<String> {
                let items = dump[list].as_array().cloned().unwrap_or_default();
                items.iter().filter_map(|item| item[key].as_str().map(str::to_owned)).collect()
            };
            assert_eq!(names("certificates", "identity"), ["spiffe://cluster.local/ns/shop/sa/front"]);
            assert_eq!(names("certificates", "state"), ["Available"]);
            assert!(names("workloads", "name").contains(&"server".to_owned()));
            let state = &dump["workloadState"][mesh.client.zds_uid()];
            assert_eq!((&state["state"], &state["info"]["name"]), (&"Up".into(), &"client".into()));
            assert_eq!(dump["config"]["localNode"], "a");
            Ok(())
        }),
        test("a ztunnel in dedicated mode serves its own pod", || {
            let mesh = Mesh::new()?;
            let (a, b) = (mesh.add_node("a")?, mesh.add_node("b")?);
            let client = a.add_pod(PodSpec::new("client", "shop", "front", Capture::Dedicated))?;
            let server = b.add_pod(PodSpec::new("server", "shop", "cart", Capture::Enrolled))?;
            let (zt_a, zt_b) = (client.start_dedicated_ztunnel(&spec())?, b.start_ztunnel(&spec())?);
            zt_a.wait_ready(DEADLINE)?;
            zt_b.wait_ready(DEADLINE)?;
            let _app = serve_http(&server, 8080)?;
            let answer = http_get(&client, at(&server, 8080))?;
            assert!(answer.told("peer").unwrap_or_default().starts_with(&format!("{}:", client.ip())));
            zt_b.wait_for_log("src.identity=\"spiffe://cluster.local/ns/shop/sa/front\"", DEADLINE)?;
            Ok(())
        }),
        test("what is wrong with the set-up is said in one line that names it, and the status is not 0", || {
            let file = std::env::temp_dir().join(format!("broken-{}.yaml", std::process::id()));
            std::fs::write(&file, "workloads: [{uid: a, nmae: b}]")?;
            let broken = file.to_string_lossy().into_owned();
            for (variables, parts) in [
                (&[("LOCAL_XDS_PATH", broken.as_str())][..], &[broken.as_str(), "unknown field `nmae`"][..]),
                (&[("LOCAL_XDS_PATH", "/nowhere.yaml")], &["/nowhere.yaml", "No such file"]),
                (&[("HTTP2_FRAME_SIZE", "1")], &["HTTP2_FRAME_SIZE=1", "16384 to 16777215"]),
                (&[("PROXY_MODE", "both")], &["PROXY_MODE=both", "dedicated, shared"]),
                (&[("XDS_ADDRESS", "http://istiod:15010")], &["XDS_ADDRESS=http://istiod:15010", "https://HOST:PORT"]),
                (&[("FAKE_CA", "false"), ("CA_ADDRESS", "")], &["CA_ADDRESS=", "FAKE_CA=true"]),
            ] {
                let output = failing_start(&own_network()?, variables)?;
                let error = String::from_utf8(output.stderr)?;
                assert!(!output.status.success(), "{variables:?}");
                assert_eq!(error.trim_end().lines().count(), 1, "{variables:?}: {error}");
                assert!(error.starts_with("Error: ") && parts.iter().all(|part| error.contains(part)), "{error}");
            }
            std::fs::remove_file(file)?;
            Ok(())
        }),
        test("a supervisor hears that ztunnel serves, that it is alive, and that it ends", || {
            let mesh = Mesh::new()?;
            let pod = mesh.add_node("a")?.add_pod(PodSpec::new("alone", "shop", "front", Capture::Dedicated))?;
            let path = mesh.directory().join("notify");
            let heard = UnixDatagram::bind(&path)?;
            heard.set_read_timeout(Some(DEADLINE))?;
            let next = || -> Outcome<String> {
                let mut text = [0; 128];
                let length = heard.recv(&mut text)?;
                Ok(String::from_utf8(text[..length].to_vec())?)
            };
            let path = path.to_str().ok_or("no text")?;
            let zt = pod.start_dedicated_ztunnel(&spec().env("NOTIFY_SOCKET", path).env("WATCHDOG_USEC", "300000"))?;
            for awaited in ["READY=1", "WATCHDOG=1", "WATCHDOG=1"] {
                while !next()?.starts_with(awaited) {}
            }
            zt.terminate()?;
            while !next()?.starts_with("STOPPING=1") {}
            Ok(())
        }),
        test("an occupied port is named with what to do about it", || {
            for port in [15000, 15020, 15021, 15008, 15006, 15001] {
                let network = own_network()?;
                let taken = network.run(|| std::net::TcpListener::bind(("127.0.0.1", port)))??;
                let dedicated = [("PROXY_MODE", "dedicated"), ("PROXY_WORKLOAD_INFO", "default/local/default")];
                let output = failing_start(&network, &dedicated)?;
                drop(taken);
                let error = String::from_utf8(output.stderr)?;
                assert!(!output.status.success() && error.trim_end().lines().count() == 1, "{error}");
                assert!(
                    error.contains(&format!(":{port}")) && error.contains("another process listens there"),
                    "{error}"
                );
            }
            Ok(())
        }),
        test("a missing capability is named", || {
            let mut command = prepared(&own_network()?, &[("INPOD_UDS", "/nowhere/ztunnel.sock")]);
            let output = without_capabilities(&mut command)?;
            let error = String::from_utf8(output.stderr)?;
            assert!(!output.status.success() && error.trim_end().lines().count() == 1, "{error}");
            assert!(error.contains("CAP_SYS_ADMIN"), "{error}");
            Ok(())
        }),
        test("the version is one line", || {
            let output = Command::new(env!("CARGO_BIN_EXE_ztunnel")).arg("version").output()?;
            let text = String::from_utf8(output.stdout)?;
            assert!(
                output.status.success()
                    && text.starts_with("version.BuildInfo{Version:\"")
                    && text.lines().count() == 1
            );
            Ok(())
        }),
    ]
}

/// A network that no other test listens in, with a loopback interface.
fn own_network() -> Outcome<NetNs> {
    let network = NetNs::new()?;
    network.run(|| testkit::link::set_up("lo"))??;
    Ok(network)
}

/// A command that starts the program with settings that would do for a demonstration, and these.
fn prepared(network: &NetNs, variables: &[(&str, &str)]) -> Command {
    let mut command = network.command(env!("CARGO_BIN_EXE_ztunnel"));
    command.env_clear().envs([("FAKE_CA", "true"), ("XDS_ADDRESS", "")]).envs(variables.iter().copied());
    command
}

/// Runs a start that cannot succeed. It ends by itself; the harness' own time limit is the last resort.
fn failing_start(network: &NetNs, variables: &[(&str, &str)]) -> Outcome<Output> {
    Ok(prepared(network, variables).stdin(Stdio::null()).output()?)
}

/// Runs a command without any capability over the namespaces that it finds itself in.
fn without_capabilities(command: &mut Command) -> Outcome<Output> {
    use std::os::unix::process::CommandExt;
    // Whoever enters a user namespace leaves the power over everything outside it behind.
    let leave = || Ok(unshare(UnshareFlags::NEWUSER)?);
    // SAFETY: the closure runs in the child between fork and exec and does nothing but one system call.
    unsafe { command.pre_exec(leave) };
    Ok(command.stdin(Stdio::null()).output()?)
}

fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: a new user namespace changes what the process may do and nothing that memory depends on.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}
