//! Frames as text and back, written apart from the machine so that the two check each other.
//!
//! `HEADERS 1 ES | :method: CONNECT | :authority: a:1` is a header block of plain literals; `more` withholds END_HEADERS,
//! `PAD=n` pads, `PRIO` adds five bytes of priority, `hex=8286` gives the block as it is. The other forms are
//! `DATA 1 ES "text"`, `DATA 1 len=16384`, `SETTINGS 4=65535`, `SETTINGS ACK`, `PING 0001020304050607`, `PING ACK …`,
//! `RST_STREAM 1 CANCEL`, `WINDOW_UPDATE 1 +10`, `GOAWAY last=1 NO_ERROR`, `PRIORITY 1`, `CONTINUATION 1 more hex=82`,
//! `PREFACE` and `RAW 000000 04 01 00000000`.

use hbone::error::Reason;
use hbone::h2::hpack;

const NAMES: [&str; 10] = [
    "DATA",
    "HEADERS",
    "PRIORITY",
    "RST_STREAM",
    "SETTINGS",
    "PUSH_PROMISE",
    "PING",
    "GOAWAY",
    "WINDOW_UPDATE",
    "CONTINUATION",
];

pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

pub fn reason(name: &str) -> Reason {
    let known = (0..14).map(Reason).find(|reason| reason.name() == Some(name));
    known.unwrap_or_else(|| Reason(u32::from_str_radix(name.trim_start_matches("0x"), 16).expect("a reason")))
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// `| name: value | name: value` as literals without indexing.
fn literals(fields: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for field in fields.split('|').filter(|field| !field.trim().is_empty()) {
        let field = field.strip_prefix(' ').unwrap_or(field);
        let field = field.strip_suffix(' ').unwrap_or(field);
        let colon = 1 + field[1..].find(':').expect("name: value");
        let (name, value) = (&field[..colon], &field[colon + 1..]);
        block.push(0);
        for text in [name, value.strip_prefix(' ').unwrap_or(value)] {
            assert!(text.len() < 127, "keep it short");
            block.push(text.len() as u8);
            block.extend(text.bytes());
        }
    }
    block
}

/// The bytes of a frame given as text.
pub fn encode(line: &str) -> Vec<u8> {
    let (before, fields) = line.split_once('|').unwrap_or((line, ""));
    let quoted = before.split_once('"').map(|(_, rest)| rest.trim_end().trim_end_matches('"').as_bytes().to_vec());
    let before = before.split('"').next().unwrap();
    let mut words = before.split_whitespace();
    let name = words.next().expect("a frame");
    let words: Vec<&str> = words.collect();
    let option = |key: &str| words.iter().find_map(|word| word.strip_prefix(key));
    let has = |word: &str| words.contains(&word);
    let stream = || words[0].parse::<u32>().unwrap();
    match name {
        "PREFACE" => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        "RAW" => hex(&words.concat()),
        "SETTINGS" => {
            let entries = words.iter().filter_map(|word| word.split_once('='));
            let payload: Vec<u8> = entries
                .flat_map(|(id, value)| {
                    let id = id.parse::<u16>().unwrap().to_be_bytes();
                    [&id[..], &value.parse::<u32>().unwrap().to_be_bytes()].concat()
                })
                .collect();
            frame(4, u8::from(has("ACK")), 0, &payload)
        }
        "PING" => frame(6, u8::from(has("ACK")), 0, &hex(words.last().unwrap())),
        "GOAWAY" => {
            let last = option("last=").unwrap().parse::<u32>().unwrap();
            let code = reason(words[1]).0;
            frame(7, 0, 0, &[&last.to_be_bytes()[..], &code.to_be_bytes(), &quoted.unwrap_or_default()].concat())
        }
        "RST_STREAM" => frame(3, 0, stream(), &reason(words[1]).0.to_be_bytes()),
        "WINDOW_UPDATE" => {
            frame(8, 0, stream(), &words[1].trim_start_matches('+').parse::<u32>().unwrap().to_be_bytes())
        }
        "PRIORITY" => frame(2, 0, stream(), &[0, 0, 0, 0, 16]),
        "DATA" | "HEADERS" | "CONTINUATION" => {
            let body = match (option("hex="), option("len=")) {
                (Some(digits), _) => hex(digits),
                (_, Some(len)) => vec![b'x'; len.parse().unwrap()],
                _ if name == "DATA" => quoted.unwrap_or_default(),
                _ => literals(fields),
            };
            let kind = NAMES.iter().position(|n| *n == name).unwrap() as u8;
            let mut flags = u8::from(has("ES"));
            let (mut front, mut back) = (Vec::new(), Vec::new());
            if let Some(padding) = option("PAD=") {
                let padding: u8 = padding.parse().unwrap();
                flags |= 0x8;
                front.push(padding);
                back.resize(usize::from(padding), 0);
            }
            if has("PRIO") {
                flags |= 0x20;
                front.extend([0, 0, 0, 0, 16]);
            }
            if name != "DATA" && !has("more") {
                flags |= 0x4;
            }
            frame(kind, flags, stream(), &[front, body, back].concat())
        }
        other => panic!("unknown frame {other}"),
    }
}

/// Takes one frame off the front of `bytes` and gives it as text; `None` if it is not complete.
pub fn decode(bytes: &mut Vec<u8>, headers: &mut hpack::Decoder) -> Option<String> {
    if bytes.starts_with(b"PRI ") {
        bytes.drain(..24);
        return Some("PREFACE".into());
    }
    let head = bytes.get(..9)?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let (kind, flags) = (head[3], head[4]);
    let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
    if bytes.len() < 9 + length {
        return None;
    }
    let payload: Vec<u8> = bytes.drain(..9 + length).skip(9).collect();
    let word = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
    let ack = if flags & 1 != 0 { " ACK" } else { "" };
    let end = if flags & 1 != 0 { " ES" } else { "" };
    let name = NAMES[usize::from(kind)];
    Some(match name {
        "DATA" if payload.is_empty() => format!("DATA {stream}{end}"),
        "DATA" if payload.len() > 40 => format!("DATA {stream}{end} len={}", payload.len()),
        "DATA" => format!("DATA {stream}{end} \"{}\"", String::from_utf8_lossy(&payload)),
        "HEADERS" => {
            assert_eq!(flags & 0x4, 0x4, "dialogues have no long header blocks to read");
            let mut text = format!("HEADERS {stream}{end}");
            let field = &mut |name: &[u8], value: &[u8]| {
                text += &format!(" | {}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value));
            };
            headers.decode(&payload, field).unwrap();
            text
        }
        "RST_STREAM" => format!("RST_STREAM {stream} {}", Reason(word(0))),
        "SETTINGS" => {
            let entries = payload.chunks(6).map(|entry| {
                let value = u32::from_be_bytes(entry[2..6].try_into().unwrap());
                format!(" {}={value}", u16::from_be_bytes([entry[0], entry[1]]))
            });
            format!("SETTINGS{ack}{}", entries.collect::<String>())
        }
        "PING" => format!("PING{ack} {}", payload.iter().map(|b| format!("{b:02x}")).collect::<String>()),
        "GOAWAY" => format!("GOAWAY last={} {}", word(0), Reason(word(4))),
        "WINDOW_UPDATE" => format!("WINDOW_UPDATE {stream} +{}", word(0)),
        other => panic!("the machine sent {other}"),
    })
}
