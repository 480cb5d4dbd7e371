//! RFC 7541 Appendix C, and what an attacker would try.

use super::*;
use crate::error::Violation;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<String, Violation> {
    let mut text = String::new();
    decoder.decode(block, &mut |name, value| {
        text += &format!("{}: {}\n", String::from_utf8_lossy(name), String::from_utf8_lossy(value));
    })?;
    Ok(text)
}

/// Decodes the blocks in order, comparing fields and table size after each.
fn example(blocks: &[(&str, &str, usize)]) {
    example_with(Decoder::new(), blocks);
}

fn example_with(mut decoder: Decoder, blocks: &[(&str, &str, usize)]) {
    for (block, fields, table_size) in blocks {
        let expected: String = fields.lines().map(|line| format!("{}\n", line.trim())).collect();
        assert_eq!(decode(&mut decoder, &hex(block)).unwrap(), expected);
        assert_eq!(decoder.table().size(), *table_size);
    }
}

#[test]
fn integers_of_appendix_c1() {
    for (bytes, prefix, value) in [("0a", 5, 10), ("1f9a0a", 5, 1337), ("2a", 8, 42)] {
        let bytes = hex(bytes);
        assert_eq!(integer::decode(&mut &bytes[..], prefix), Ok(value));
        let mut out = Vec::new();
        integer::encode(&mut out, prefix, 0, value);
        assert_eq!(out, bytes);
    }
}

#[test]
fn integers_round_trip_at_their_edges() {
    for prefix in 1..=8 {
        for value in [0, 1, 30, 31, 127, 128, 254, 255, 256, 16_383, 16_384, 1 << 21, integer::MAX] {
            let mut out = Vec::new();
            integer::encode(&mut out, prefix, 0, value);
            assert_eq!(integer::decode(&mut &out[..], prefix), Ok(value), "{value} in {prefix} bits");
            let truncated = integer::decode(&mut &out[..out.len() - 1], prefix);
            assert_eq!(truncated, Err(Violation::HpackTruncated));
        }
    }
}

#[test]
fn integers_out_of_range_are_refused() {
    for bytes in ["ffffffffffff00", "ff808080808000", "ff80808080808080808001", "ffffffffff7f"] {
        assert_eq!(integer::decode(&mut &hex(bytes)[..], 8), Err(Violation::HpackInteger), "{bytes}");
    }
}

#[test]
fn single_fields_of_appendix_c2() {
    example(&[("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572", "custom-key: custom-header", 55)]);
    example(&[("040c 2f73 616d 706c 652f 7061 7468", ":path: /sample/path", 0)]);
    example(&[("1008 7061 7373 776f 7264 0673 6563 7265 74", "password: secret", 0)]);
    example(&[("82", ":method: GET", 0)]);
}

const REQUEST_1: &str = ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com";
const REQUEST_2: &str = ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\ncache-control: no-cache";
const REQUEST_3: &str =
    ":method: GET\n:scheme: https\n:path: /index.html\n:authority: www.example.com\ncustom-key: custom-value";

#[test]
fn requests_without_huffman_of_appendix_c3() {
    example(&[
        ("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", REQUEST_1, 57),
        ("8286 84be 5808 6e6f 2d63 6163 6865", REQUEST_2, 110),
        ("8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65", REQUEST_3, 164),
    ]);
}

#[test]
fn requests_with_huffman_of_appendix_c4() {
    example(&[
        ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", REQUEST_1, 57),
        ("8286 84be 5886 a8eb 1064 9cbf", REQUEST_2, 110),
        ("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf", REQUEST_3, 164),
    ]);
}

const RESPONSE_1: &str = ":status: 302\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT
    location: https://www.example.com";
const RESPONSE_2: &str = ":status: 307\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT
    location: https://www.example.com";
const RESPONSE_3: &str = ":status: 200\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:22 GMT
    location: https://www.example.com\ncontent-encoding: gzip
    set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";

/// The examples of C.5 and C.6 assume a table of 256 octets.
fn small_table() -> Decoder {
    let mut decoder = Decoder::new();
    assert_eq!(decode(&mut decoder, &hex("3fe101")), Ok(String::new()));
    decoder
}

#[test]
fn responses_without_huffman_of_appendix_c5() {
    let blocks = [
        (
            "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32
             3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            RESPONSE_1,
            222,
        ),
        ("4803 3330 37c1 c0bf", RESPONSE_2, 222),
        (
            "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970
             7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61
             6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
            RESPONSE_3,
            215,
        ),
    ];
    example_with(small_table(), &blocks);
}

#[test]
fn responses_with_huffman_of_appendix_c6() {
    let blocks = [
        (
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad
             1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
            RESPONSE_1,
            222,
        ),
        ("4883 640e ffc1 c0bf", RESPONSE_2, 222),
        (
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2
             e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
            RESPONSE_3,
            215,
        ),
    ];
    example_with(small_table(), &blocks);
}

