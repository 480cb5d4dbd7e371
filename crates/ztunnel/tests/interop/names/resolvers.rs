//! `dig`, glibc and musl in a pod: each has to come to the right addresses for the whole list of names.
//!
//! They run with a `resolv.conf` as a kubelet writes it, so that it is they who append search domains.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::harness::{Test, test};

use super::upstreams::Server;
use super::{Named, output, unused_folder, v6};
use crate::Outcome;

/// A program that prints what musl's `getaddrinfo` and `getnameinfo` say.
const MUSL_PROGRAM: &str = include_str!("resolve.c");

/// A name and its addresses of both families.
type Entry = (String, Vec<IpAddr>);

/// Names of the mesh in all ways to write them, names of upstreams, and names that nobody has.
fn list(mesh: &Named) -> Vec<Entry> {
    let cart = vec![[10, 96, 0, 1].into(), v6(1).into()];
    let web = vec![[10, 96, 0, 3].into(), v6(3).into()];
    let endpoints: Vec<IpAddr> = mesh.backends.iter().flat_map(|pod| pod.ips().to_vec()).collect();
    let first = mesh.backends[0].ips().to_vec();
    let dashed = first[0].to_string().replace('.', "-");
    let names = |names: &[&str], addresses: &[IpAddr]| -> Vec<Entry> {
        names.iter().map(|name| ((*name).to_owned(), addresses.to_vec())).collect()
    };
    [
        names(
            &["cart", "cart.shop", "cart.shop.svc", "cart.shop.svc.cluster.local", "CaRt.shop.svc.Cluster.local."],
            &cart,
        ),
        names(&["web.other", "web.other.svc.cluster.local"], &web),
        names(&["four"], &[[10, 96, 0, 2].into()]),
        names(&["db", "db.shop.svc.cluster.local"], &endpoints),
        names(&["db-0.db", "db-0.db.shop.svc.cluster.local"], &first),
        names(&[&format!("{dashed}.db.shop.svc.cluster.local"), &format!("{dashed}.shop.pod.cluster.local")], &first),
        names(&["entry.elsewhere.example"], &[[10, 96, 0, 4].into()]),
        names(&["a.wild.example", "a.b.wild.example"], &[[10, 96, 0, 5].into()]),
        names(&["host.nsec.example", "alias.nsec.example"], &[[192, 0, 2, 1].into(), v6(0x2001).into()]),
        names(&["web", "cart.other", "wild.example", "absent.nsec.example", "absent.shop.svc.cluster.local"], &[]),
    ]
    .concat()
}

/// A command in the pod that finds `resolv_conf` where resolvers look for it.
fn in_pod(mesh: &Named, resolv_conf: &Path, words: &[&str]) -> Command {
    let mut command = mesh.asker.command("unshare");
    command.args(["--mount", "sh", "-c", "mount --bind \"$1\" /etc/resolv.conf && shift && exec \"$@\"", "sh"]);
    command.arg(resolv_conf).args(words);
    command
}

fn addresses(text: &str) -> BTreeSet<IpAddr> {
    text.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect()
}

/// What a program prints, whether or not it found something.
fn said(mut command: Command) -> Outcome<String> {
    Ok(String::from_utf8_lossy(&command.output()?.stdout).into_owned())
}

/// Has every name of the list, and the reverse of some, found by `forward` and `reverse`.
fn all_are_found(
    mesh: &Named,
    forward: impl Fn(&str) -> Outcome<String>,
    reverse: impl Fn(&IpAddr) -> Outcome<String>,
) -> Outcome {
    for (name, wanted) in list(mesh) {
        assert_eq!(addresses(&forward(&name)?), wanted.into_iter().collect(), "{name}");
    }
    let cart = "cart.shop.svc.cluster.local";
    for (ip, name) in [
        (IpAddr::from([10, 96, 0, 1]), cart),
        (v6(1).into(), cart),
        ([10, 96, 0, 4].into(), "entry.elsewhere.example"),
        (mesh.backends[1].ip(), "db-1.db.shop.svc.cluster.local"),
    ] {
        let text = reverse(&ip)?;
        assert!(text.contains(name), "{ip}: {text:?}");
    }
    Ok(())
}

/// A mesh, a server for everything else, and the file that names it.
fn prepared() -> Outcome<(Named, Server, PathBuf)> {
    let mesh = Named::start()?;
    let unbound = Server::unbound(&mesh.servers[0])?;
    let resolv_conf = unused_folder()?.join("resolv.conf");
    let search = "search shop.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5";
    fs::write(&resolv_conf, format!("nameserver {}\n{search}\n", unbound.address().ip()))?;
    Ok((mesh, unbound, resolv_conf))
}

pub fn tests() -> Vec<Test> {
    vec![
        test("dig finds every name of the list", || {
            let (mesh, _unbound, resolv_conf) = prepared()?;
            let dig = |words: &[&str]| -> Outcome<String> {
                let all = [&["dig", "+search", "+short", "+tries=1", "+time=5"][..], words].concat();
                output(in_pod(&mesh, &resolv_conf, &all))
            };
            for transport in ["+notcp", "+tcp"] {
                let both = |name: &str| Ok([dig(&[transport, name, "A"])?, dig(&[transport, name, "AAAA"])?].concat());
                all_are_found(&mesh, both, |ip| dig(&[transport, "-x", &ip.to_string()]))?;
            }
            Ok(())
        }),
        test("glibc's resolver finds every name of the list", || {
            let (mesh, _unbound, resolv_conf) = prepared()?;
            let getent = |words: &[&str]| said(in_pod(&mesh, &resolv_conf, &[&["getent"][..], words].concat()));
            let one_family =
                |name: &str| Ok([getent(&["ahostsv4", name])?, v6_only(&getent(&["ahostsv6", name])?)].concat());
            all_are_found(&mesh, one_family, |ip| getent(&["hosts", &ip.to_string()]))?;
            // Both families in one call, which asks for them at the same time from one socket.
            all_are_found(&mesh, |name| getent(&["ahosts", name]), |ip| getent(&["hosts", &ip.to_string()]))
        }),
        test("musl's resolver finds every name of the list", || {
            let (mesh, _unbound, resolv_conf) = prepared()?;
            let folder = unused_folder()?;
            let (source, program) = (folder.join("resolve.c"), folder.join("resolve"));
            fs::write(&source, MUSL_PROGRAM)?;
            let mut compiler = Command::new("musl-gcc");
            compiler.args(["-static", "-O1", "-o"]).arg(&program).arg(&source);
            output(compiler)?;
            let program = program.to_str().ok_or("the folder has no name")?;
            let resolve = |word: &str| said(in_pod(&mesh, &resolv_conf, &[program, word]));
            all_are_found(&mesh, |name| resolve(name), |ip| resolve(&ip.to_string()))
        }),
    ]
}

/// Without IPv4 addresses in IPv6's clothes, which glibc tells where there are no others.
fn v6_only(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with("::ffff:")).map(|line| format!("{line}\n")).collect()
}
