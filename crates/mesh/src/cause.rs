//! Why connections do not come about, or fail: one table, of what each cause means to all who hear of it.
//!
//! The log, the metrics, the peer that asked, and `docs/troubleshooting.md`, which is written from this table, all say the
//! same. Invariant: a code stays what it is when the wording changes, and means one thing. How a connection that failed
//! is worded in full is up to those who know the circumstances: [`Refusal`](crate::Refusal) and what does I/O.

use crate::refusal::ResponseFlag;

/// The header of an HBONE response in which a ztunnel says why it refuses: a [code](Meaning::code).
pub const REASON_HEADER: &str = "x-ztunnel-reason";

/// The longest code, of ours or of another version, that is taken from a peer.
const MAX_CODE: usize = 40;

/// Why a connection did not come about, or failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A client of SOCKS5 does not say where it wants to go, or wants something that is not offered.
    SocksRequest,
    /// Resolving the host name that a client of SOCKS5 wants to go to failed.
    UnknownName,
    /// The destination is one of our own ports.
    Recursion,
    /// The control plane has not announced the workload that this instance stands for.
    UnknownLocalWorkload,
    /// The service addressed has no endpoint to offer.
    NoHealthyUpstream,
    /// Another network is reached by service only, and no service was addressed.
    NoService,
    /// The workload chosen cannot be reached from here.
    NoDestination,
    /// A waypoint that traffic has to go through cannot be resolved.
    UnknownWaypoint,
    /// The gateway of another network cannot be resolved.
    UnknownGateway,
    /// Resolving the host name of the workload chosen failed.
    Unresolved,
    /// The host name of the workload chosen has no address.
    NoAddressRecords,
    /// There was no certificate to present.
    NoCertificate,
    /// TLS could not be set up at all.
    TlsSetup,
    /// The next hop's host refused the connection or cannot be reached.
    DialFailed,
    /// The next hop's host did not answer in time.
    DialTimedOut,
    /// The app that the connection is for cannot be connected.
    AppUnreachable,
    /// The TLS handshake with the peer failed.
    TlsHandshake,
    /// The peer broke off, refused or violated the HTTP/2 conversation.
    Http2,
    /// The peer answered the request with a status other than 200.
    PeerRefused,
    /// The tunnel that carried the connection was lost.
    TunnelLost,
    /// The certificate of the peer of the tunnel that carried the connection was revoked.
    Revoked,
    /// The TLS handshake with the gateway of another network failed.
    GatewayTls,
    /// The gateway of another network answered with a status other than 200.
    GatewayRefused,
    /// The gateway of another network, or the way to it, broke off what it carried.
    GatewayLost,
    /// The TLS handshake with the far end behind the gateway of another network failed.
    FarTls,
    /// The socket of the app on this side failed.
    AppLost,
    /// A plain connection failed while it was open.
    CopyFailed,
    /// A connection that had ended in one direction carried nothing in the other for too long.
    HalfClosed,
    /// The request's method is not CONNECT.
    NotConnect,
    /// The request's authority names no host and port.
    NoAuthority,
    /// The address asked for is not served here.
    IpMismatch,
    /// The host name asked for is no service's.
    UnknownHostname,
    /// The service port asked for leads to no port of the local workload.
    UnresolvablePort,
    /// The app wants to be told an address that was asked for, and the service has none.
    NoVip,
    /// Authorization policies do not allow the connection.
    Denied,
    /// Authorization policies no longer allow a connection that they had allowed.
    NoLongerAllowed,
}

/// What a cause means to each of those who hear of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// A short name that stays the same when the wording does not.
    pub code: &'static str,
    /// At which step of a connection's life it happens.
    pub stage: Stage,
    /// Where the cause is to be looked for.
    pub side: Side,
    /// The label that metrics get.
    pub flag: ResponseFlag,
    /// The HTTP status that an HBONE peer gets, if there is one to be told.
    pub status: u16,
    /// The wording of the log, with `…` for what differs.
    pub wording: &'static str,
    /// What to do about it.
    pub hint: &'static str,
}

