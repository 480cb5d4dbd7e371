//! Figures as drawings: SVG that is read beside the tables, in light and in dark.
//!
//! Small, and written by hand: bars for those who are compared, lines on logarithmic axes for what grows. There a cost
//! in proportion to the size rises by a decade with each, and one that is constant is level.

mod bars;
mod lines;

use std::fmt::Write;

use super::measure::Spread;

/// A drawing: panels one below the other.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Plot {
    /// Figures of contenders.
    Bars(Vec<Bars>),
    /// Costs by size.
    Lines(Vec<Lines>),
}

/// One figure of several contenders.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bars {
    pub(super) title: String,
    pub(super) bars: Vec<(String, Spread)>,
}

/// One cost of one or several contenders.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Lines {
    pub(super) title: String,
    /// What the sizes count.
    pub(super) of: &'static str,
    pub(super) lines: Vec<Line>,
}

/// The cost of one contender.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    /// Who, and what there is to say of it.
    pub(super) says: String,
    /// Sizes, and the cost there.
    pub(super) points: Vec<(f64, Spread)>,
}

/// Width of a drawing, in pixels.
const WIDTH: f64 = 640.0;
/// Around everything.
const MARGIN: f64 = 12.0;
/// Height of a line of text.
const TEXT: f64 = 16.0;
/// Room for a drawing's title, and for a panel's.
const TITLE: f64 = 28.0;

const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#24292f}.title{font-weight:600;font-size:14px}\
    .panel{font-weight:600}.quiet{fill:#57606a}.axis{stroke:#d0d7de}.whisker{stroke:#24292f}\
    .c0{fill:#0969da;stroke:#0969da}.c1{fill:#bf8700;stroke:#bf8700}.c2{fill:#1a7f37;stroke:#1a7f37}\
    .c3{fill:#8250df;stroke:#8250df}.c4{fill:#cf222e;stroke:#cf222e}.c5{fill:#57606a;stroke:#57606a}\
    .line{fill:none;stroke-width:2}\
    @media(prefers-color-scheme:dark){text{fill:#e6edf3}.quiet{fill:#9198a1}.axis{stroke:#3d444d}\
    .whisker{stroke:#e6edf3}.c0{fill:#4493f8;stroke:#4493f8}.c1{fill:#d29922;stroke:#d29922}\
    .c2{fill:#3fb950;stroke:#3fb950}.c3{fill:#ab7df8;stroke:#ab7df8}.c4{fill:#f85149;stroke:#f85149}\
    .c5{fill:#9198a1;stroke:#9198a1}.line{fill:none}}";
/// Colours that the style has.
const COLOURS: usize = 6;

impl Plot {
    /// The drawing as a document.
    pub(super) fn svg(&self, title: &str) -> String {
        let mut canvas = Canvas { body: String::new(), y: MARGIN + TITLE };
        canvas.text("title", MARGIN, MARGIN + TEXT, "start", title);
        match self {
            Plot::Bars(panels) => panels.iter().for_each(|panel| panel.draw(&mut canvas)),
            Plot::Lines(panels) => panels.iter().for_each(|panel| panel.draw(&mut canvas)),
        }
        let height = canvas.y + MARGIN;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" \
             height=\"{height:.0}\" role=\"img\">\n<title>{}</title>\n<style>{STYLE}</style>\n{}</svg>\n",
            escaped(title),
            canvas.body
        )
    }
}

/// What has been drawn, and how far down.
struct Canvas {
    body: String,
    y: f64,
}

impl Canvas {
    fn text(&mut self, class: &str, x: f64, y: f64, anchor: &str, text: &str) {
        let text = escaped(text);
        // Writing to a string cannot fail.
        let _ = writeln!(
            self.body,
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        );
    }

    fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = writeln!(
            self.body,
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        );
    }

    fn bar(&mut self, class: &str, x: f64, y: f64, width: f64, height: f64) {
        let _ = writeln!(
            self.body,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
        );
    }
}

/// A text as it may stand in XML.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // Not allowed in XML, escaped or not.
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests;
