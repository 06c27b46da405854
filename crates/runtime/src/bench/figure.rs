//! One measured number.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use serde::Serialize;

use crate::{Error, stages};

/// A number that was measured, or the middle of several.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// The stage: `thinker.decode`, `talker.frame`, `copy_bandwidth` and so on.
    pub what: Cow<'static, str>,
    /// The median.
    pub value: f64,
    /// Unit of all numbers but the fraction.
    pub unit: &'static str,
    /// Smallest and largest.
    pub spread: [f64; 2],
    /// Where the bytes of the weights are the limit: those that had to be read in that time, as a share of those that the
    /// device copies in it, counted read and written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fraction: Option<f64>,
    /// What was done, in words.
    pub detail: String,
}

impl Figure {
    /// The middle of these values; there is at least one.
    pub(super) fn of(
        what: impl Into<Cow<'static, str>>,
        unit: &'static str,
        values: impl IntoIterator<Item = f64>,
        detail: impl Into<String>,
    ) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (first, last) = (values.first(), values.last());
        Self {
            what: what.into(),
            value: f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2]),
            unit,
            spread: [first, last].map(|value| *value.expect("something was measured")),
            fraction: None,
            detail: detail.into(),
        }
    }

    /// A figure that is what it is.
    pub(super) fn one(what: &'static str, unit: &'static str, value: f64) -> Self {
        Self::of(what, unit, [value], "")
    }

    /// The same with the share of `bandwidth`, in bytes a second, that reading `bytes` in the median `time` is.
    pub(super) fn reading(mut self, bytes: usize, time: Duration, bandwidth: f64) -> Self {
        self.fraction = Some(bytes as f64 / time.as_secs_f64() / bandwidth);
        self
    }
}

/// The time that something takes on a device which has nothing else to do, until it is done.
pub(super) fn timed<T>(
    device: &Device,
    work: impl FnOnce() -> Result<T, Error>,
) -> Result<(T, Duration), Error> {
    wait(device)?;
    let start = Instant::now();
    let done = work()?;
    wait(device)?;
    Ok((done, start.elapsed()))
}

/// Waits until the device has done what was asked of it.
pub(super) fn wait(device: &Device) -> Result<(), Error> {
    stages::wait(device).map_err(Error::Device)
}

/// The middle of some times.
pub(super) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    (times[(times.len() - 1) / 2] + times[times.len() / 2]) / 2
}

/// How a step is done, in words.
pub(super) fn way(captured: bool) -> &'static str {
    if captured { "captured" } else { "pass by pass" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_the_middle_with_both_ends() {
        let of = |values: &[f64]| {
            let figure = Figure::of("load", "s", values.iter().copied(), "");
            (figure.value, figure.spread)
        };
        assert_eq!(of(&[3.0]), (3.0, [3.0, 3.0]));
        assert_eq!(of(&[5.0, 1.0, 2.0]), (2.0, [1.0, 5.0]));
        assert_eq!(of(&[5.0, 1.0, 2.0, 4.0]), (3.0, [1.0, 5.0]));
        let seconds = [4, 1, 2, 3].map(Duration::from_secs).to_vec();
        assert_eq!(median(seconds), Duration::from_millis(2500));
    }

    #[test]
    fn reading_at_the_speed_of_copies_is_all_of_them() {
        let figure = Figure::one("thinker.decode", "tokens/s", 2.0);
        let figure = figure.reading(100, Duration::from_millis(500), 200.0);
        assert_eq!(figure.fraction, Some(1.0));
    }
}