impl Cause {
    /// All of them, in the order in which they may happen to a connection: on its way out, then on its way in.
    pub const ALL: &'static [Self] = &[
        Self::SocksRequest,
        Self::UnknownName,
        Self::Recursion,
        Self::UnknownLocalWorkload,
        Self::NoHealthyUpstream,
        Self::NoService,
        Self::NoDestination,
        Self::UnknownWaypoint,
        Self::UnknownGateway,
        Self::Unresolved,
        Self::NoAddressRecords,
        Self::NoCertificate,
        Self::TlsSetup,
        Self::DialFailed,
        Self::DialTimedOut,
        Self::AppUnreachable,
        Self::TlsHandshake,
        Self::Http2,
        Self::PeerRefused,
        Self::TunnelLost,
        Self::Revoked,
        Self::GatewayTls,
        Self::GatewayRefused,
        Self::GatewayLost,
        Self::FarTls,
        Self::AppLost,
        Self::CopyFailed,
        Self::HalfClosed,
        Self::NotConnect,
        Self::NoAuthority,
        Self::IpMismatch,
        Self::UnknownHostname,
        Self::UnresolvablePort,
        Self::NoVip,
        Self::Denied,
        Self::NoLongerAllowed,
    ];

    /// The cause's row in the table.
    pub fn meaning(self) -> Meaning {
        use ResponseFlag::{CertRevoked, Connect, Deny, H2HandshakeFailure, IdentityError, NetworkPolicy, TlsFailure};
        #[rustfmt::skip]
        let (code, stage, side, flag, status, wording, hint) = match self {
            Self::SocksRequest => ("socks-request", Stage::Request, Side::App, Connect, 400,
                "failed to negotiate socks connection: …",
                "The app has to speak SOCKS5 without authentication to port 15080, and to ask for CONNECT."),
            Self::UnknownName => ("unknown-name", Stage::Dns, Side::App, Connect, 503,
                "dns: …",
                "The host name that the app asked SOCKS5 for is neither the mesh's nor known to the pod's resolvers."),
            Self::Recursion => ("recursion", Stage::Route, Side::App, Connect, 503,
                "attempted recursive call to ourselves",
                "A port of ztunnel itself was dialled; dial the app's port."),
            Self::UnknownLocalWorkload => ("unknown-local-workload", Stage::Route, Side::Local, Connect, 503,
                "failed to fetch information about local workload: …",
                "The control plane has not announced this pod; check that istiod sees it and is connected."),
            Self::NoHealthyUpstream => ("no-healthy-upstream", Stage::Route, Side::Local, Connect, 503,
                "no healthy upstream: …",
                "The service has no endpoint that is healthy, serves this port and may be used from here."),
            Self::NoService => ("no-service", Stage::Route, Side::App, Connect, 503,
                "no service for target address: …",
                "A workload of another network is reached only through a service; dial the service."),
            Self::NoDestination => ("no-destination", Stage::Route, Side::Local, Connect, 503,
                "no valid routing destination for workload: …",
                "The workload has neither a usable address nor a host name nor a network gateway."),
            Self::UnknownWaypoint => ("unknown-waypoint", Stage::Route, Side::Local, Connect, 503,
                "unknown waypoint: …",
                "Check that the waypoint exists, is ready and serves the port that is referred to."),
            Self::UnknownGateway => ("unknown-gateway", Stage::Route, Side::Local, Connect, 503,
                "unknown network gateway: …",
                "Check that the east-west gateway of the other network exists and serves its HBONE port."),
            Self::Unresolved => ("unresolved", Stage::Dns, Side::Local, Connect, 503,
                "no ip addresses were resolved for workload: …",
                "Check the endpoint's host name and the resolver of this node."),
            Self::NoAddressRecords => ("no-address-records", Stage::Dns, Side::Local, Connect, 503,
                "ip addresses were resolved for workload …, but valid dns response had no A/AAAA records",
                "The endpoint's host name exists but has no address of a usable family."),
            Self::NoCertificate => ("no-certificate", Stage::Tls, Side::Local, IdentityError, 503,
                "identity error: …",
                "The CA has not issued a certificate; look for its answers in this log, and at `istio_certificate_failures_total`."),
            Self::TlsSetup => ("tls-setup", Stage::Tls, Side::Local, TlsFailure, 503,
                "tls error: …",
                "The build or its compliance settings cannot offer what is asked for; compare `COMPLIANCE_POLICY` with the peer's."),
            Self::DialFailed => ("dial-failed", Stage::Connect, Side::Peer, Connect, 503,
                "io error: …",
                "Nothing listens at dst.addr, or the network does not lead there; for port 15008, check the ztunnel of the destination's node."),
            Self::DialTimedOut => ("dial-timed-out", Stage::Connect, Side::Peer, NetworkPolicy, 503,
                "connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008: …",
                "A firewall or a NetworkPolicy drops packets to dst.addr, or its host is down; allow port 15008 between pods of the mesh."),
            Self::AppUnreachable => ("app-unreachable", Stage::Connect, Side::App, Connect, 503,
                "connection failed: …",
                "The app does not listen at that port of its pod, or only on loopback."),
            Self::TlsHandshake => ("tls-handshake", Stage::Tls, Side::Peer, TlsFailure, 503,
                "io error: … / tls handshake error: …",
                "The peer's certificate is not of the identity or trust domain that is expected, or one side does not trust the other's root."),
            Self::Http2 => ("http2", Stage::Http2, Side::Peer, H2HandshakeFailure, 503,
                "h2 failed: … / io error: …",
                "The peer is overloaded, ends, or is no ztunnel, waypoint or gateway; look into its log."),
            Self::PeerRefused => ("peer-refused", Stage::Http2, Side::Peer, Connect, 503,
                "http status: …",
                "The peer's reason is in `peer_reason`, if it is a ztunnel that gives one; otherwise look into its log."),
            Self::TunnelLost => ("tunnel-lost", Stage::Copy, Side::Peer, Connect, 503,
                "io error: …",
                "The peer or its node has gone, or the network between the nodes has."),
            Self::Revoked => ("revoked", Stage::Tls, Side::Peer, CertRevoked, 503,
                "connection closed: peer certificate revoked by CRL",
                "A list at `CRL_PATH` names a certificate of the peer's chain; give the peer another one, or correct the list."),
            Self::GatewayTls => ("gateway-tls", Stage::Tls, Side::Peer, TlsFailure, 503,
                "io error: …",
                "The certificate of the other network's gateway at dst.addr is not of the identity that is expected of it, or one side does not trust the other's root."),
            Self::GatewayRefused => ("gateway-refused", Stage::Http2, Side::Peer, Connect, 503,
                "http status: …",
                "The other network's gateway does not know the service or has no endpoint for it; look into its log."),
            Self::GatewayLost => ("gateway-lost", Stage::Http2, Side::Peer, Connect, 503,
                "h2 failed: … / io error: …",
                "The other network's gateway ended the connection, did not carry it in time, or has gone; look into its log."),
            Self::FarTls => ("far-tls", Stage::Tls, Side::Peer, TlsFailure, 503,
                "io error: …",
                "Behind the other network's gateway: the destination's certificate is not of an identity of the service (its subject alternative names), the clusters do not trust each other's roots, or no ztunnel or waypoint answers there."),
            Self::AppLost => ("app-lost", Stage::Copy, Side::App, Connect, 503,
                "io error: …",
                "The app's host does not answer any more, or this process is out of descriptors or memory."),
            Self::CopyFailed => ("copy-failed", Stage::Copy, Side::App, Connect, 503,
                "send: … / receive: … / io error: …",
                "One of the two hosts does not answer any more: `send` is towards the server, `receive` towards the client."),
            Self::HalfClosed => ("half-closed", Stage::Copy, Side::App, Connect, 503,
                "one direction ended and the other carried nothing for … s (HALF_CLOSED_TIMEOUT)",
                "One app keeps a connection that the other has ended; `HALF_CLOSED_TIMEOUT` says for how long that may be."),
            Self::NotConnect => ("not-connect", Stage::Request, Side::Peer, Connect, 400,
                "expected method CONNECT, got …",
                "Only HBONE peers may use this port; they send CONNECT."),
            Self::NoAuthority => ("no-authority", Stage::Request, Side::Peer, Connect, 400,
                "no valid authority pseudo header: …",
                "The CONNECT request has to name an address or host name, and a port."),
            Self::IpMismatch => ("ip-mismatch", Stage::Request, Side::Peer, Connect, 400,
                "ip mismatch: … != …",
                "The peer asked this pod for an address of another one; its view of the mesh may be old."),
            Self::UnknownHostname => ("unknown-hostname", Stage::Request, Side::Peer, Connect, 503,
                "no service or workload for hostname: …",
                "No service of that host name is visible to the pod asked."),
            Self::UnresolvablePort => ("unresolvable-port", Stage::Request, Side::Peer, Connect, 503,
                "requested service … found, but cannot resolve port",
                "The service does not serve that port, or this pod does not define the named port."),
            Self::NoVip => ("no-vip", Stage::Request, Side::Local, Connect, 503,
                "requested service … found, but has no IP addresses",
                "An app that is handed the PROXY protocol can serve only services that have an address."),
            Self::Denied => ("denied", Stage::Authorize, Side::Peer, Deny, 401,
                "connection closed due to policy rejection: …",
                "An authorization policy of the destination does not allow this peer."),
            Self::NoLongerAllowed => ("no-longer-allowed", Stage::Authorize, Side::Peer, Deny, 401,
                "connection closed due to policy change",
                "An authorization policy of the destination changed while the connection was open."),
        };
        Meaning { code, stage, side, flag, status, wording, hint }
    }
}

