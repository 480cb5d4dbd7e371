//! Texts into values, as the existing settings are spelled (spec configuration 2).

use std::time::Duration;

/// Reads a time: a sum of numbers with units such as `1h30m` or `3m + 31`, or a product such as `1m*10`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let mut product: Option<Duration> = None;
    for factor in text.split('*') {
        let factor = factor.trim();
        product = Some(match product {
            None => sum(factor)?,
            Some(so_far) => {
                let times: u32 = factor.parse().map_err(|_| format!("`{factor}` is not a whole number"))?;
                so_far.checked_mul(times).ok_or("the time is too long")?
            }
        });
    }
    product.ok_or_else(|| "no time given".to_owned())
}

fn sum(text: &str) -> Result<Duration, String> {
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err("no time given".to_owned());
    }
    while !rest.is_empty() {
        rest = rest.trim_start_matches('+').trim_start();
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| format!("expected a number at `{rest}`"))?;
        let tail = tail.trim_start();
        let letters = tail.find(|c: char| !c.is_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let term = nanoseconds(unit)
            .ok_or_else(|| format!("unknown unit `{unit}`"))
            .map(|unit| unit.checked_mul(u128::from(number)))?
            .and_then(|n| Some(Duration::new(u64::try_from(n / NANOS).ok()?, (n % NANOS) as u32)));
        total = term.and_then(|term| total.checked_add(term)).ok_or("the time is too long")?;
        rest = tail.trim_start();
    }
    Ok(total)
}

const NANOS: u128 = 1_000_000_000;

/// One of a unit. No unit means seconds.
fn nanoseconds(unit: &str) -> Option<u128> {
    Some(match unit.to_lowercase().as_str() {
        "ns" | "nsec" | "nanosecond" | "nanoseconds" => 1,
        "us" | "µs" | "usec" | "microsecond" | "microseconds" => 1_000,
        "ms" | "msec" | "millisecond" | "milliseconds" => 1_000_000,
        "" | "s" | "sec" | "second" | "seconds" => NANOS,
        "m" | "min" | "minute" | "minutes" => 60 * NANOS,
        "h" | "hr" | "hour" | "hours" => 3_600 * NANOS,
        "d" | "day" | "days" => 86_400 * NANOS,
        "w" | "week" | "weeks" => 7 * 86_400 * NANOS,
        "mon" | "month" | "months" => 30 * 86_400 * NANOS,
        "y" | "year" | "years" => 365 * 86_400 * NANOS,
        _ => return None,
    })
}

/// Reads a CPU quantity such as `2`, `1.5` or `1500m`, in cores, rounded up.
pub(super) fn cpu(text: &str) -> Result<usize, String> {
    let wrong = || "must be a positive CPU quantity".to_owned();
    let (number, scale) = text.strip_suffix('m').map_or((text, 1.0), |milli| (milli, 1000.0));
    let cores = number.trim().parse::<f64>().map_err(|_| wrong())? / scale;
    if cores.is_finite() && cores > 0.0 && cores <= 4096.0 { Ok(cores.ceil() as usize) } else { Err(wrong()) }
}

/// What `ZTUNNEL_WORKER_THREADS` says, for a machine of `cores`.
pub(super) fn threads(text: &str, cores: usize) -> Result<usize, String> {
    if let Some(share) = text.strip_suffix('%') {
        let share: f64 = share.trim().parse().map_err(|e| format!("invalid percentage: {e}"))?;
        if !(share > 0.0 && share <= 100.0) {
            return Err("percentage must be between 0 and 100".to_owned());
        }
        return Ok(((cores as f64 * share / 100.0).ceil() as usize).max(1));
    }
    match text.parse::<usize>().map_err(|e| format!("invalid number: {e}"))? {
        0 => Ok(cores),
        n if n <= 4096 => Ok(n),
        n => Err(format!("invalid number: {n} threads are more than 4096")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_sums_or_products_of_units() {
        for (text, seconds) in [
            ("90", 90.0),
            ("90s", 90.0),
            ("1h30m", 5400.0),
            ("3m + 31", 211.0),
            ("1m*10", 600.0),
            ("2w", 1_209_600.0),
            ("1mon", 2_592_000.0),
            ("1Y", 31_536_000.0),
            ("1500ms", 1.5),
            ("0", 0.0),
            (" 1 hour 1 min ", 3660.0),
            ("250 µs", 0.000_25),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        for text in
            ["", "s", "-1s", "1.5s", "1 fortnight", "1m*x", "99999999999999999999", "1h,1m", "18446744073709551615y"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cpu_quantities_round_up() {
        for (text, cores) in [("1", 1), ("1.2", 2), ("1500m", 2), ("100m", 1)] {
            assert_eq!(cpu(text), Ok(cores), "{text}");
        }
        for text in ["0", "-1", "", "m", "NaN", "inf", "1e9"] {
            assert!(cpu(text).is_err(), "{text}");
        }
    }

    #[test]
    fn thread_counts_are_numbers_or_shares() {
        for (text, threads_of_8) in [("3", 3), ("0", 8), ("50%", 4), ("1%", 1), ("12.6%", 2), ("100%", 8)] {
            assert_eq!(threads(text, 8), Ok(threads_of_8), "{text}");
        }
        for (text, error) in [
            ("0%", "percentage must be between 0 and 100"),
            ("101%", "percentage must be between 0 and 100"),
            ("x%", "invalid percentage"),
            ("x", "invalid number"),
            ("-1", "invalid number"),
            ("99999", "invalid number"),
        ] {
            assert!(threads(text, 8).unwrap_err().starts_with(error), "{text}");
        }
    }
}
