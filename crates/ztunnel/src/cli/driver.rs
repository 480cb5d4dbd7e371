//! Puts questions to the admin server of a ztunnel that runs on this machine, and prints the answers.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::ask::{Ask, Output, Subject};
use super::show;

/// How long the server may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 64 << 20;
/// Between two looks of `ztunnel top`.
const PAUSE: Duration = Duration::from_secs(2);
/// Clears the terminal and goes to its upper left corner (ECMA-48, ED and CUP).
const CLEAR: &str = "\x1b[2J\x1b[H";

/// What came of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was answered.
    Answered,
    /// It was about a connection, which would fail.
    Refused,
}

/// Asks, and prints the answer to `out`. `port` is the admin port of the settings.
///
/// # Errors
/// One line for the operator.
pub fn ask(question: &Ask, port: u16, out: &mut impl Write) -> Result<Verdict, String> {
    let server = question.admin.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let answer = get(server, &question.path)?;
    let unwritten = |error: io::Error| error.to_string();
    match (question.subject, question.output) {
        (Subject::Top, Output::Text) => return watch(server, question, answer, out).map(|()| Verdict::Answered),
        (subject, Output::Text) => out.write_all(show::show(subject, &answer).as_bytes()).map_err(unwritten)?,
        (_, Output::Json) => {
            serde_json::to_writer_pretty(&mut *out, &answer).map_err(|error| error.to_string())?;
            out.write_all(b"\n").map_err(unwritten)?;
        }
    }
    let refused = question.subject == Subject::Explain && answer["verdict"] == "refused";
    Ok(if refused { Verdict::Refused } else { Verdict::Answered })
}

/// Looks again and again, until the output or the server is gone.
fn watch(server: SocketAddr, question: &Ask, first: Value, out: &mut impl Write) -> Result<(), String> {
    let (mut before, mut now) = (None, first);
    loop {
        let text = show::summary(&now, before.as_ref());
        let shown = out.write_all(format!("{CLEAR}{text}").as_bytes()).and_then(|()| out.flush());
        shown.map_err(|error| error.to_string())?;
        std::thread::sleep(PAUSE);
        before = Some(now);
        now = get(server, &question.path)?;
    }
}

/// The answer of the admin server to a request, as HTTP/1.1 (RFC 9112) has it when the connection is to be closed.
fn get(server: SocketAddr, path: &str) -> Result<Value, String> {
    let failed = |error: io::Error| format!("no answer from {server}: {error}; is ztunnel running here? (see --admin)");
    let request = || -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {server}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = request().map_err(failed)?;
    let (status, body) = parse(&answer).ok_or_else(|| format!("what answers at {server} is no admin server"))?;
    if status != 200 {
        let body = String::from_utf8_lossy(body);
        let reason = if body.is_empty() { "this ztunnel cannot answer that".into() } else { body };
        return Err(reason.trim_end().to_owned());
    }
    serde_json::from_slice(body).map_err(|error| format!("the answer of {server} cannot be read: {error}"))
}

/// Status and body.
fn parse(answer: &[u8]) -> Option<(u16, &[u8])> {
    const END: &[u8] = b"\r\n\r\n";
    let end = answer.windows(END.len()).position(|window| window == END)?;
    let (head, body) = (std::str::from_utf8(answer.get(..end)?).ok()?, answer.get(end + END.len()..)?);
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, body))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    use super::*;
    use crate::cli::ask::read;

    /// A server that answers one request so, and tells what was asked.
    fn serve(answer: &'static str) -> (SocketAddr, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines.next().unwrap().unwrap();
            while !lines.next().unwrap().unwrap().is_empty() {}
            stream.write_all(answer.as_bytes()).unwrap();
            first
        });
        (address, serving)
    }

    fn put(subject: Subject, arguments: &[&str], answer: &'static str) -> (Result<Verdict, String>, String, String) {
        let (server, serving) = serve(answer);
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let question = Ask { admin: Some(server), ..read(subject, &arguments).unwrap() };
        let mut out = Vec::new();
        let verdict = ask(&question, 1, &mut out);
        (verdict, String::from_utf8(out).unwrap(), serving.join().unwrap())
    }

    #[test]
    fn an_explanation_is_printed_and_says_whether_the_connection_would_fail() {
        let answer = "HTTP/1.1 200 OK\r\nx: y\r\n\r\n{\"words\":[\"One.\",\"Two.\"],\"verdict\":\"refused\"}";
        let (verdict, out, asked) = put(Subject::Explain, &["a/b", "c:1"], answer);
        assert_eq!((verdict, out.as_str()), (Ok(Verdict::Refused), "One.\nTwo.\n"));
        assert_eq!(asked, "GET /debug/explain?src=a%2Fb&dst=c%3A1 HTTP/1.1");
    }

    #[test]
    fn programs_get_what_the_server_says() {
        let (verdict, out, _) = put(Subject::Top, &["--json"], "HTTP/1.1 200 OK\r\n\r\n{\"state\":\"ready\"}");
        assert_eq!((verdict, out.as_str()), (Ok(Verdict::Answered), "{\n  \"state\": \"ready\"\n}\n"));
    }

    #[test]
    fn what_the_server_complains_of_is_passed_on() {
        let (verdict, ..) = put(Subject::Explain, &["a", "b:1"], "HTTP/1.1 404 Not Found\r\n\r\nno workload a\n");
        assert_eq!(verdict, Err("no workload a".into()));
        let (verdict, ..) = put(Subject::Connections, &[], "SSH-2.0\r\n\r\n");
        assert!(verdict.unwrap_err().ends_with("is no admin server"));
    }
}
