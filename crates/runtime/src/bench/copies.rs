//! What the device's memory can do.

use std::time::Duration;

use burn::tensor::{DType, Device, Int, Tensor};
use burn_omni_ops as ops;

use super::figure::{Figure, timed};
use crate::Error;

/// Words of the smallest and of the largest copy: 64 MiB and 1 GiB.
const SMALLEST: usize = 1 << 24;
const LARGEST: usize = 1 << 28;
/// Copies that are timed together, so that what a launch costs is not counted.
const TOGETHER: u32 = 8;
/// A copy that takes this long is large enough.
const LONG: Duration = Duration::from_millis(10);

/// Bytes read and written in a second by copies from one place on the device to another.
pub(super) fn bandwidth(device: &Device, repeat: usize) -> Result<Figure, Error> {
    let mut words = SMALLEST;
    loop {
        let mut pair = Pair::new(device, words);
        pair.time(device)?; // Compiles the kernel, and touches all pages.
        let time = pair.time(device)?;
        if time < LONG && words < LARGEST {
            words *= 2;
            // Two copies of the largest size are what a card has room for beside a model.
            drop(pair);
            device.memory_cleanup();
            continue;
        }
        let bytes = 2 * words * size_of::<u32>();
        let rates: Result<Vec<_>, Error> = (0..repeat)
            .map(|_| Ok(bytes as f64 / pair.time(device)?.as_secs_f64() / 1e9))
            .collect();
        let detail = format!("copies of {} MiB, read and written", bytes >> 21);
        return Ok(Figure::of("copy_bandwidth", "GB/s", rates?, detail));
    }
}

struct Pair {
    from: Tensor<1, Int>,
    to: Option<Tensor<1, Int>>,
}

impl Pair {
    fn new(device: &Device, words: usize) -> Self {
        let room = || Tensor::zeros([words], (device, DType::U32));
        Self {
            from: room(),
            to: Some(room()),
        }
    }

    /// The time of one copy.
    fn time(&mut self, device: &Device) -> Result<Duration, Error> {
        let from = &self.from;
        let mut to = self.to.take().expect("it is put back");
        let (to, time) = timed(device, || {
            for _ in 0..TOGETHER {
                to = ops::copy(from.clone(), to);
            }
            Ok(to)
        })?;
        self.to = Some(to);
        Ok(time / TOGETHER)
    }
}
