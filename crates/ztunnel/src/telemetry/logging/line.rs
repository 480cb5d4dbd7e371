//! One line of the log, as text and as JSON (spec admin-and-telemetry 4).
//!
//! Values are written straight into the line, whatever they display: there are no intermediate strings. A value can
//! neither end a line nor add a second one, and a JSON line is always valid JSON.

use std::cell::Cell;
use std::fmt::{self, Display, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use tracing::Level;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    /// Tab-separated, for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Our own crate's part of a scope, which text lines leave out.
const OWN_CRATE: &str = "ztunnel::";

/// A field's value and how text lines show it.
pub(in crate::telemetry) enum Value<'a> {
    /// Quoted.
    Text(&'a str),
    /// Quoted, whatever it is.
    Quoted(&'a dyn Display),
    /// Bare.
    Bare(&'a dyn Display),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
}

/// A line being written: parts are added in the order of the methods, and [`Line::end`] last.
pub(in crate::telemetry) struct Line<'a> {
    out: &'a mut String,
    format: Format,
    fields: Separator,
}

impl<'a> Line<'a> {
    pub(in crate::telemetry) fn begin(
        out: &'a mut String,
        format: Format,
        at: SystemTime,
        level: Level,
        scope: &str,
    ) -> Self {
        let level = word(level);
        match format {
            Format::Text => {
                timestamp(out, at);
                let scope = scope.strip_prefix(OWN_CRATE).unwrap_or(scope);
                for part in ["\t", level, "\t", scope] {
                    out.push_str(part);
                }
            }
            Format::Json => {
                for part in ["{\"level\":\"", level, "\",\"time\":\""] {
                    out.push_str(part);
                }
                timestamp(out, at);
                out.push_str("\",\"scope\":");
                json(out, &scope);
            }
        }
        let fields = if format == Format::Json { Separator::After } else { Separator::First };
        Self { out, format, fields }
    }

    /// A span that the event is in, with fields as [`Fields`] wrote them. In text, spans come before the message, in JSON
    /// after the fields.
    pub(super) fn span(&mut self, name: &str, fields: &str) {
        match self.format {
            Format::Text => {
                for part in [":", name, "{", fields, "}"] {
                    self.out.push_str(part);
                }
            }
            Format::Json => {
                self.out.push(',');
                json(self.out, &name);
                for part in [":{", fields, "}"] {
                    self.out.push_str(part);
                }
            }
        }
    }

    pub(in crate::telemetry) fn message(&mut self, message: &dyn Display) {
        match self.format {
            Format::Text => {
                self.out.push('\t');
                print(&mut Escaped { out: self.out, kind: Kind::Bare }, message);
                self.out.push('\t');
            }
            Format::Json => {
                self.out.push_str(",\"message\":");
                json(self.out, message);
            }
        }
    }

    pub(in crate::telemetry) fn field(&mut self, name: &str, value: Value<'_>) {
        Fields { out: self.out, format: self.format, separator: &mut self.fields }.put(name, value);
    }

    pub(in crate::telemetry) fn end(self) {
        self.out.push_str(match self.format {
            Format::Text => "\n",
            Format::Json => "}\n",
        });
    }
}

/// What the next field is set apart with.
#[derive(Clone, Copy)]
pub(super) enum Separator {
    First,
    After,
}

/// A list of fields, of an event or of a span.
pub(super) struct Fields<'a> {
    pub(super) out: &'a mut String,
    pub(super) format: Format,
    pub(super) separator: &'a mut Separator,
}

impl Fields<'_> {
    pub(super) fn put(&mut self, name: &str, value: Value<'_>) {
        if let Separator::After = std::mem::replace(self.separator, Separator::After) {
            self.out.push(match self.format {
                Format::Text => ' ',
                Format::Json => ',',
            });
        }
        match self.format {
            Format::Text => self.put_text(name, value),
            Format::Json => self.put_json(name, value),
        }
    }

    fn put_text(&mut self, name: &str, value: Value<'_>) {
        self.out.push_str(name);
        self.out.push('=');
        match value {
            Value::Text(text) => quoted(self.out, &text),
            Value::Quoted(value) => quoted(self.out, value),
            Value::Bare(value) => print(&mut Escaped { out: self.out, kind: Kind::Bare }, value),
            Value::Unsigned(number) => print(self.out, &number),
            Value::Signed(number) => print(self.out, &number),
            Value::Float(number) => print(self.out, &number),
            Value::Bool(value) => print(self.out, &value),
        }
    }

    fn put_json(&mut self, name: &str, value: Value<'_>) {
        json(self.out, &name);
        self.out.push(':');
        match value {
            Value::Text(text) => json(self.out, &text),
            Value::Quoted(value) | Value::Bare(value) => json(self.out, value),
            Value::Unsigned(number) => print(self.out, &number),
            Value::Signed(number) => print(self.out, &number),
            Value::Float(number) if number.is_finite() => print(self.out, &number),
            Value::Float(number) => json(self.out, &number), // JSON has no number for it
            Value::Bool(value) => print(self.out, &value),
        }
    }
}

