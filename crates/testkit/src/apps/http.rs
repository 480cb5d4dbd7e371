//! As much HTTP/1.1 (RFC 9112) as a test's client and server need: bodies with a length or up to the end.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Longest head and longest body that is read.
const HEAD_BYTES: u64 = 64 << 10;
const BODY_BYTES: u64 = 64 << 20;

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// As on the status line.
    pub status: u16,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// Bytes that are no UTF-8 are replaced.
    pub body: String,
}

impl Response {
    /// The value of the line `name: value` of a body by [`serve_http`](super::serve_http).
    pub fn told(&self, name: &str) -> Option<&str> {
        self.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

struct Head {
    first: String,
    headers: Vec<(String, String)>,
}

impl Head {
    fn length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Answers requests with what `answer` makes of their first lines, until the client closes or asks for the end.
pub(super) fn serve(stream: TcpStream, answer: impl Fn(&str) -> String) -> io::Result<()> {
    let mut output = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    while let Some(head) = read_head(&mut input)? {
        io::copy(&mut input.by_ref().take(head.length().unwrap_or(0)), &mut io::sink())?;
        let body = answer(&head.first);
        let length = body.len();
        let answered = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n");
        output.write_all((answered + &body).as_bytes())?;
        if head.header("connection") == Some("close") {
            break;
        }
    }
    Ok(())
}

pub(super) fn get(mut stream: TcpStream, to: SocketAddr, path: &str) -> io::Result<Response> {
    // In one write, as every client does; a server may answer the first packet and close.
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut input = BufReader::new(stream);
    let head = read_head(&mut input)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.first.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| invalid(&head.first))?;
    let body = if head.header("transfer-encoding").is_some() {
        read_chunks(&mut input)?
    } else {
        read_body(&mut input, head.length())?
    };
    Ok(Response { status, headers: head.headers, body: String::from_utf8_lossy(&body).into_owned() })
}

fn read_body(input: &mut impl BufRead, length: Option<u64>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    input.take(length.unwrap_or(BODY_BYTES).min(BODY_BYTES)).read_to_end(&mut body)?;
    let complete = length.is_none_or(|length| length == body.len() as u64);
    if complete { Ok(body) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn read_chunks(input: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(input)?;
        let length = u64::from_str_radix(line.trim(), 16).map_err(|_| invalid(&line))?;
        body.extend(read_body(input, Some(length))?);
        read_line(input)?;
        if length == 0 || body.len() as u64 > BODY_BYTES {
            return Ok(body);
        }
    }
}

/// `None` at the end of the connection.
fn read_head(input: &mut impl BufRead) -> io::Result<Option<Head>> {
    let first = read_line(input)?;
    if first.is_empty() {
        return Ok(None);
    }
    let mut headers = Vec::new();
    loop {
        let line = read_line(input)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
            None if line == "\r\n" => return Ok(Some(Head { first: first.trim_end().to_owned(), headers })),
            None => return Err(invalid(&line)),
        }
    }
}

fn read_line(input: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    input.take(HEAD_BYTES).read_line(&mut line)?;
    Ok(line)
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no HTTP/1.1: {text:?}"))
}
