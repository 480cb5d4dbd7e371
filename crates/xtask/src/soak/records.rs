//! What the log of one ztunnel says, counted line by line: nothing of it is kept.

use super::life::{Life, PerLife};

/// A line of the log in its text form: time, level, target, message and fields, separated by tabs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line<'a> {
    time: &'a str,
    pub(super) level: &'a str,
    target: &'a str,
    message: &'a str,
    fields: &'a str,
}

impl<'a> Line<'a> {
    /// `None` if it is none, as what a panic writes.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(5, '\t');
        let (time, level, target, message) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        Some(Self { time, level, target, message, fields: parts.next().unwrap_or_default() })
    }

    /// The value of a field that contains no blank.
    fn field(&self, name: &str) -> Option<&'a str> {
        let field = |field: &'a str| Some(field.strip_prefix(name)?.strip_prefix('=')?.trim_matches('"'));
        self.fields.split(' ').find_map(field)
    }

    /// Which life the port that was asked for stands for.
    fn life(&self) -> Option<Life> {
        let asked = self.field("dst.hbone_addr").or_else(|| self.field("dst.addr"))?;
        Life::at_port(asked.rsplit(':').next()?.parse().ok()?)
    }
}

/// How many records a log has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Records {
    /// Of connections that were opened.
    pub(super) complete: u64,
    /// Of those that were refused before it was known who talks to whom.
    pub(super) early: u64,
    /// Both, on the way out of a pod, of connections to the server's ports.
    pub(super) outbound: PerLife,
    /// On the way into one.
    pub(super) inbound: PerLife,
    /// Outbound records that do not say what was asked for, since ztunnel could not know: the client had reset its
    /// connection so long before it was accepted that the kernel had forgotten where it went.
    pub(super) unplaced: u64,
    /// The first of the early refusals, word for word.
    pub(super) kept: Vec<String>,
}

/// Early refusals that are kept word for word.
const KEPT: usize = 5;

impl Records {
    pub(super) fn take(&mut self, line: &Line<'_>) {
        match (line.target, line.message) {
            ("access", "connection complete") => self.complete += 1,
            ("access", "connection failed") => {
                self.early += 1;
                if self.kept.len() < KEPT {
                    self.kept.push(format!("{} {}", line.time, line.fields));
                }
            }
            _ => return,
        }
        let side = match line.field("direction") {
            Some("outbound") => &mut self.outbound,
            Some("inbound") => &mut self.inbound,
            _ => return,
        };
        match line.life() {
            Some(life) => side.count(life),
            None => self.unplaced += u64::from(line.field("direction") == Some("outbound")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUT: &str = "2026-11-21T02:38:35.803626Z\tinfo\taccess\tconnection complete\tsrc.addr=10.1.0.2:39050 \
                       dst.addr=10.2.0.2:15008 dst.hbone_addr=10.2.0.2:9000 direction=\"outbound\" bytes_sent=77";
    const IN: &str = "2026-11-21T02:38:35.803626Z\terror\taccess\tconnection complete\tsrc.addr=10.1.0.2:39050 \
                      dst.addr=10.2.0.2:9006 direction=\"inbound\" error=\"io error: gone\" reason=\"app-lost\"";
    const EARLY: &str = "2026-11-21T02:38:35.803626Z\twarn\taccess\tconnection failed\tsrc.addr=10.1.0.2:39050 \
                         dst.addr=10.2.0.2:9000 direction=\"outbound\" error=\"gone\"";

    fn count(lines: &[&str]) -> Records {
        let mut records = Records::default();
        lines.iter().filter_map(|line| Line::parse(line)).for_each(|line| records.take(&line));
        records
    }

    #[test]
    fn a_record_counts_for_the_life_of_the_port_that_was_asked_for() {
        let records = count(&[OUT, OUT, IN, EARLY]);
        assert_eq!((records.complete, records.early), (3, 1));
        assert_eq!(records.outbound.of(Life::Talk), 3);
        assert_eq!((records.inbound.of(Life::Talk), records.inbound.of(Life::ClientEndsFirst)), (0, 1));
    }

    #[test]
    fn a_record_that_does_not_say_where_its_connection_went_is_counted_apart() {
        let records = count(&[&EARLY.replace(":9000", ":15001")]);
        assert_eq!((records.early, records.unplaced, records.outbound.sum()), (1, 1, 0));
        assert!(
            records.kept[0].starts_with("2026-11-21T02:38:35.803626Z src.addr=10.1.0.2:39050 "),
            "{:?}",
            records.kept
        );
    }

    #[test]
    fn lines_that_are_no_records_do_not_count() {
        let lines = ["", "thread panicked", "t\tinfo\tztunnel::xds\tconnection complete\tdirection=\"outbound\""];
        assert_eq!(count(&lines), Records::default());
    }

    #[test]
    fn the_level_of_a_line_is_known() {
        assert_eq!(Line::parse(IN).map(|line| line.level), Some("error"));
        assert_eq!(Line::parse("thread 'main' panicked"), None);
    }
}