impl Cause {
    /// The same, of the gateway of another network that was to carry a connection to its next hop.
    #[must_use]
    pub fn at_gateway(self) -> Self {
        match self {
            Self::TlsHandshake => Self::GatewayTls,
            Self::PeerRefused => Self::GatewayRefused,
            Self::Http2 | Self::TunnelLost => Self::GatewayLost,
            other => other,
        }
    }

    /// The same, of the far end behind such a gateway.
    #[must_use]
    pub fn behind_gateway(self) -> Self {
        match self {
            Self::TlsHandshake => Self::FarTls,
            other => other,
        }
    }

    /// Whether it happened at the far end of a tunnel, as opposed to on the way there or on this side.
    #[must_use]
    pub fn is_far(self) -> bool {
        matches!(self, Self::TlsHandshake | Self::FarTls | Self::Http2 | Self::PeerRefused | Self::TunnelLost)
    }
}

/// The reason that a peer gives in [`REASON_HEADER`], if it looks like one: what a log line can be trusted with.
pub fn peer_reason(header: &[u8]) -> Option<&str> {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    let fits = (1..=MAX_CODE).contains(&header.len()) && header.iter().all(plain);
    std::str::from_utf8(header).ok().filter(|_| fits)
}

/// The table for `docs/troubleshooting.md`, in Markdown.
pub fn manual() -> String {
    let mut out = String::from(MANUAL);
    for cause in Cause::ALL {
        let Meaning { code, stage, side, flag, status, wording, hint } = cause.meaning();
        let (stage, side, flag) = (stage.as_str(), side.as_str(), flag.as_str());
        out += &format!("| `{code}` | {stage} | {side} | `{flag}` | {status} | `{wording}` | {hint} |\n");
    }
    out
}

