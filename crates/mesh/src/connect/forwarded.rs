//! The `forwarded` header: who the client was and which service it meant (spec data-plane 6.2, 10.8; RFC 7239).
//!
//! On the way in only `host` is read, and only to label telemetry; a peer could write anything into it.

use std::fmt::Write;
use std::net::SocketAddr;

use crate::name::Hostname;

/// The header's value for a client, and the service that it meant if that is known.
pub fn write(client: SocketAddr, service: Option<&Hostname>) -> String {
    let mut value = String::with_capacity(96); // as much as most take
    let _ = write!(value, "for=\"{client}\"");
    // A host name that is not one would need quoting, which peers do not undo: leave it out.
    if let Some(host) = service.filter(|host| is_token(host.as_str())) {
        let _ = write!(value, ";host={host}");
    }
    value
}

/// The service that the client meant, if the header says so.
pub fn host(value: &[u8]) -> Option<Hostname> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.is_ascii())?;
    let host = text.split(';').find_map(|part| part.trim().strip_prefix("host="))?;
    let unquoted = host.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(host);
    let visible = unquoted.bytes().all(|b| b.is_ascii_graphic());
    (!unquoted.is_empty() && visible).then(|| unquoted.into())
}

/// RFC 9110 §5.6.2.
fn is_token(text: &str) -> bool {
    let tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(tchar)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_quoted_and_the_host_is_not() {
        let v4 = "10.0.0.1:80".parse().unwrap();
        let v6 = "[2001:db8::1]:80".parse().unwrap();
        assert_eq!(write(v4, None), r#"for="10.0.0.1:80""#);
        assert_eq!(write(v6, Some(&"web.example".into())), r#"for="[2001:db8::1]:80";host=web.example"#);
        assert_eq!(write(v4, Some(&"*.example".into())), r#"for="10.0.0.1:80";host=*.example"#);
    }

    #[test]
    fn a_host_name_that_is_illegal_in_a_header_is_left_out() {
        let v4 = "10.0.0.1:80".parse().unwrap();
        for host in ["a\r\nb", "a b", "a;b", "é", ""] {
            assert_eq!(write(v4, Some(&host.into())), r#"for="10.0.0.1:80""#, "{host:?}");
        }
    }

    #[test]
    fn the_first_host_is_read_with_or_without_quotes() {
        for (value, expected) in [
            (r#"for="1.2.3.4:5";host=web.example"#, Some("web.example")),
            (r#"for="1.2.3.4:5"; host="web.example""#, Some("web.example")),
            ("host=a;host=b", Some("a")),
            ("host=", None),
            (r#"host="""#, None),
            (r#"host="a"#, Some(r#""a"#)),
            ("for=1.2.3.4", None),
            ("xhost=a", None),
            ("", None),
            ("host=é", None),
            ("host=a\tb", None),
        ] {
            assert_eq!(host(value.as_bytes()), expected.map(Hostname::from), "{value}");
        }
        assert_eq!(host(b"host=\xff"), None);
    }
}
