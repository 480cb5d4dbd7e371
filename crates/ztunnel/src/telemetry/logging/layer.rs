//! Turns `tracing` events into lines.
//!
//! Whether a place in the code is on is decided when the filter changes and remembered there, so that what is off costs
//! a load. The fields of a span are written once, when it opens, and copied into each line.

use std::fmt::{self, Display};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::Logging;
use super::line::{Fields, Format, Line, Separator, Value};

/// The field that `tracing` puts an event's text in.
const MESSAGE: &str = "message";

pub(super) struct Layer {
    logging: Logging,
}

/// The fields of a span as lines show them.
struct SpanFields {
    text: String,
    separator: Separator,
}

impl Layer {
    pub(super) fn new(logging: Logging) -> Self {
        Self { logging }
    }

    fn enables(&self, metadata: &Metadata<'_>) -> bool {
        self.logging.0.filter.load().enables(metadata.target(), metadata.level())
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> tracing_subscriber::Layer<S> for Layer {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enables(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.enables(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.logging.0.filter.load().most_verbose())
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = SpanFields { text: String::new(), separator: Separator::First };
        attributes.record(&mut fields.visitor(self.logging.format()));
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<SpanFields>() {
            values.record(&mut fields.visitor(self.logging.format()));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let format = self.logging.format();
        self.logging.write(|out| {
            let metadata = event.metadata();
            let mut line = Line::begin(out, format, SystemTime::now(), *metadata.level(), metadata.target());
            let spans = |line: &mut Line<'_>| {
                for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
                    if let Some(fields) = span.extensions().get::<SpanFields>() {
                        line.span(span.name(), &fields.text);
                    }
                }
            };
            if format == Format::Text {
                spans(&mut line);
            }
            let mut message = Message { line: &mut line, written: false };
            event.record(&mut message);
            if !message.written {
                line.message(&"");
            }
            event.record(&mut EventFields(&mut line));
            if format == Format::Json {
                spans(&mut line);
            }
            line.end();
        });
    }
}

impl SpanFields {
    fn visitor(&mut self, format: Format) -> impl Visit + '_ {
        Putter(Fields { out: &mut self.text, format, separator: &mut self.separator })
    }
}

/// Writes the message, wherever among the fields it stands.
struct Message<'l, 'a> {
    line: &'l mut Line<'a>,
    written: bool,
}

impl Visit for Message<'_, '_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == MESSAGE && !self.written {
            self.line.message(&AsDebug(value));
            self.written = true;
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

/// Writes everything but the message.
struct EventFields<'l, 'a>(&'l mut Line<'a>);
/// Writes the fields of a span.
struct Putter<'a>(Fields<'a>);

/// What displays as the debugging form of another value.
struct AsDebug<'a>(&'a dyn fmt::Debug);

impl Display for AsDebug<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a visited field goes.
trait Put {
    fn put(&mut self, name: &str, value: Value<'_>);
}

impl Put for EventFields<'_, '_> {
    fn put(&mut self, name: &str, value: Value<'_>) {
        if name != MESSAGE {
            self.0.field(name, value);
        }
    }
}

impl Put for Putter<'_> {
    fn put(&mut self, name: &str, value: Value<'_>) {
        self.0.put(name, value);
    }
}

macro_rules! visit {
    ($($visitor:ty),+) => {$(
        impl Visit for $visitor {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                self.put(field.name(), Value::Bare(&AsDebug(value)));
            }

            fn record_str(&mut self, field: &Field, value: &str) {
                self.put(field.name(), Value::Text(value));
            }

            fn record_u64(&mut self, field: &Field, value: u64) {
                self.put(field.name(), Value::Unsigned(value));
            }

            fn record_i64(&mut self, field: &Field, value: i64) {
                self.put(field.name(), Value::Signed(value));
            }

            fn record_f64(&mut self, field: &Field, value: f64) {
                self.put(field.name(), Value::Float(value));
            }

            fn record_bool(&mut self, field: &Field, value: bool) {
                self.put(field.name(), Value::Bool(value));
            }
        }
    )+};
}

visit!(EventFields<'_, '_>, Putter<'_>);

#[cfg(test)]
mod tests;
