//! How a cost grows with a size: its exponent, and the shape that explains it best.
//!
//! Both are of the cost itself, not of what is above the cost at the smallest size: the difference of two figures that
//! hardly differ is noise, and noise has no order. A large fixed part keeps the exponent low, therefore the shape is
//! told beside it: shapes have a fixed part of their own, so that a small part that grows linearly is found.

/// A cost that nowhere is so many times that at the smallest size does not grow as far as these measurements tell.
const NOISE: f64 = 1.5;
/// Any two points are on a line of every shape.
const FEWEST: usize = 3;
/// Above this exponent a cost is worse than linear, whatever shape fits.
const LINEAR: f64 = 1.15;

/// What a cost does as a size grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Nothing, or it falls.
    Constant,
    /// Grows by as much with every factor.
    Logarithmic,
    /// Grows as the square root, more or less.
    Root,
    /// Grows by as much with every one.
    Linear,
    /// Each one costs more than the one before.
    Worse,
}

impl Order {
    pub(super) fn name(self) -> &'static str {
        match self {
            Order::Constant => "constant",
            Order::Logarithmic => "logarithmic",
            Order::Root => "less than linear",
            Order::Linear => "linear",
            Order::Worse => "worse than linear",
        }
    }
}

/// How a cost grows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Fit {
    /// The power of the size that the cost is, by least squares of logarithms.
    pub(super) exponent: f64,
    pub(super) order: Order,
}

impl Fit {
    /// Of sizes and costs, by rising size; `None` of fewer than [`FEWEST`] that are above zero.
    pub(super) fn of(points: &[(f64, f64)]) -> Option<Self> {
        let positive = |(size, cost): &&(f64, f64)| *size > 0.0 && *cost > 0.0 && cost.is_finite();
        let points: Vec<(f64, f64)> = points.iter().filter(positive).copied().collect();
        let (&(least, first), rest) = points.split_first().filter(|_| points.len() >= FEWEST)?;
        let exponent = slope(&points);
        let grows = rest.iter().any(|(_, cost)| *cost > first * NOISE);
        let order = match (grows, exponent > LINEAR) {
            (false, _) => Order::Constant,
            (true, true) => Order::Worse,
            (true, false) => shape(&points, least),
        };
        Some(Self { exponent, order })
    }

    /// As it is shown: `n^0.02, constant`.
    pub(super) fn text(self) -> String {
        // No minus before a zero.
        let exponent = if self.exponent.abs() < 0.005 { 0.0 } else { self.exponent };
        format!("n^{exponent:.2}, {}", self.order.name())
    }
}

/// Of a straight line through the logarithms.
fn slope(points: &[(f64, f64)]) -> f64 {
    let logs: Vec<(f64, f64)> = points.iter().map(|(size, cost)| (size.ln(), cost.ln())).collect();
    let count = logs.len() as f64;
    let (x, y) = logs.iter().fold((0.0, 0.0), |(x, y), log| (x + log.0 / count, y + log.1 / count));
    let (above, below) = logs
        .iter()
        .fold((0.0, 0.0), |(above, below), log| (above + (log.0 - x) * (log.1 - y), below + (log.0 - x).powi(2)));
    if below > 0.0 { above / below } else { 0.0 }
}

/// What a cost is in proportion to, beside its fixed part.
type Shape = fn(f64) -> f64;

/// The shape that leaves the least unexplained.
fn shape(points: &[(f64, f64)], least: f64) -> Order {
    let shapes: [(Order, Shape); 4] = [
        (Order::Logarithmic, f64::ln),
        (Order::Root, f64::sqrt),
        (Order::Linear, |size| size),
        (Order::Worse, |size| size * size),
    ];
    let of = |shape: Shape| points.iter().map(|(size, cost)| (shape(size / least), *cost)).collect::<Vec<_>>();
    let left = shapes.map(|(order, shape)| (order, unexplained(&of(shape))));
    left.into_iter().min_by(|a, b| a.1.total_cmp(&b.1)).map_or(Order::Worse, |(order, _)| order)
}

