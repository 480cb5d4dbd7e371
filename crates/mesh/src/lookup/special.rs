//! Names that mean the same everywhere and that no resolver has to be asked for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Found, Kind, Question};

/// `localhost` and what is below it (RFC 6761 §6.3); `invalid` (§6.4) and `onion` (RFC 7686 §2), which are never names.
pub(super) fn find<'a>(question: &Question<'a>, addresses: &mut Vec<IpAddr>) -> Option<Found<'a>> {
    match question.name.rsplit('.').next()? {
        "localhost" => {
            let ip: Option<IpAddr> = match question.kind {
                Kind::A => Some(Ipv4Addr::LOCALHOST.into()),
                Kind::Aaaa => Some(Ipv6Addr::LOCALHOST.into()),
                Kind::Ptr | Kind::Other => None,
            };
            addresses.extend(ip.filter(|ip| question.wants(*ip)));
            Some(if addresses.is_empty() { Found::NoData } else { Found::Addresses { canonical: None } })
        }
        "invalid" | "onion" => Some(Found::NoName),
        _ => None,
    }
}
