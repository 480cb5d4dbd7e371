//! The fields of access-log lines: the table that `docs/access-log.md` is printed from, and that a test holds lines
//! against.

/// All fields, in their order, each with what it says. Those from [`ADDED`] on are not the existing ztunnel's.
pub const FIELDS: &[(&str, &str)] = &[
    ("src.addr", "Address and port of the client."),
    ("src.workload", "Name of the client's pod, else its canonical service."),
    ("src.namespace", "Its namespace."),
    ("src.identity", "Its identity, if it is proven (mutual TLS)."),
    ("src.cluster", "Its cluster."),
    ("dst.addr", "The address that was connected; into pods, that at which the connection arrived."),
    ("dst.hbone_addr", "What was asked for in the tunnel, if there is one."),
    ("dst.service", "Host name of the service that was meant."),
    ("dst.workload", "Name of the next hop's pod: the endpoint, a waypoint or a gateway."),
    ("dst.namespace", "Its namespace."),
    ("dst.identity", "Its identity (mutual TLS)."),
    ("dst.cluster", "Its cluster."),
    ("direction", "`outbound` or `inbound`."),
    ("bytes_sent", "Bytes that the local pod sent."),
    ("bytes_recv", "Bytes that it received."),
    ("duration", "From opening to end, in whole milliseconds: `\"3ms\"`."),
    ("error", "What went wrong, in words."),
    ("reason", "The same as a code, which [troubleshooting](troubleshooting.md) explains."),
    ("peer_reason", "The code that the other ztunnel gave when it refused."),
    ("reset_by", "`client` or `server`: the app that aborted the connection."),
    ("policy", "The policy that decided, `namespace/name`, if any did."),
    ("rule", "Which of its rules matched, counted from 0."),
    ("stage", "How far the connection had come when it failed."),
    ("side", "Where to look: `app`, `local` or `peer`."),
    (
        "closed_first",
        "`client` or `server`: the app that ended first. Absent if neither had ended when the connection was cut.",
    ),
    ("tls_group", "The key exchange group of the tunnel's TLS, such as `X25519MLKEM768`."),
    (
        "app_rtt",
        "Round-trip time between ztunnel and the app, in microseconds: `\"35us\"`. Connections that failed or were slow only.",
    ),
    ("app_retransmits", "TCP segments that ztunnel has sent to the app more than once. Likewise."),
    ("peer_rtt", "Round-trip time between ztunnel and the next hop. Likewise."),
    (
        "peer_retransmits",
        "TCP segments that ztunnel has sent to the next hop more than once, in all of the tunnel's life. Likewise.",
    ),
];

/// The first field of our own.
pub const ADDED: &str = "reason";

/// `docs/access-log.md`.
#[must_use]
pub fn manual() -> String {
    let mut out = String::from(HEAD);
    let mut ours = false;
    for (name, meaning) in FIELDS {
        ours |= *name == ADDED;
        out += &format!("| `{name}` | {} | {meaning} |\n", if ours { "here" } else { "" });
    }
    out + TAIL
}

const HEAD: &str = "\
# Access log

One line for each connection when it ends, on standard output among the other lines of the log, under the target `access`:

- `connection complete` at level info, or at error with what went wrong;
- `connection failed` at warn, with `src.addr`, `dst.addr`, `direction` and what went wrong, if it was refused before it was
  known who talks to whom;
- `connection opened` at debug, with the fields up to `direction`.

`RUST_LOG=info,access=off` and the like choose among them, as does `/logging` while ztunnel runs. `LOG_FORMAT=json` makes
each line an object with the same keys.

The fields, in their order; what is not known is absent. This page is printed from the table in
`crates/ztunnel/src/telemetry/access_log/manual.rs` (`cargo xtask generate`). Where the second column is empty, the existing
ztunnel has the field too.

| field | | what it says |
|---|---|---|
";

const TAIL: &str = "
## Fewer lines

| setting | which connections have a line |
|---|---|
| `ACCESS_LOG_ERRORS_ONLY` | `true`: those that failed |
| `ACCESS_LOG_MIN_DURATION` | those that failed or lasted at least so long |
| `ACCESS_LOG_SAMPLE` | those that failed, and so many percent of the others; both ends log the same ones |
| `ACCESS_LOG_DIRECTION` | those of that direction, `inbound` or `outbound` |
| `ACCESS_LOG_NAMESPACES` | those of which one side is in one of these namespaces |

## Slow connections

The last four fields are the kernel's (`TCP_INFO`), read when a connection ends that failed or lasted at least
`ACCESS_LOG_SLOW` (10 s unless set); others are not looked at. A connection that was never answered has no socket towards the
next hop any more, one within a node (`SAME_NODE_DIRECT`) is not looked at, and one to another network shares its gateway's
tunnel, of which its own line does not tell.

## Elsewhere

`ACCESS_LOG_OTLP` sends those connections to a collector as well (OTLP logs over gRPC), with the same fields as attributes;
`RUST_LOG` has no say in that. Records that the collector does not take in time are dropped and counted in
`istio_access_log_records_dropped_total`.

`SPANS_OTLP` sends a span for each of them, with the same attributes: the ztunnel on the way out makes a trace, whose id the
ztunnel on the way in learns from the `traceparent` of the request (W3C Trace Context), so that both ends of a connection are
one trace. Drops are counted in `istio_spans_dropped_total`. Collectors with TLS (`https://`) are verified with the roots of
`OTLP_ROOT_CA`.

Metrics and the admin server tell of all connections whatever is chosen. A standard output that is not read does not hold up
traffic: lines are dropped, and `istio_log_lines_dropped_total` counts them.
";

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_is_that_of_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/access-log.md");
        let checked_in = std::fs::read_to_string(path).unwrap();
        assert!(checked_in == super::manual(), "docs/access-log.md is out of date: run `cargo xtask generate`");
    }
}
