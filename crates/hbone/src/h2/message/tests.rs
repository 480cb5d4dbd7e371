//! Well-formed and malformed messages.

use super::*;

const LIMIT: usize = 1_000;

fn collect(fields: &[(&str, &str)]) -> Collector {
    let mut collector = Collector::new(LIMIT);
    for (name, value) in fields {
        collector.push(name.as_bytes(), value.as_bytes());
    }
    collector
}

#[test]
fn a_connect_request_is_taken_apart() {
    let fields = [(":method", "CONNECT"), (":authority", "[::1]:80"), ("baggage", ""), ("a", "1"), ("a", "2")];
    let request = collect(&fields).request().unwrap();
    assert!(request.is_connect());
    assert_eq!(request.authority.as_deref(), Some("[::1]:80"));
    assert_eq!(request.headers.get("baggage"), Some(&b""[..]));
    assert_eq!(request.headers.all("a").collect::<Vec<_>>(), [b"1", b"2"]);
    assert_eq!(request.headers.get("b"), None);
    assert_eq!(request.headers.len(), 3);
}

#[test]
fn headers_that_are_made_up_read_as_received_ones() {
    let made: Headers =
        [("a", "1"), ("b", ""), ("a", "2")].map(|(name, value)| Header::new(name, value)).into_iter().collect();
    let fields = [(":method", "CONNECT"), (":authority", "a:1"), ("a", "1"), ("b", ""), ("a", "2")];
    assert_eq!(made, collect(&fields).request().unwrap().headers);
    assert_eq!(made.iter().collect::<Vec<_>>(), [("a", &b"1"[..]), ("b", b""), ("a", b"2")]);
}

#[test]
fn other_methods_are_handed_on_with_what_they_need() {
    let request = collect(&[(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "a")]).request();
    assert_eq!(&*request.unwrap().method, "GET");
}

#[test]
fn malformed_requests_are_refused_with_the_rule_they_break() {
    use Violation::*;
    let connect = [(":method", "CONNECT"), (":authority", "a:1")];
    let with = |name, value| vec![connect[0], connect[1], (name, value)];
    let table = [
        (vec![], PseudoHeaderMissing),
        (vec![connect[0]], PseudoHeaderMissing),
        (vec![connect[1]], PseudoHeaderMissing),
        (vec![connect[0], (":authority", "")], PseudoHeaderMissing),
        (vec![connect[0], (":authority", "a b")], Authority),
        (with(":path", "/"), ConnectPseudoHeader),
        (with(":path", ""), ConnectPseudoHeader),
        (with(":scheme", "https"), ConnectPseudoHeader),
        (with(":protocol", "websocket"), ConnectPseudoHeader),
        (with(":method", "CONNECT"), PseudoHeaderTwice),
        (with(":status", "200"), PseudoHeaderUnknown),
        (with(":unknown", "x"), PseudoHeaderUnknown),
        (vec![connect[0], ("a", "b"), connect[1]], PseudoHeaderOrder),
        (with("Baggage", "x"), FieldName),
        (with("", "x"), FieldName),
        (with("a b", "x"), FieldName),
        (with("a", "x\ny"), FieldValue),
        (with("a", "x\0"), FieldValue),
        (with("a", " x"), FieldValue),
        (with("a", "x\t"), FieldValue),
        (with("connection", "close"), ConnectionHeader),
        (with("transfer-encoding", "chunked"), ConnectionHeader),
        (with("te", "gzip"), ConnectionHeader),
        (vec![(":method", "GET"), (":scheme", "https")], PseudoHeaderMissing),
        (vec![(":method", "GET"), (":scheme", "https"), (":path", "")], PseudoHeaderMissing),
    ];
    for (fields, violation) in table {
        assert_eq!(collect(&fields).request().unwrap_err(), violation, "{fields:?}");
    }
    assert!(collect(&with("te", "trailers")).request().is_ok());
}

#[test]
fn responses_need_a_possible_status_and_nothing_of_a_request() {
    assert_eq!(collect(&[(":status", "200"), ("baggage", "x")]).response().unwrap().status, 200);
    for status in ["", "20", "2000", "099", "abc", "101", "+20"] {
        assert!(collect(&[(":status", status)]).response().is_err(), "{status}");
    }
    assert_eq!(collect(&[]).response(), Err(Violation::PseudoHeaderMissing));
    let mixed = collect(&[(":status", "200"), (":path", "/")]).response();
    assert_eq!(mixed, Err(Violation::PseudoHeaderUnknown));
}

#[test]
fn trailers_have_no_pseudo_headers() {
    assert_eq!(collect(&[("grpc-status", "0")]).trailers(), Ok(()));
    assert_eq!(collect(&[(":status", "200")]).trailers(), Err(Violation::PseudoHeaderOrder));
}

#[test]
fn a_header_list_above_the_limit_is_refused_and_not_stored() {
    let mut collector = collect(&[(":method", "CONNECT"), (":authority", "a:1")]);
    for _ in 0..1_000_000 {
        collector.push(b"name", &[b'x'; 100]);
    }
    assert!(collector.headers.text.len() <= LIMIT);
    assert_eq!(collector.request(), Err(Violation::HeaderListTooLarge));
}

#[test]
fn illegal_headers_to_send_are_recognised() {
    assert!(Header::new("baggage", "a=b").is_legal());
    assert!(Header::new("baggage", "").is_legal());
    for (name, value) in [("baggage", "a\r\nb"), ("Baggage", "a"), (":path", "/"), ("connection", "close"), ("", "")] {
        assert!(!Header::new(name, value).is_legal(), "{name}: {value}");
    }
}