/// What is left of costs when the best `fixed + growing * x` is taken from them, neither below zero: the sum of the
/// squares, each in parts of its cost, so that small sizes count as much as large ones.
fn unexplained(points: &[(f64, f64)]) -> f64 {
    let sum = |of: fn(f64, f64) -> f64| points.iter().map(|(x, cost)| of(1.0 / cost, x / cost)).sum::<f64>();
    let (uu, uv, vv, u, v) = (sum(|u, _| u * u), sum(|u, v| u * v), sum(|_, v| v * v), sum(|u, _| u), sum(|_, v| v));
    let determinant = uu * vv - uv * uv;
    let both = ((u * vv - v * uv) / determinant, (v * uu - u * uv) / determinant);
    let (fixed, growing) = match both {
        (fixed, _) if !fixed.is_finite() || fixed < 0.0 => (0.0, v / vv),
        (_, growing) if growing < 0.0 => (u / uu, 0.0),
        both => both,
    };
    points.iter().map(|(x, cost)| ((fixed + growing * x) / cost - 1.0).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [f64; 5] = [1.0, 10.0, 100.0, 1_000.0, 10_000.0];

    fn fit(cost: impl Fn(f64) -> f64) -> Fit {
        Fit::of(&SIZES.map(|size| (size, cost(size)))).unwrap()
    }

    #[test]
    fn a_power_has_its_exponent() {
        assert!((fit(|n| 3.0 * n.powf(0.7)).exponent - 0.7).abs() < 1e-9);
    }

    #[test]
    fn what_differs_by_noise_alone_is_constant() {
        let noisy = [200.0, 170.0, 215.0, 205.0, 270.0];
        let points: Vec<_> = SIZES.into_iter().zip(noisy).collect();
        assert_eq!(Fit::of(&points).unwrap().order, Order::Constant);
    }

    #[test]
    fn what_falls_is_constant() {
        assert_eq!(fit(|n| 100.0 / n).order, Order::Constant);
    }

    #[test]
    fn the_same_again_for_every_factor_is_logarithmic() {
        assert_eq!(fit(|n| 100.0 + 20.0 * n.ln()).order, Order::Logarithmic);
    }

    #[test]
    fn a_root_is_less_than_linear() {
        assert_eq!(fit(|n| 5.0 + n.sqrt()).order, Order::Root);
    }

    #[test]
    fn a_small_part_that_grows_with_every_one_is_found_beside_a_large_one_that_does_not() {
        let fit = fit(|n| 200.0 + 0.015 * n);
        assert!(fit.exponent < 0.1, "{fit:?}");
        assert_eq!(fit.order, Order::Linear);
    }

    #[test]
    fn what_is_in_proportion_is_linear() {
        let fit = fit(|n| 2.0 * n);
        assert_eq!((fit.order, fit.text()), (Order::Linear, "n^1.00, linear".to_owned()));
    }

    #[test]
    fn a_square_is_worse_than_linear_even_beside_a_large_fixed_part() {
        assert_eq!(fit(|n| n * n).order, Order::Worse);
        assert_eq!(fit(|n| 1_000.0 + 1e-4 * n * n).order, Order::Worse);
    }

    #[test]
    fn three_sizes_suffice_and_two_do_not() {
        let linear = [(1e3, 2.1), (1e4, 19.0), (1e5, 205.0)];
        assert_eq!(Fit::of(&linear).unwrap().order, Order::Linear);
        assert_eq!(Fit::of(&linear[..2]), None);
    }

    #[test]
    fn a_cost_that_could_not_be_seen_is_left_out() {
        let points = [(1.0, -3.0), (10.0, 20.0), (100.0, 200.0), (1_000.0, 2_000.0)];
        assert_eq!(Fit::of(&points).unwrap().text(), "n^1.00, linear");
    }
}
