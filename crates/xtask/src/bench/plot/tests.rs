use super::lines::Axis;
use super::*;

fn spread(median: f64) -> Spread {
    Spread { median, least: median / 2.0, most: median * 2.0 }
}

fn bars(names: &[&str]) -> Plot {
    let bars = names.iter().zip(1..).map(|(name, n)| ((*name).to_owned(), spread(f64::from(n)))).collect();
    Plot::Bars(vec![Bars { title: "k/s".to_owned(), bars }])
}

fn lines(costs: [f64; 3]) -> Plot {
    let points = [1.0, 10.0, 100.0].into_iter().zip(costs.map(spread)).collect();
    let line = Line { says: "ztunnel: n^1.00, linear".to_owned(), points };
    Plot::Lines(vec![Lines { title: "CPU".to_owned(), of: "pods", lines: vec![line] }])
}

/// The values of an attribute of all elements of a kind.
fn values(svg: &str, element: &str, attribute: &str) -> Vec<f64> {
    let start = format!("<{element} ");
    let of = svg.split(start.as_str()).skip(1);
    let value = |text: &str| text.split(&format!(" {attribute}=\"")).nth(1)?.split('"').next()?.parse().ok();
    of.filter_map(value).collect()
}

#[test]
fn names_and_titles_cannot_break_out_of_their_text() {
    let svg = bars(&["<a href=\"x\">&'\u{7}"]).svg("a < b & c > d");
    assert!(svg.contains("&lt;a href=&quot;x&quot;&gt;&amp;&#39; </text>"), "{svg}");
    assert!(svg.contains("<title>a &lt; b &amp; c &gt; d</title>") && !svg.contains('\u{7}'));
}

#[test]
fn bars_are_as_long_as_their_figures_are_large() {
    let widths = values(&bars(&["one", "two", "three"]).svg("row"), "rect", "width");
    assert_eq!(widths.len(), 3);
    assert!((widths[1] - 2.0 * widths[0]).abs() < 0.2 && (widths[2] - 3.0 * widths[0]).abs() < 0.2, "{widths:?}");
}

#[test]
fn a_bar_of_nothing_has_no_width() {
    let none = Bars { title: String::new(), bars: vec![("none".to_owned(), Spread::of([0.0, -1.0]))] };
    assert_eq!(values(&Plot::Bars(vec![none]).svg("row"), "rect", "width"), [0.0]);
}

#[test]
fn everything_is_within_the_drawing() {
    for plot in [bars(&["a", "b"]), lines([1.0, 10.0, 100.0]), lines([0.0, -1.0, f64::NAN])] {
        let svg = plot.svg("row");
        let height = values(&svg, "svg", "height")[0];
        let (across, down) = (values(&svg, "text", "x"), values(&svg, "text", "y"));
        assert!(across.iter().all(|x| (0.0..=WIDTH).contains(x)) && down.iter().all(|y| (0.0..=height).contains(y)));
    }
}

#[test]
fn a_cost_in_proportion_rises_evenly_and_a_constant_one_is_level() {
    let marks = |costs| values(&lines(costs).svg("row"), "rect", "y").split_off(1); // the first is the legend's
    let rising = marks([1.0, 10.0, 100.0]);
    assert!((rising[0] - 2.0 * rising[1] + rising[2]).abs() < 0.2 && rising[0] > rising[2], "{rising:?}");
    let level = marks([5.0, 5.0, 5.0]);
    assert!(level.iter().all(|y| (y - level[0]).abs() < 0.01));
}

#[test]
fn an_axis_goes_from_decade_to_decade() {
    let axis = Axis::around([20.0, 3_000.0].into_iter(), 1.0);
    assert_eq!(axis, Axis { low: 1.0, high: 4.0 });
    assert_eq!((axis.part(10.0), axis.part(1e4), axis.part(-1.0)), (0.0, 1.0, 0.0));
}

#[test]
fn an_axis_without_values_is_one_nonetheless() {
    assert_eq!(Axis::around([0.0, -1.0].into_iter(), 2.0), Axis { low: 0.0, high: 2.0 });
}

#[test]
fn colours_follow_whether_the_reader_prefers_dark() {
    assert!(bars(&["a"]).svg("row").contains("prefers-color-scheme:dark"));
}
