//! The messages of a gRPC stream, in the pieces in which they arrive.
//!
//! A general gRPC client gathers each message in one buffer, which stays as large as the largest message ever was: for a
//! large mesh as much memory again as all its state. Here a message is a queue of the frames' payloads, and each is
//! given back when what is in it has been decoded.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use istio_api::discovery::DeltaDiscoveryRequest;
use tokio_stream::Stream;
use tonic::codec::{BufferSettings, EncodeBody};
use tonic::codegen::Service;
use tonic::codegen::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use tonic::{Code, Status};
use tonic_prost::ProstEncoder;

use crate::control::Channel;

/// Largest message (spec wire-protocols 6.1).
const MAX_MESSAGE: usize = 200 * 1024 * 1024;
/// Flags and length before each message (gRPC over HTTP/2, Length-Prefixed-Message).
const PREFIX: usize = 5;
const METHOD: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// Bytes in pieces.
#[derive(Debug, Clone, Default)]
pub(in crate::xds) struct Chunks {
    pieces: VecDeque<Bytes>,
    length: usize,
}

impl Chunks {
    fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.length += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// Takes the first `length` bytes, of which there must be as many; nothing is copied.
    fn split_to(&mut self, length: usize) -> Self {
        let mut front = Self::default();
        while front.length < length {
            let Some(piece) = self.pieces.front_mut() else { break };
            let part = piece.split_to(piece.len().min(length - front.length));
            self.length -= part.len();
            if piece.is_empty() {
                self.pieces.pop_front();
            }
            front.push(part);
        }
        front
    }
}

impl Buf for Chunks {
    fn remaining(&self) -> usize {
        self.length
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.length, "there is not as much");
        self.length -= count;
        while let Some(piece) = self.pieces.front_mut() {
            if count < piece.len() {
                return piece.advance(count);
            }
            count -= piece.len();
            self.pieces.pop_front();
        }
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        if let Some(piece) = self.pieces.front_mut().filter(|piece| length < piece.len()) {
            self.length -= length;
            return piece.split_to(length); // as nearly all are within one piece
        }
        let mut part = self.split_to(length);
        match part.pieces.len() {
            1 => part.pieces.pop_front().unwrap_or_default(),
            _ => part.pieces.iter().flat_map(|piece| piece.iter().copied()).collect(),
        }
    }
}

/// What the control plane answers on one stream.
#[derive(Debug)]
pub(super) struct Messages {
    body: Incoming,
    received: Chunks,
}

/// Opens a stream.
pub(super) async fn call<S>(mut channel: Channel, request: tonic::Request<S>) -> Result<Messages, Status>
where
    S: Stream<Item = DeltaDiscoveryRequest> + Send + 'static,
{
    let (metadata, _, requests) = request.into_parts();
    let encoder = ProstEncoder::new(BufferSettings::default());
    let requests = tokio_stream::StreamExt::map(requests, Ok);
    let mut http = Request::new(tonic::body::Body::new(EncodeBody::new_client(encoder, requests, None, None)));
    let mut target = channel.origin().into_parts();
    target.path_and_query = Some(tonic::codegen::http::uri::PathAndQuery::from_static(METHOD));
    *http.uri_mut() = target.try_into().map_err(|error| Status::internal(format!("the address: {error}")))?;
    *http.method_mut() = Method::POST;
    *http.headers_mut() = metadata.into_headers();
    http.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
    http.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    std::future::poll_fn(|context| channel.poll_ready(context)).await.map_err(broken)?;
    let response = channel.call(http).await.map_err(broken)?;
    accepted(&response)?;
    Ok(Messages { body: response.into_body(), received: Chunks::default() })
}

fn accepted<B>(response: &Response<B>) -> Result<(), Status> {
    if let Some(status) = Status::from_header_map(response.headers()) {
        return Err(status); // and nothing follows
    }
    match response.status() {
        StatusCode::OK => Ok(()),
        other => Err(Status::unavailable(format!("it answers with HTTP status {other}; is it a control plane?"))),
    }
}

