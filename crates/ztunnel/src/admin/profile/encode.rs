//! A profile as pprof's `Profile` message: its parts, with the field numbers that are published, and how they are filled.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use pprof::Report;
use prost::Message;

use super::heap::Heap;

#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    r#type: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<Label>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    str: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

/// Gives each text, function and line a number, from 1 on but for texts.
#[derive(Default)]
struct Numbers {
    profile: Profile,
    texts: HashMap<String, i64>,
    functions: HashMap<(i64, i64), u64>,
    locations: HashMap<(u64, i64), u64>,
}

impl Numbers {
    fn text(&mut self, text: &str) -> i64 {
        if let Some(number) = self.texts.get(text) {
            return *number;
        }
        let number = signed(self.profile.string_table.len());
        self.profile.string_table.push(text.to_owned());
        self.texts.insert(text.to_owned(), number);
        number
    }

    fn location(&mut self, place: &Place) -> u64 {
        let [name, filename, system_name] =
            [&place.name, &place.filename, &place.system_name].map(|text| self.text(text));
        let functions = &mut self.profile.function;
        let function_id = *self.functions.entry((name, filename)).or_insert_with(|| {
            let id = functions.len() as u64 + 1;
            functions.push(Function { id, name, system_name, filename });
            id
        });
        let (line, locations) = (i64::from(place.line), &mut self.profile.location);
        *self.locations.entry((function_id, line)).or_insert_with(|| {
            let id = locations.len() as u64 + 1;
            locations.push(Location { id, line: vec![Line { function_id, line }] });
            id
        })
    }
}

/// Where in the program something is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) system_name: String,
    pub(super) filename: String,
    pub(super) line: u32,
}

impl From<&pprof::Symbol> for Place {
    fn from(symbol: &pprof::Symbol) -> Self {
        let (name, filename) = (symbol.name(), symbol.filename().into_owned());
        Self { name, system_name: symbol.sys_name().into_owned(), filename, line: symbol.lineno() }
    }
}

/// What is in use, as uncompressed protobuf: for each stack the number of allocations, and of their bytes. `places` names
/// an address; several, the innermost first, where functions were inlined.
pub(super) fn encode_heap(heap: &Heap, at: SystemTime, mut places: impl FnMut(u64) -> Vec<Place>) -> Vec<u8> {
    let mut numbers = Numbers::default();
    numbers.text(""); // the first text has to be empty
    let [objects, count, space, bytes] =
        ["inuse_objects", "count", "inuse_space", "bytes"].map(|text| numbers.text(text));
    numbers.profile.sample_type =
        vec![ValueType { r#type: objects, unit: count }, ValueType { r#type: space, unit: bytes }];
    numbers.profile.period_type = Some(ValueType { r#type: space, unit: bytes });
    numbers.profile.period = heap.period;
    numbers.profile.time_nanos = since_1970(at);
    let mut known: HashMap<u64, Vec<u64>> = HashMap::new();
    for stack in &heap.stacks {
        let mut location_id = Vec::new();
        for address in &stack.addresses {
            let locations = known
                .entry(*address)
                .or_insert_with(|| places(*address).iter().map(|place| numbers.location(place)).collect());
            location_id.extend(locations.iter());
        }
        numbers.profile.sample.push(Sample { location_id, value: vec![stack.objects, stack.bytes], label: Vec::new() });
    }
    numbers.profile.encode_to_vec()
}

fn since_1970(at: SystemTime) -> i64 {
    i64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(i64::MAX)
}

fn signed(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What was seen, as uncompressed protobuf: for each stack the number of samples, and how much time that is.
pub(super) fn encode(report: &Report) -> Vec<u8> {
    let timing = &report.timing;
    let period = 1_000_000_000 / i64::from(timing.frequency.max(1));
    let mut numbers = Numbers::default();
    numbers.text(""); // the first text has to be empty
    let [samples, count, cpu, nanoseconds, thread] =
        ["samples", "count", "cpu", "nanoseconds", "thread"].map(|text| numbers.text(text));
    numbers.profile.sample_type =
        vec![ValueType { r#type: samples, unit: count }, ValueType { r#type: cpu, unit: nanoseconds }];
    numbers.profile.period_type = Some(ValueType { r#type: cpu, unit: nanoseconds });
    numbers.profile.period = period;
    numbers.profile.time_nanos = since_1970(timing.start_time);
    numbers.profile.duration_nanos = i64::try_from(timing.duration.as_nanos()).unwrap_or(i64::MAX);
    for (frames, seen) in &report.data {
        let symbols = frames.frames.iter().flatten();
        let location_id = symbols.map(|symbol| numbers.location(&Place::from(symbol))).collect();
        let seen = i64::try_from(*seen).unwrap_or(i64::MAX);
        let name = numbers.text(&frames.thread_name);
        let label = vec![Label { key: thread, str: name }];
        numbers.profile.sample.push(Sample { location_id, value: vec![seen, seen.saturating_mul(period)], label });
    }
    numbers.profile.encode_to_vec()
}
