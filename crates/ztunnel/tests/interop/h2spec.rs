//! h2spec against the inbound listener of a real ztunnel, through a TLS [`front`], since it has no client certificate.
//!
//! Every case passes, but for those in `h2spec-expected.txt`, each with the reason. A case that is listed and passes
//! fails the test as well, so that the list says how things are.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use testkit::harness::{Test, test};
use testkit::mesh::{Capture, Mesh, PodSpec};

use crate::{DEADLINE, HBONE_PORT, Outcome, at, credentials, front, program, ztunnel};

const EXPECTED: &str = include_str!("h2spec-expected.txt");
/// What h2spec calls its three suites, all of which run.
const SUITES: [&str; 3] = ["generic", "http2", "hpack"];
/// Seconds that h2spec waits for an answer before it counts a case as failed.
const PATIENCE: &str = "2";
/// Fewer cases than this mean that h2spec has not run to its end (version 2.2.1 has 147).
const AT_LEAST: usize = 140;

/// How a case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    Skipped,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Passed => "passed",
            Verdict::Failed => "failed",
            Verdict::Skipped => "skipped",
        })
    }
}

/// Verdicts by section and name of their cases.
type Verdicts = BTreeMap<(String, String), Verdict>;

pub fn tests() -> Vec<Test> {
    vec![
        test("the inbound listener conforms to HTTP/2 as h2spec understands it", run),
        test("a report of h2spec is read case by case", || {
            let report = r#"<testsuite name="3.5." package="http2/3.5"><testcase package="http2/3.5"
                classname="Sends &#34;x&#34;" time="0.1"></testcase><testcase package="http2/3.5" classname="b" time="2">
                <failure>no</failure></testcase><testcase package="http2/4" classname="c" time="0"><skipped></skipped>
                </testcase></testsuite>"#;
            let key = |section: &str, case: &str| (section.to_owned(), case.to_owned());
            let verdicts = [
                (key("http2/3.5", "Sends \"x\""), Verdict::Passed),
                (key("http2/3.5", "b"), Verdict::Failed),
                (key("http2/4", "c"), Verdict::Skipped),
            ];
            assert_eq!(read(report)?, Verdicts::from(verdicts));
            Ok(())
        }),
    ]
}

fn run() -> Outcome {
    let h2spec = program("H2SPEC")?;
    let mesh = Mesh::new()?;
    let node = mesh.add_node("a")?;
    let server = node.add_pod(PodSpec::new("server", "shop", "cart", Capture::Enrolled))?;
    let client = node.add_pod(PodSpec::new("client", "legacy", "old", Capture::Off))?;
    // h2spec takes any frame above the protocol's default to be too large.
    let ztunnel = node.start_ztunnel(&ztunnel().env("HTTP2_FRAME_SIZE", "16384"))?;
    ztunnel.wait_ready(DEADLINE)?;
    let tls = credentials::client("spiffe://cluster.local/ns/legacy/sa/old", "spiffe://cluster.local/ns/shop/sa/cart")?;
    let port = front::start(&client, at(&server, HBONE_PORT), tls)?;

    // In the sandbox's own `/run`, which goes with it.
    let report = Path::new("/run/h2spec.xml");
    let mut command = client.command(h2spec);
    command.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--timeout", PATIENCE, "--junit-report"]);
    let output = command.arg(report).args(SUITES).output()?;
    let text = fs::read_to_string(report)
        .map_err(|error| format!("h2spec left no report ({error}): {}", String::from_utf8_lossy(&output.stdout)))?;
    let differences = compare(&read(&text)?, &expected()?);
    if differences.is_empty() {
        return Ok(());
    }
    print!("{}", String::from_utf8_lossy(&output.stdout));
    Err(format!("not as in h2spec-expected.txt:\n{}", differences.join("\n")).into())
}

fn compare(seen: &Verdicts, expected: &Verdicts) -> Vec<String> {
    let mut differences = Vec::new();
    if seen.len() < AT_LEAST {
        differences.push(format!("only {} cases ran", seen.len()));
    }
    for (case, verdict) in seen {
        let wanted = expected.get(case).copied().unwrap_or(Verdict::Passed);
        if wanted != *verdict {
            differences.push(format!("{} | {} | {verdict}, but should have {wanted}", case.0, case.1));
        }
    }
    let unknown = expected.keys().filter(|case| !seen.contains_key(*case));
    differences.extend(unknown.map(|case| format!("{} | {} | there is no such case", case.0, case.1)));
    differences
}

/// Lines of `section | case | failed or skipped | reason`; empty ones and those that start with `#` do not count.
fn expected() -> Outcome<Verdicts> {
    let mut verdicts = Verdicts::new();
    for line in EXPECTED.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('|').map(str::trim).collect();
        let &[section, case, verdict, reason] = fields.as_slice() else {
            return Err(format!("not four fields: {line}").into());
        };
        let verdict = match verdict {
            "failed" => Verdict::Failed,
            "skipped" => Verdict::Skipped,
            _ => return Err(format!("neither failed nor skipped: {line}").into()),
        };
        if reason.is_empty() {
            return Err(format!("no reason: {line}").into());
        }
        verdicts.insert((section.to_owned(), case.to_owned()), verdict);
    }
    Ok(verdicts)
}

/// Reads a JUnit report as far as h2spec writes it.
fn read(report: &str) -> Outcome<Verdicts> {
    let mut verdicts = Verdicts::new();
    for part in report.split("<testcase ").skip(1) {
        let case = part.split("</testcase>").next().unwrap_or(part);
        let attribute = |name: &str| -> Outcome<String> {
            let value = case.split_once(&format!("{name}=\"")).and_then(|(_, rest)| rest.split_once('"'));
            Ok(unescape(value.ok_or_else(|| format!("a case without {name}: {case}"))?.0))
        };
        let verdict = if case.contains("<failure") || case.contains("<error") {
            Verdict::Failed
        } else if case.contains("<skipped") {
            Verdict::Skipped
        } else {
            Verdict::Passed
        };
        verdicts.insert((attribute("package")?, attribute("classname")?), verdict);
    }
    Ok(verdicts)
}

fn unescape(text: &str) -> String {
    text.replace("&#34;", "\"").replace("&#39;", "'").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}
