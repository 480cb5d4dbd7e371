//! The frame codec against a table of frames as RFC 9113 §6 draws them.

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// Checks and parses a whole frame and shows what came out.
fn read(bytes: &[u8]) -> String {
    let head = Head::parse(bytes[..HEAD_LEN].try_into().unwrap());
    assert_eq!(head.encode(), bytes[..HEAD_LEN], "a head is written as it was read");
    match head.check().and_then(|()| parse(head, &bytes[HEAD_LEN..])) {
        Ok(Frame::Settings(settings)) => format!("Settings {:?}", settings.entries().collect::<Vec<_>>()),
        Ok(frame) => format!("{frame:?}"),
        Err(violation) => format!("! {violation:?}"),
    }
}

#[test]
fn frames_are_read_as_the_rfc_draws_them() {
    let table = [
        // length type flags stream, payload; meaning
        ("000003 01 04 00000001 828487", "Headers([130, 132, 135])"),
        ("000006 01 0c 00000001 02 828487 0000", "Headers([130, 132, 135])"),
        ("000008 01 24 00000001 00000000 10 828487", "Headers([130, 132, 135])"),
        ("00000b 01 2c 00000001 02 00000000 10 828487 0000", "Headers([130, 132, 135])"),
        ("000001 01 0c 00000001 00", "Headers([])"),
        ("000000 01 0c 00000001", "! FrameLength"),
        ("000001 01 0c 00000001 01", "! PaddingTooLong"),
        ("000004 01 24 00000001 00000000", "! FrameLength"),
        ("000003 01 04 00000000 828487", "! FrameOnStreamZero"),
        ("000005 02 00 00000003 00000001 10", "Priority"),
        ("000004 02 00 00000003 00000001", "! FrameLength"),
        ("000005 02 00 00000000 00000001 10", "! FrameOnStreamZero"),
        ("000004 03 00 00000003 00000008", "Reset(CANCEL)"),
        ("000004 03 00 00000003 000000ff", "Reset(0xff)"),
        ("000003 03 00 00000003 000008", "! FrameLength"),
        ("000004 03 00 00000000 00000008", "! FrameOnStreamZero"),
        ("00000c 04 00 00000000 0003 00000064 0004 0000ffff", "Settings [(3, 100), (4, 65535)]"),
        ("000000 04 00 00000000", "Settings []"),
        ("000000 04 01 00000000", "SettingsAck"),
        ("000006 04 01 00000000 0003 00000064", "! FrameLength"),
        ("000005 04 00 00000000 0003 000000", "! FrameLength"),
        ("000000 04 00 00000001", "! FrameNotOnStreamZero"),
        ("000004 05 04 00000001 00000002", "! PushPromise"),
        ("000008 06 00 00000000 0001020304050607", "Ping([0, 1, 2, 3, 4, 5, 6, 7])"),
        ("000008 06 01 00000000 0001020304050607", "Pong([0, 1, 2, 3, 4, 5, 6, 7])"),
        ("000007 06 00 00000000 00010203040506", "! FrameLength"),
        ("000008 06 00 00000001 0001020304050607", "! FrameNotOnStreamZero"),
        (
            "00000a 07 00 00000000 00000005 0000000b 6869",
            "GoAway { last: #5, reason: ENHANCE_YOUR_CALM, debug: [104, 105] }",
        ),
        ("000007 07 00 00000000 00000005 000000", "! FrameLength"),
        ("000008 07 00 00000001 00000005 00000000", "! FrameNotOnStreamZero"),
        ("000004 08 00 00000000 7fffffff", "WindowUpdate(2147483647)"),
        ("000004 08 00 00000001 80000001", "WindowUpdate(1)"),
        ("000005 08 00 00000001 0000000100", "! FrameLength"),
        ("000002 09 00 00000001 8287", "Continuation([130, 135])"),
        ("000002 09 00 00000000 8287", "! FrameOnStreamZero"),
        ("000003 fa ff 00000000 010203", "Unknown"),
    ];
    for (bytes, meaning) in table {
        assert_eq!(read(&hex(bytes)), meaning, "{bytes}");
    }
}

#[test]
fn what_is_written_is_read_back() {
    let id = StreamId::new(7);
    type Write = fn(&mut Vec<u8>, StreamId);
    let table: [(Write, &str); 7] = [
        (|out, _| put_settings(out, &[(4, 9), (0xfe, 1)]), "Settings [(4, 9), (254, 1)]"),
        (|out, _| put_settings_ack(out), "SettingsAck"),
        (|out, _| put_ping(out, [9; 8]), "Ping([9, 9, 9, 9, 9, 9, 9, 9])"),
        (|out, _| put_pong(out, [9; 8]), "Pong([9, 9, 9, 9, 9, 9, 9, 9])"),
        (|out, id| put_reset(out, id, Reason::CONNECT_ERROR), "Reset(CONNECT_ERROR)"),
        (|out, id| put_window_update(out, id, 77), "WindowUpdate(77)"),
        (|out, id| put_goaway(out, id, Reason(99), "x"), "GoAway { last: #7, reason: 0x63, debug: [120] }"),
    ];
    for (write, meaning) in table {
        let mut out = Vec::new();
        write(&mut out, id);
        assert_eq!(read(&out), meaning);
    }
}

#[test]
fn a_long_header_block_is_cut_into_continuations() {
    let mut out = Vec::new();
    put_headers(&mut out, StreamId::new(1), &[7; 25], true, 10);
    let mut rest = &out[..];
    let mut seen = Vec::new();
    while !rest.is_empty() {
        let head = Head::parse(rest[..HEAD_LEN].try_into().unwrap());
        rest = &rest[HEAD_LEN + head.length as usize..];
        seen.push((head.kind, head.flags, head.length));
    }
    let expected = [(Kind::Headers, END_STREAM, 10), (Kind::Continuation, 0, 10), (Kind::Continuation, END_HEADERS, 5)];
    assert_eq!(seen, expected);
}

#[test]
fn an_empty_header_block_is_one_complete_frame() {
    let mut out = Vec::new();
    put_headers(&mut out, StreamId::new(1), &[], false, 10);
    assert_eq!(out, hex("000000 01 04 00000001"));
}

#[test]
fn goaway_debug_text_is_cut() {
    let mut out = Vec::new();
    put_goaway(&mut out, StreamId::new(1), Reason::NO_ERROR, &"x".repeat(MAX_GOAWAY_DEBUG + 1));
    let head = Head::parse(out[..HEAD_LEN].try_into().unwrap());
    let Ok(Frame::GoAway { debug, .. }) = parse(head, &out[HEAD_LEN..]) else { panic!("not GOAWAY") };
    assert_eq!(debug.len(), MAX_GOAWAY_DEBUG);
}