/// A value whose `Display` fails is cut short; a `String` takes everything.
fn print(out: &mut impl Write, value: &dyn Display) {
    let _ = write!(out, "{value}");
}

fn quoted(out: &mut String, value: &dyn Display) {
    out.push('"');
    print(&mut Escaped { out, kind: Kind::Quoted }, value);
    out.push('"');
}

fn json(out: &mut String, value: &dyn Display) {
    out.push('"');
    print(&mut Escaped { out, kind: Kind::Json }, value);
    out.push('"');
}

/// What must not appear as it is.
#[derive(Clone, Copy)]
enum Kind {
    /// Outside of quotes: control characters, which would end a line or a column.
    Bare,
    /// Inside quotes, escaped as Rust does.
    Quoted,
    /// Inside a JSON string (RFC 8259 §7).
    Json,
}

impl Kind {
    fn escapes(self, c: char) -> bool {
        match self {
            Self::Bare => c.is_control(),
            Self::Quoted => matches!(c, '"' | '\\') || !matches!(c, ' '..='~'),
            Self::Json => matches!(c, '"' | '\\' | '\0'..='\u{1f}'),
        }
    }
}

/// Writes on, escaping what has to be.
struct Escaped<'a> {
    out: &'a mut String,
    kind: Kind,
}

impl Write for Escaped<'_> {
    fn write_str(&mut self, mut text: &str) -> fmt::Result {
        while let Some(at) = text.find(|c| self.kind.escapes(c)) {
            let (plain, rest) = text.split_at(at);
            self.out.push_str(plain);
            let mut chars = rest.chars();
            match (self.kind, chars.next()) {
                (Kind::Json, Some(c @ ('"' | '\\'))) => self.out.extend(['\\', c]),
                (Kind::Json, Some('\n')) => self.out.push_str("\\n"),
                (Kind::Json, Some(c)) => write!(self.out, "\\u{:04x}", u32::from(c))?,
                (Kind::Bare | Kind::Quoted, Some(c)) => self.out.extend(c.escape_debug()),
                (_, None) => {}
            }
            text = chars.as_str();
        }
        self.out.push_str(text);
        Ok(())
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// RFC 3339, UTC, microseconds. A clock before 1970 or beyond the calendar shows 1970.
fn timestamp(out: &mut String, at: SystemTime) {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let date = i64::try_from(since.as_secs()).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    let t = date.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = (t.year(), u8::from(t.month()), t.day());
    let (hour, minute, second, micros) = (t.hour(), t.minute(), t.second(), since.subsec_micros());
    let text = format_args!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z");
    print(out, &text);
}

/// Capacity that a thread's scratch line may keep; a rare long line must not hold on to its memory.
const MAX_SCRATCH: usize = 16 * 1024;

/// Lends the thread's scratch line, empty. What formats a value may log itself: the inner call gets a line of its own.
pub(super) fn with_scratch(use_it: impl FnOnce(&mut String)) {
    thread_local! {
        static SCRATCH: Cell<String> = const { Cell::new(String::new()) };
    }
    // At the end of a thread its scratch line may be gone already.
    let mut line = SCRATCH.try_with(Cell::take).unwrap_or_default();
    line.clear();
    use_it(&mut line);
    if line.capacity() <= MAX_SCRATCH {
        let _ = SCRATCH.try_with(|scratch| scratch.set(line));
    }
}

#[cfg(test)]
mod tests;