/// What stands above the table.
const MANUAL: &str = "\
# When a connection fails

The access log of a ztunnel says of each connection that failed what went wrong in words (`error`) and by a code that
stays the same across versions (`reason`). If the other side refused, the code that it gave is in `peer_reason`: look it up
in the column *code* as well; where the table says `app` or `local`, it is then the peer's.

- *stage*: how far the connection had come.
- *side*: where to look: the `app`, this ztunnel and what it was told (`local`), or the `peer`.
- *flag*: the label `response_flags` of metrics.
- *status*: what an HBONE peer is answered, where one waits for an answer.

This page is generated from the table in `crates/mesh/src/cause.rs`.

| code | stage | side | flag | status | in the log | what to do |
|---|---|---|---|---|---|---|
";

/// A step of a connection's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Reading the peer's request.
    Request,
    /// Deciding where to go.
    Route,
    /// Resolving a host name.
    Dns,
    /// Dialling.
    Connect,
    /// Making sure who the peer is.
    Tls,
    /// Asking the peer for the connection.
    Http2,
    /// Deciding whether it may.
    Authorize,
    /// Carrying bytes.
    Copy,
}

impl Stage {
    /// The step as the documentation names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Route => "route",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Http2 => "h2",
            Self::Authorize => "authz",
            Self::Copy => "copy",
        }
    }
}

/// Where a cause is to be looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The app on this side.
    App,
    /// This ztunnel or what it was told.
    Local,
    /// The other end of the tunnel, or whoever is dialled.
    Peer,
}

impl Side {
    /// The side as the documentation names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Local => "local",
            Self::Peer => "peer",
        }
    }
}

#[cfg(test)]
mod tests;
