//! Lines: a cost by size, both axes logarithmic, with a whisker from the least to the most at every size.

use std::fmt::Write;

use super::{COLOURS, Canvas, Line, Lines, MARGIN, TEXT, TITLE, WIDTH};
use crate::bench::table::figure;

const LEFT: f64 = 70.0;
const RIGHT: f64 = WIDTH - 40.0;
/// Of the field between the axes.
const HEIGHT: f64 = 150.0;
/// Decades of an axis: what hardly differs must not look as if it did, and what is nothing must not stretch it.
const DECADES: (f64, f64) = (2.0, 8.0);

/// A logarithmic axis from decade to decade.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Axis {
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Axis {
    /// Around all values above zero.
    pub(super) fn around(values: impl Iterator<Item = f64> + Clone, least: f64) -> Self {
        let logs = values.filter(|value| *value > 0.0 && value.is_finite()).map(f64::log10);
        let high = logs.clone().fold(f64::NEG_INFINITY, f64::max).ceil();
        let low = logs.fold(f64::INFINITY, f64::min).floor();
        if !high.is_finite() || !low.is_finite() {
            return Self { low: 0.0, high: least };
        }
        Self { low: low.min(high - least).max(high - DECADES.1), high }
    }

    /// Where a value is, from 0 to 1; what is too small to be on the axis is at its beginning.
    pub(super) fn part(self, value: f64) -> f64 {
        let log = if value > 0.0 { value.log10() } else { self.low };
        ((log - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    fn decades(self) -> impl Iterator<Item = f64> {
        (self.low as i32..=self.high as i32).map(|decade| 10_f64.powi(decade))
    }
}

impl Lines {
    pub(super) fn draw(&self, canvas: &mut Canvas) {
        canvas.text("panel", MARGIN, canvas.y + TEXT, "start", &self.title);
        canvas.y += TITLE;
        for (number, line) in self.lines.iter().enumerate() {
            canvas.bar(&format!("c{}", number % COLOURS), LEFT, canvas.y, 10.0, 10.0);
            canvas.text("quiet", LEFT + 16.0, canvas.y + 10.0, "start", &line.says);
            canvas.y += TEXT;
        }
        let points = self.lines.iter().flat_map(|line| &line.points);
        let across = Axis::around(points.clone().map(|(size, _)| *size), 1.0);
        let up = Axis::around(points.flat_map(|(_, cost)| [cost.median, cost.least, cost.most]), DECADES.0);
        let (top, bottom) = (canvas.y + 4.0, canvas.y + 4.0 + HEIGHT);
        let x = |size: f64| LEFT + (RIGHT - LEFT) * across.part(size);
        let y = |cost: f64| bottom - HEIGHT * up.part(cost);
        for cost in up.decades() {
            canvas.line("axis", (LEFT, y(cost)), (RIGHT, y(cost)));
            canvas.text("quiet", LEFT - 6.0, y(cost) + 4.0, "end", &short(cost));
        }
        for size in across.decades() {
            canvas.line("axis", (x(size), top), (x(size), bottom));
            canvas.text("quiet", x(size), bottom + TEXT, "middle", &short(size));
        }
        for (number, line) in self.lines.iter().enumerate() {
            line.draw(canvas, number, x, y);
        }
        canvas.text("quiet", RIGHT, bottom + 2.0 * TEXT, "end", self.of);
        canvas.y = bottom + 2.0 * TEXT + MARGIN;
    }
}

impl Line {
    fn draw(&self, canvas: &mut Canvas, number: usize, x: impl Fn(f64) -> f64, y: impl Fn(f64) -> f64) {
        let class = format!("c{}", number % COLOURS);
        let mut path = String::new();
        for (size, cost) in &self.points {
            let (across, up) = (x(*size), y(cost.median));
            canvas.line("whisker", (across, y(cost.least)), (across, y(cost.most)));
            canvas.bar(&class, across - 3.0, up - 3.0, 6.0, 6.0);
            // Contenders' figures would lie upon each other: those of the first only.
            if number == 0 {
                canvas.text("quiet", across + 5.0, up - 6.0, "start", &figure(cost.median));
            }
            let _ = write!(path, "{across:.1},{up:.1} ");
        }
        let _ = writeln!(canvas.body, "<polyline class=\"{class} line\" points=\"{}\"/>", path.trim_end());
    }
}

/// A power of ten.
fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.0}M", value / 1e6),
        value if value >= 1e3 => format!("{:.0}k", value / 1e3),
        value => format!("{value}"),
    }
}
