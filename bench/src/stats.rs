//! Medians and percentiles: what a machine that others use as well cannot spoil at once.

use std::time::Duration;

/// The median; zero of nothing.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    percentile(values.into_iter().collect(), 0.5)
}

/// The value below which that part of all lies; zero of nothing.
fn percentile(mut values: Vec<f64>, part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1) as f64;
    let at = (last * part).round() as usize;
    values.get(at).copied().unwrap_or_default()
}

/// The median and the 99th percentile, in microseconds.
pub(crate) fn p50_and_p99(times: &[Duration]) -> (f64, f64) {
    let micros: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e6).collect();
    (percentile(micros.clone(), 0.5), percentile(micros, 0.99))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([]), 0.0);
        let times: Vec<Duration> = (0..=100).map(Duration::from_micros).collect();
        let (p50, p99) = p50_and_p99(&times);
        assert_eq!((p50.round(), p99.round()), (50.0, 99.0));
    }
}