fn broken(error: hyper::Error) -> Status {
    Status::from_error(Box::new(error))
}

impl Messages {
    /// The next message; `None` when the control plane has ended the stream in order.
    pub(super) async fn next(&mut self) -> Result<Option<Chunks>, Status> {
        loop {
            if let Some(message) = self.received.message()? {
                return Ok(Some(message));
            }
            let Some(frame) = self.body.frame().await else {
                return Err(Status::unknown("the stream ended without a status"));
            };
            match frame.map_err(broken)?.into_data() {
                Ok(data) => self.received.push(data),
                Err(rest) => return rest.into_trailers().map_or(Ok(None), |trailers| ended(&trailers)),
            }
        }
    }
}

fn ended(trailers: &HeaderMap) -> Result<Option<Chunks>, Status> {
    match Status::from_header_map(trailers) {
        Some(status) if status.code() == Code::Ok => Ok(None),
        Some(status) => Err(status),
        None => Err(Status::unknown("the stream ended without a status")),
    }
}

impl Chunks {
    /// Takes a message off the front if it is whole.
    fn message(&mut self) -> Result<Option<Self>, Status> {
        let mut prefix = [0; PREFIX];
        if self.length < PREFIX {
            return Ok(None);
        }
        prefix.iter_mut().zip(self.pieces.iter().flatten()).for_each(|(byte, received)| *byte = *received);
        let [flags, length @ ..] = prefix;
        let length = u32::from_be_bytes(length) as usize;
        if flags != 0 {
            return Err(Status::internal("the control plane compresses what it sends, which it was not asked for"));
        }
        if length > MAX_MESSAGE {
            let text = format!("a message of {length} bytes is larger than {MAX_MESSAGE}; split the mesh or scope it");
            return Err(Status::out_of_range(text));
        }
        if self.length < PREFIX + length {
            return Ok(None);
        }
        self.advance(PREFIX);
        Ok(Some(self.split_to(length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(messages: &[&[u8]]) -> Vec<u8> {
        let prefixed = |message: &&[u8]| {
            let length = u32::try_from(message.len()).unwrap();
            [&[0][..], &length.to_be_bytes(), message].concat()
        };
        messages.iter().flat_map(prefixed).collect()
    }

    #[test]
    fn messages_come_out_whole_however_their_frames_were_cut() {
        let messages: [&[u8]; 4] = [b"first", b"", b"the third, which is longer", b"x"];
        let wire = framed(&messages);
        for size in 1..=wire.len() {
            let (mut received, mut whole) = (Chunks::default(), Vec::new());
            for piece in wire.chunks(size) {
                received.push(Bytes::copy_from_slice(piece));
                while let Some(mut message) = received.message().unwrap() {
                    let length = message.remaining();
                    whole.push(message.copy_to_bytes(length));
                }
            }
            assert_eq!(whole, messages, "in pieces of {size}");
            assert_eq!((received.length, received.pieces.len()), (0, 0));
        }
    }

    #[test]
    fn a_message_is_refused_before_it_has_come_if_it_is_too_large_or_compressed() {
        for (prefix, code) in [([0, 255, 255, 255, 255], Code::OutOfRange), ([1, 0, 0, 0, 1], Code::Internal)] {
            let mut received = Chunks::default();
            received.push(Bytes::copy_from_slice(&prefix));
            assert_eq!(received.message().unwrap_err().code(), code);
        }
    }

    #[test]
    fn what_answers_without_grpc_is_said_to_be_no_control_plane() {
        let response = Response::builder().status(404).body(()).unwrap();
        assert!(accepted(&response).unwrap_err().message().contains("404 Not Found; is it a control plane?"));
        let refused = Response::builder().header("grpc-status", "16").header("grpc-message", "no").body(()).unwrap();
        assert_eq!(accepted(&refused).unwrap_err().code(), Code::Unauthenticated);
        assert!(accepted(&Response::new(())).is_ok());
    }
}