#[test]
fn broken_blocks_are_refused_with_the_rule_they_break() {
    let table = [
        ("80", Violation::HpackIndex),
        ("be", Violation::HpackIndex),
        ("ffff7f", Violation::HpackIndex),
        ("7f ff7f 00", Violation::HpackIndex),
        ("40", Violation::HpackTruncated),
        ("400161", Violation::HpackTruncated),
        ("4001610561", Violation::HpackTruncated),
        ("41", Violation::HpackTruncated),
        // A table larger than announced, and a change of size after a field.
        ("3fe21f", Violation::HpackTableSize),
        ("8220", Violation::HpackTableSize),
        // Huffman: the end-of-string symbol, eight bits of padding, padding with zeros, a code cut short.
        ("0001 61 84ffffffff", Violation::HpackHuffman),
        ("0001 61 821fff", Violation::HpackHuffman),
        ("0001 61 8118", Violation::HpackHuffman),
        ("0001 61 81ff", Violation::HpackHuffman),
        ("0001 61 82fffe", Violation::HpackHuffman),
    ];
    for (block, violation) in table {
        assert_eq!(decode(&mut Decoder::new(), &hex(block)), Err(violation), "{block}");
    }
}

#[test]
fn a_table_size_may_change_several_times_before_the_first_field() {
    let mut decoder = Decoder::new();
    assert_eq!(decode(&mut decoder, &hex("4001610162")), Ok("a: b\n".into()));
    assert_eq!(decode(&mut decoder, &hex("20 3fe11f 82")), Ok(":method: GET\n".into()));
    assert_eq!(decoder.table().size(), 0, "shrinking to zero evicted all");
}

#[test]
fn an_entry_larger_than_the_table_empties_it() {
    let mut decoder = small_table();
    assert_eq!(decode(&mut decoder, &hex("4001610162")), Ok("a: b\n".into()));
    let mut block = hex("400161 7f9901"); // a value of 280 octets
    block.extend([b'x'; 280]);
    assert!(decode(&mut decoder, &block).is_ok());
    assert_eq!(decoder.table().size(), 0);
}

#[test]
fn a_name_may_come_from_the_very_entry_that_its_insertion_evicts() {
    let mut decoder = small_table();
    // Fills the table with one entry, then indexes a new value under its name.
    let mut first = hex("40016e 7f31");
    first.extend([b'x'; 176]);
    assert!(decode(&mut decoder, &first).is_ok());
    let mut second = hex("7e 7f31");
    second.extend([b'y'; 176]);
    assert_eq!(decode(&mut decoder, &second), Ok(format!("n: {}\n", "y".repeat(176))));
    assert_eq!(decoder.table().size(), 1 + 176 + 32);
}

#[test]
fn the_dynamic_table_never_exceeds_what_was_announced() {
    let mut decoder = Decoder::new();
    for i in 0..10_000u32 {
        let mut block = vec![0x40, 4];
        block.extend(i.to_be_bytes());
        block.push(100);
        block.extend([b'v'; 100]);
        decode(&mut decoder, &block).unwrap();
        assert!(decoder.table().size() <= crate::limits::HEADER_TABLE_SIZE as usize);
    }
    // Every newest entry is there, the one after the last is not.
    let entries = crate::limits::HEADER_TABLE_SIZE as usize / (4 + 100 + 32);
    assert!(decode(&mut decoder, &[0x80 | (61 + entries) as u8]).is_ok());
    assert_eq!(decode(&mut decoder, &[0x80 | (62 + entries) as u8]), Err(Violation::HpackIndex));
}

#[test]
fn huffman_expands_by_eight_fifths_at_most() {
    let mut out = Vec::new();
    huffman::decode(&[0; 1_000], &mut out).unwrap();
    assert_eq!(out, vec![b'0'; 1_600]);
}

#[test]
fn what_the_encoder_writes_the_decoder_reads() {
    let fields: [(&str, &str); 6] = [
        (":method", "CONNECT"),
        (":authority", "10.0.0.1:80"),
        (":status", "200"),
        (":status", "503"),
        ("baggage", ""),
        ("x-forwarded-network", &"n".repeat(300)),
    ];
    let (mut encoder, mut block) = (Encoder::new(), Vec::new());
    encoder.begin(&mut block);
    for (name, value) in fields {
        encoder.field(&mut block, name.as_bytes(), value.as_bytes());
    }
    let expected: String = fields.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    let mut decoder = Decoder::new();
    assert_eq!(decode(&mut decoder, &block), Ok(expected));
    assert_eq!(decoder.table().size(), 0, "nothing is ever indexed");
}

#[test]
fn the_encoder_confirms_a_lowered_table_once() {
    let mut encoder = Encoder::new();
    encoder.limit_table(100);
    encoder.limit_table(4_096);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    encoder.begin(&mut first);
    encoder.begin(&mut second);
    assert_eq!((first, second), (hex("3f45"), vec![]));
}
