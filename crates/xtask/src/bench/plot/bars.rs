//! Bars: the middle of a figure by contender, with a whisker from the least to the most.

use super::{Bars, COLOURS, Canvas, MARGIN, TEXT, TITLE, WIDTH};
use crate::bench::table::figure;

/// Where bars begin, right of the names.
const LEFT: f64 = 170.0;
/// Where the longest ends, left of its figure.
const RIGHT: f64 = WIDTH - 70.0;
/// From bar to bar.
const STEP: f64 = 22.0;
const THICK: f64 = 14.0;

impl Bars {
    pub(super) fn draw(&self, canvas: &mut Canvas) {
        canvas.text("panel", MARGIN, canvas.y + TEXT, "start", &self.title);
        canvas.y += TITLE;
        let most = self.bars.iter().map(|(_, spread)| spread.most).fold(0.0, f64::max);
        // What is below zero, as a difference may be, is drawn as nothing; its figure tells.
        let x = |value: f64| LEFT + (RIGHT - LEFT) * if most > 0.0 { value.max(0.0) / most } else { 0.0 };
        for (number, (name, spread)) in self.bars.iter().enumerate() {
            let (top, middle) = (canvas.y, canvas.y + THICK / 2.0);
            canvas.text("", LEFT - 8.0, top + THICK - 2.0, "end", name);
            canvas.bar(&format!("c{}", number % COLOURS), LEFT, top, x(spread.median) - LEFT, THICK);
            canvas.line("whisker", (x(spread.least), middle), (x(spread.most), middle));
            for end in [spread.least, spread.most] {
                canvas.line("whisker", (x(end), middle - 4.0), (x(end), middle + 4.0));
            }
            canvas.text(
                "",
                x(spread.most.max(spread.median)) + 6.0,
                top + THICK - 2.0,
                "start",
                &figure(spread.median),
            );
            canvas.y += STEP;
        }
    }
}
