//! The configuration as `/config_dump` and the start-up log print it (spec configuration 7, admin-and-telemetry 2).

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mesh::lookup::Families;
use mesh::{Identity, LocalWorkload};
use serde_json::{Value, json};

use super::{Address, Config, Mode, Roots, ports};
use crate::dns;

impl Config {
    /// The `config` object of the dump. Header values are not shown: they may be credentials.
    #[must_use]
    pub fn dump(&self) -> Value {
        let headers =
            |list: &[(String, String)]| -> Value { list.iter().map(|(name, _)| json!([name, "<redacted>"])).collect() };
        let wildcard = |port| std::net::SocketAddr::new(self.wildcard(), port).to_string();
        let resolvers = dns::resolvers(std::slice::from_ref(&self.resolv_conf));
        let families = if self.ipv6_enabled { Families::Dual } else { Families::Ipv4 };
        let mut dump = json!({
            "adminAddr": self.address(Address::Localhost(self.admin_port)),
            "altCaHostname": self.alt_ca_hostname,
            "altXdsHostname": self.alt_xds_hostname,
            "caAddress": self.ca_address,
            "caHeaders": headers(&self.ca_headers),
            "caRootCert": roots(&self.ca_roots),
            "clusterDomain": self.cluster_domain,
            "clusterId": self.cluster_id,
            "connectionWindowSize": self.connection_window,
            "crlPath": self.crl_path,
            "dnsProxy": self.dns_proxy,
            "dnsProxyAddr": self.address(self.dns_proxy_address),
            "dnsResolverCfg": resolvers.dump(),
            "dnsResolverOpts": resolvers.options_dump(families),
            "enableEnhancedBaggage": self.baggage,
            "fakeCa": self.fake_ca,
            "fakeSelfInbound": false,
            "frameSize": self.frame_size,
            "illegalPorts": self.illegal_ports(),
            "inboundAddr": wildcard(ports::INBOUND),
            "inboundPlaintextAddr": wildcard(ports::INBOUND_PLAINTEXT),
            "inpodPortReuse": self.inpod_port_reuse,
            "inpodUds": self.inpod_uds,
            "ipv6Enabled": self.ipv6_enabled,
            "localNode": self.local_node,
            "localhostAppTunnel": self.localhost_app_tunnel,
            "network": self.network,
            "numWorkerThreads": self.worker_threads,
            "outboundAddr": wildcard(ports::OUTBOUND),
            "packetMark": self.packet_mark,
            "poolMaxStreamsPerConn": self.pool_max_streams,
            "poolUnusedReleaseTimeout": duration(self.pool_unused_release),
            "preferedServiceNamespace": self.prefered_service_namespace,
            "proxy": self.proxy,
            "proxyArgs": self.proxy_arguments,
        });
        let rest = json!({
            "proxyMetadata": self.proxy_metadata,
            "proxyMode": match self.mode { Mode::Shared => "Shared", Mode::Dedicated(_) => "Dedicated" },
            "proxyWorkloadInformation": match &self.mode {
                Mode::Shared => Value::Null,
                Mode::Dedicated(who) => workload(who),
            },
            "readinessAddr": { "SocketAddr": wildcard(ports::READINESS) },
            "requireOriginalSource": self.require_original_source,
            "secretTtl": duration(self.secret_ttl),
            "selfTerminationDeadline": duration(self.drain_deadline),
            "socketConfig": {
                "keepaliveEnabled": self.socket.keepalive_enabled,
                "keepaliveInterval": duration(self.socket.keepalive_interval),
                "keepaliveRetries": self.socket.keepalive_retries,
                "keepaliveTime": duration(self.socket.keepalive_time),
                "userTimeoutEnabled": self.socket.user_timeout_enabled,
            },
            "socks5Addr": self.socks5.then(|| SocketAddr::from((Ipv4Addr::LOCALHOST, ports::SOCKS5)).to_string()),
            "statsAddr": { "SocketAddr": wildcard(self.stats_port) },
            "windowSize": self.stream_window,
            "xdsAddress": self.xds_address,
            "xdsHeaders": headers(&self.xds_headers),
            "xdsOnDemand": self.xds_on_demand,
            "xdsRootCert": roots(&self.xds_roots),
            "ztunnelIdentity": self.own_identity().map(|identity| identity.to_string()),
            "ztunnelWorkload": self.own_workload.as_ref().map(workload),
        });
        if let (Value::Object(dump), Value::Object(rest)) = (&mut dump, rest) {
            dump.extend(rest);
        }
        dump
    }

    /// The same as YAML, for the log.
    #[must_use]
    pub fn log_yaml(&self) -> String {
        serde_yaml_ng::to_string(&self.dump()).unwrap_or_default()
    }

    fn address(&self, address: Address) -> Value {
        match address {
            Address::Localhost(port) => json!({ "Localhost": [self.ipv6_enabled, port] }),
            Address::Socket(address) => json!({ "SocketAddr": address.to_string() }),
        }
    }

    /// ztunnel's own identity, if it has one.
    fn own_identity(&self) -> Option<Identity> {
        self.own_workload.as_ref().map(|own| Identity {
            trust_domain: self.own_trust_domain.as_str().into(),
            namespace: own.namespace.clone(),
            service_account: own.service_account.clone(),
        })
    }
}

fn workload(who: &LocalWorkload) -> Value {
    json!({
        "name": &*who.name,
        "namespace": who.namespace.as_str(),
        "serviceAccount": who.service_account.as_str(),
    })
}

fn roots(roots: &Roots) -> Value {
    match roots {
        Roots::File(path) => json!({ "File": path }),
        Roots::Text(_) => json!("Static"),
        Roots::System => json!("Default"),
    }
}

fn duration(duration: Duration) -> Value {
    json!({ "secs": duration.as_secs(), "nanos": duration.subsec_nanos() })
}
