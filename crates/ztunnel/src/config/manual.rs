//! Prints the manual of settings from the table.

use std::fmt::Write;

use super::table::{KNOBS, Kind};

const HEAD: &str = "\
# Configuration

ztunnel is configured by environment variables. This page is printed from the table that the program reads them with
(`cargo xtask generate`).

- A variable that is set to nothing counts as set.
- Times are sums such as `1h30m` or `3m + 31`, or products such as `1m*10`; a number without unit is seconds.
- Everything that is wrong is reported at once, one line each, and ztunnel exits with status 1.
- `PROXY_CONFIG` holds Istio's ProxyConfig as YAML or JSON, of which `discoveryAddress`, `proxyAdminPort` (15000),
  `statsPort` (15020), `concurrency` and `proxyMetadata` matter; the file `./etc/istio/config/mesh` may hold the same
  under `defaultConfig`. The variable wins over the file.
- `ISTIO_META_<KEY>` adds to the proxy metadata. `XDS_HEADER_<NAME>` and `CA_HEADER_<NAME>` are sent along to the control
  plane and the CA.
- `ISTIO_META_DNS_CAPTURE`: anything but `true` (in any case) turns the DNS proxy off. `ISTIO_META_DNS_PROXY_ADDR` is where
  it listens in each pod: `localhost:PORT` (both families) or `IP:PORT`; `localhost:15053` if unset.

| variable | value | default | in `/config_dump` | meaning |
|---|---|---|---|---|
";

/// The text of `docs/configuration.md`.
#[must_use]
pub fn manual() -> String {
    let mut text = HEAD.to_owned();
    for knob in KNOBS {
        let value = match knob.kind {
            Kind::Bool => "`true` or `false`".to_owned(),
            Kind::Switch => "`true`; anything else is off".to_owned(),
            Kind::Number { min, max } => format!("{min} to {max}"),
            Kind::Duration { min: 0 } => "time".to_owned(),
            Kind::Duration { min } if min % 1000 == 0 => format!("time, at least {} s", min / 1000),
            Kind::Duration { min } => format!("time, at least {min} ms"),
            Kind::Text => "text".to_owned(),
        };
        let default = match knob.default {
            Some("") => "empty".to_owned(),
            Some(default) => format!("`{default}`"),
            None => "unset".to_owned(),
        };
        let key = knob.key.map_or_else(|| "–".to_owned(), |key| format!("`{key}`"));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| `{}` | {value} | {default} | {key} | {} |", knob.name, knob.doc);
    }
    text
}
