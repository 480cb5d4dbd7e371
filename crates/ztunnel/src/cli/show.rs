//! Answers as people read them: sentences and tables.
//!
//! What is missing in an answer, such as one of another version, is shown as `-`.

use std::fmt::Write;

use serde_json::Value;

use super::ask::Subject;

/// The answer about `subject`.
#[must_use]
pub fn show(subject: Subject, answer: &Value) -> String {
    match subject {
        Subject::Explain => lines(&answer["words"]),
        Subject::Connections => connections(answer),
        Subject::Failures => failures(answer),
        Subject::Top => summary(answer, None),
    }
}

fn lines(words: &Value) -> String {
    words.as_array().into_iter().flatten().filter_map(Value::as_str).map(|line| format!("{line}\n")).collect()
}

fn connections(answer: &Value) -> String {
    let rows: Vec<&Value> = answer["connections"].as_array().into_iter().flatten().collect();
    let paths = rows.iter().any(|one| one["appPath"].is_object() || one["peerPath"].is_object());
    let row = |one: &&Value| {
        let mut row = vec![
            age(&one["ageMs"]),
            text(&one["direction"]),
            text(&one["stage"]),
            side(&one["source"]),
            side(&one["destination"]),
            text(&one["service"]),
            text(&one["protocol"]),
            bytes(one["bytesSent"].as_u64()),
            bytes(one["bytesReceived"].as_u64()),
        ];
        if paths {
            row.extend([path(&one["appPath"]), path(&one["peerPath"])]);
        }
        row
    };
    let rows: Vec<_> = rows.iter().map(row).collect();
    let (shown, total) = (rows.len() as u64, answer["total"].as_u64().unwrap_or_default());
    let mut head =
        vec!["AGE", "DIRECTION", "STAGE", "SOURCE", "DESTINATION", "SERVICE", "PROTOCOL", "SENT", "RECEIVED"];
    if paths {
        head.extend(["APP RTT (RETRANSMITS)", "PEER RTT (RETRANSMITS)"]);
    }
    let mut out = table(&head, &rows);
    if shown < total {
        let _ = writeln!(out, "{} more", total - shown);
    }
    out
}

/// Round-trip time and segments sent again.
fn path(path: &Value) -> String {
    match (path["roundTripUs"].as_u64(), path["retransmits"].as_u64()) {
        (Some(micros), Some(retransmits)) => format!("{micros} us ({retransmits})"),
        _ => "-".to_owned(),
    }
}

fn failures(answer: &Value) -> String {
    let row = |one: &Value| {
        vec![
            text(&one["time"]),
            text(&one["direction"]),
            text(&one["code"]),
            text(&one["peerReason"]),
            text(&one["stage"]),
            text(&one["side"]),
            side(&one["source"]),
            side(&one["destination"]),
            text(&one["error"]),
        ]
    };
    let rows: Vec<_> = answer["failures"].as_array().into_iter().flatten().map(row).collect();
    let head = ["TIME", "DIRECTION", "REASON", "PEER", "STAGE", "SIDE", "SOURCE", "DESTINATION", "ERROR"];
    let mut out = table(&head, &rows);
    let mut hints: Vec<(String, String)> = Vec::new();
    for one in answer["failures"].as_array().into_iter().flatten() {
        let hint = (text(&one["code"]), text(&one["hint"]));
        if !hints.contains(&hint) {
            hints.push(hint);
        }
    }
    for (code, hint) in hints {
        let _ = write!(out, "\n{code}: {hint}");
    }
    out + if out_ends_bare(answer) { "" } else { "\n" }
}

/// Whether nothing follows the table.
fn out_ends_bare(answer: &Value) -> bool {
    answer["failures"].as_array().is_none_or(Vec::is_empty)
}

