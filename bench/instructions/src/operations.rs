//! The operations by name. Each prepares what it needs once, so that the difference between two counts is the cost of
//! the operation alone.

use std::hint::black_box;

use hbone::h2::frame::{self, HEAD_LEN, Head};
use hbone::h2::hpack::{Decoder, Encoder};
use hbone::h2::{End, StreamId};

use crate::pair::{AUTHORITY, HEADERS, Pair};

/// A name, and what runs the operation so many times.
pub type Operation = (&'static str, fn(usize));

/// In the order of the table.
pub const OPERATIONS: [Operation; 9] = [
    ("frame-head-encode-and-parse", frame_head),
    ("window-update-write-and-parse", window_update),
    ("hpack-encode-connect", hpack_encode),
    ("hpack-decode-connect", hpack_decode),
    ("hpack-decode-huffman", hpack_decode_huffman),
    ("data-lay-out-64k-in-records", lay_out),
    ("data-receive-64k-in-records", receive_records),
    ("data-receive-64k-in-one-frame", receive_frame),
    ("stream-open-answer-end", stream),
];

const BATCH: usize = 64 * 1024;
/// Payload of a frame that fills a TLS record.
const RECORD: usize = 16 * 1024 - HEAD_LEN;

fn frame_head(count: usize) {
    let head = Head { length: 16_375, kind: frame::Kind::Data, flags: 0, stream: StreamId::new(4711) };
    for _ in 0..count {
        let bytes = black_box(head).encode();
        black_box(Head::parse(&black_box(bytes)).check()).expect("the head is legal");
    }
}

fn window_update(count: usize) {
    let mut out = Vec::with_capacity(64);
    for _ in 0..count {
        out.clear();
        frame::put_window_update(&mut out, black_box(StreamId::new(4711)), black_box(1 << 20));
        let (head, payload) = out.split_first_chunk::<HEAD_LEN>().expect("a frame has a head");
        black_box(frame::parse(Head::parse(head), payload)).expect("the frame is legal");
    }
}

fn encode(encoder: &mut Encoder, block: &mut Vec<u8>) {
    encoder.begin(block);
    encoder.field(block, b":method", b"CONNECT");
    encoder.field(block, b":authority", AUTHORITY.as_bytes());
    for header in &HEADERS {
        encoder.field(block, header.name.as_bytes(), header.value);
    }
}

fn hpack_encode(count: usize) {
    let (mut encoder, mut block) = (Encoder::new(), Vec::with_capacity(512));
    for _ in 0..count {
        block.clear();
        encode(&mut encoder, &mut block);
        black_box(&block);
    }
}

fn hpack_decode(count: usize) {
    let mut block = Vec::new();
    encode(&mut Encoder::new(), &mut block);
    decode(&block, count);
}

/// The first request of RFC 7541 C.4: a string in Huffman's code, which is added to the dynamic table each time.
fn hpack_decode_huffman(count: usize) {
    let block = [0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
    decode(&block, count);
}

fn decode(block: &[u8], count: usize) {
    let mut decoder = Decoder::new();
    let mut octets = 0;
    for _ in 0..count {
        let decoded = decoder.decode(black_box(block), &mut |name, value| octets += name.len() + value.len());
        decoded.expect("the block is legal");
    }
    black_box(octets);
}

/// As a driver does: what may be sent, then the heads of frames; and the peer's credit for them.
fn lay_out(count: usize) {
    let mut pair = Pair::new();
    let id = pair.open();
    for _ in 0..count {
        let mut left = BATCH;
        while left > 0 {
            let length = left.min(RECORD).min(black_box(pair.client.send_capacity(id)));
            black_box(pair.client.data_header(id, length, End::No)).expect("the window is open");
            left -= length;
        }
        pair.grant(id, BATCH);
    }
}

fn receive_records(count: usize) {
    receive(count, RECORD);
}

fn receive_frame(count: usize) {
    receive(count, BATCH);
}

/// The server's side: frames, credit, and window updates where they are due.
fn receive(count: usize, payload: usize) {
    let mut pair = Pair::new();
    let id = pair.open();
    let mut bytes = Vec::new();
    let mut left = BATCH;
    while left > 0 {
        let length = left.min(payload);
        bytes.extend(pair.client.data_header(id, length, End::No).expect("the window is open"));
        bytes.resize(bytes.len() + length, 0);
        left -= length;
    }
    for _ in 0..count {
        pair.receive(black_box(&bytes));
    }
}

fn stream(count: usize) {
    let mut pair = Pair::new();
    for _ in 0..count {
        let id = pair.open();
        let last = pair.client.data_header(id, 0, End::Yes).expect("the stream is open");
        pair.receive(&last);
        let last = pair.server.data_header(id, 0, End::Yes).expect("the stream is open");
        pair.client.receive(pair.now, &last, &mut Vec::new()).expect("the server keeps to the protocol");
    }
}