/// The whole at a glance; with what was said before, also how much a second.
#[must_use]
pub fn summary(now: &Value, before: Option<&Value>) -> String {
    let mut out = String::new();
    let pending: Vec<&str> = now["pending"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let pending = if pending.is_empty() { String::new() } else { format!(", pending: {}", pending.join(", ")) };
    let mesh = &now["mesh"];
    let _ = writeln!(out, "node {}  {}{pending}  log {}", text(&now["node"]), text(&now["state"]), text(&now["log"]));
    let _ = writeln!(
        out,
        "mesh: {} workloads, {} services, {} policies",
        text(&mesh["workloads"]),
        text(&mesh["services"]),
        text(&mesh["policies"])
    );
    let open = &now["connections"];
    let _ = writeln!(out, "open: {} outbound, {} inbound", text(&open["outbound"]), text(&open["inbound"]));
    if let Some(before) = before {
        let seconds = number(&now["timeMs"]).saturating_sub(number(&before["timeMs"])).max(1);
        let rate = |key: &str| {
            let (now, before) = (number(&now["totals"][key]), number(&before["totals"][key]));
            now.saturating_sub(before).saturating_mul(1000) / seconds
        };
        let (from_clients, from_servers) = (rate("bytesFromClients"), rate("bytesFromServers"));
        let _ = writeln!(
            out,
            "a second: {} connections, {} from clients, {} from servers",
            rate("opened"),
            bytes(Some(from_clients)),
            bytes(Some(from_servers))
        );
    }
    let failures = &now["failures"];
    let by_code: Vec<String> =
        failures["byCode"].as_object().into_iter().flatten().map(|(code, count)| format!("{code} {count}")).collect();
    let _ =
        writeln!(out, "failures: {} since the start; lately: {}", text(&failures["seen"]), dash(by_code.join(", ")));
    let row = |one: &Value| {
        let left = one["remainingSeconds"].as_u64().map_or_else(|| "-".to_owned(), |left| age_of(left * 1000));
        vec![left, text(&one["state"]), text(&one["identity"])]
    };
    let rows: Vec<_> = now["certificates"].as_array().into_iter().flatten().take(CERTIFICATES).map(row).collect();
    out + "\n" + &table(&["LEFT", "STATE", "CERTIFICATE OF"], &rows)
}

/// Certificates that are shown: those that end first.
const CERTIFICATES: usize = 20;

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => dash(text.replace(char::is_control, " ")),
        Value::Number(number) => number.to_string(),
        _ => "-".to_owned(),
    }
}

fn dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

/// Who is at one end: by name if it has one, and where.
fn side(side: &Value) -> String {
    match (side["namespace"].as_str(), side["workload"].as_str()) {
        (Some(namespace), Some(workload)) => format!("{namespace}/{workload} {}", text(&side["address"])),
        _ => text(&side["address"]),
    }
}

fn age(milliseconds: &Value) -> String {
    milliseconds.as_u64().map_or_else(|| "-".to_owned(), age_of)
}

/// In the two largest units.
fn age_of(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600, seconds / 60);
    match (days, hours, minutes, seconds) {
        (0, 0, 0, 0) => format!("{milliseconds}ms"),
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m{}s", seconds % 60),
        (0, hours, minutes, _) => format!("{hours}h{}m", minutes % 60),
        (days, hours, ..) => format!("{days}d{}h", hours % 24),
    }
}

fn bytes(count: Option<u64>) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let Some(count) = count else { return "-".to_owned() };
    let (mut whole, mut tenths, mut unit) = (count, 0, 0);
    while whole >= 1024 && unit + 1 < UNITS.len() {
        tenths = whole % 1024 * 10 / 1024;
        whole /= 1024;
        unit += 1;
    }
    if unit == 0 { format!("{whole} B") } else { format!("{whole}.{tenths} {}", UNITS[unit]) }
}

/// Columns as wide as what is in them; the last is not padded.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].len()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut out = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, width) in cells.zip(&widths) {
            let _ = write!(text, "{cell:<width$}  ");
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(&mut head.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn connections_are_a_table() {
        let answer = json!({
            "connections": [{
                "ageMs": 61_000, "direction": "outbound", "stage": "open", "protocol": "HBONE",
                "source": { "namespace": "shop", "workload": "web", "address": "10.0.0.1:5" },
                "destination": { "address": "10.0.0.2:15008" },
                "bytesSent": 1536, "bytesReceived": 3,
            }],
            "total": 4,
        });
        let expected = "\
AGE   DIRECTION  STAGE  SOURCE               DESTINATION     SERVICE  PROTOCOL  SENT     RECEIVED
1m1s  outbound   open   shop/web 10.0.0.1:5  10.0.0.2:15008  -        HBONE     1.5 KiB  3 B
3 more
";
        assert_eq!(show(Subject::Connections, &answer), expected);
    }

    #[test]
    fn failures_end_with_what_to_do_about_each_kind() {
        let one = json!({
            "time": "t", "direction": "outbound", "code": "denied", "stage": "authz", "side": "peer",
            "error": "no\nway", "hint": "Ask.", "source": {}, "destination": {},
        });
        let told = show(Subject::Failures, &json!({ "failures": [one, one], "seen": 2 }));
        assert!(told.contains("denied  -     authz  peer  -       -            no way\n"), "{told}");
        assert!(told.ends_with("\n\ndenied: Ask.\n"), "{told}");
        assert!(show(Subject::Failures, &json!({ "failures": [] })).ends_with("ERROR\n"));
    }

    #[test]
    fn rates_are_of_the_time_between_two_looks() {
        let look = |time: u64, bytes: u64| json!({ "timeMs": time, "totals": { "bytesFromClients": bytes, "bytesFromServers": 0, "opened": 7 } });
        let told = summary(&look(3_000, 5_000), Some(&look(1_000, 904)));
        assert!(told.contains("a second: 0 connections, 2.0 KiB from clients, 0 B from servers\n"), "{told}");
        assert!(!summary(&look(1, 1), None).contains("a second"));
    }
}
