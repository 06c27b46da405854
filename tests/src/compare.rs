//! Golden tensors against ours.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use burn::tensor::{DType, Tensor};

use crate::tensors::{Tensors, Values};

/// Largest error relative to the tensor's largest magnitude, unless a test says another.
pub const TOLERANCE: f64 = 1e-4;
/// Differences that a failure lists.
const LISTED: usize = 8;

/// The comparisons of one test: it collects what differs, so that a failure shows all of it, and the largest errors, so
/// that a pass can show them (`--nocapture`).
#[derive(Debug)]
pub struct Comparison<'a> {
    golden: &'a Tensors,
    seen: BTreeSet<String>,
    failures: Vec<String>,
    worst: BTreeMap<String, (f64, String)>,
}

impl<'a> Comparison<'a> {
    /// Comparisons with tensors of this file.
    #[must_use]
    pub fn new(golden: &'a Tensors) -> Self {
        Self {
            golden,
            seen: BTreeSet::new(),
            failures: Vec::new(),
            worst: BTreeMap::new(),
        }
    }

    /// Compares all of `ours` with the golden tensor `case/place`.
    pub fn whole(&mut self, case: &str, place: &str, ours: &[f32]) {
        let golden = self.golden.get(&format!("{case}/{place}"));
        let width = golden.map_or(ours.len(), |golden| golden.rows()[1]);
        self.tensor(case, place, ours, width, None, TOLERANCE);
    }

    /// Compares the rows `rows` of `ours` with the golden tensor `case/place`, which holds these rows alone.
    pub fn rows(&mut self, case: &str, place: &str, ours: Tensor<2>, rows: &[usize]) {
        let [_, width] = ours.dims();
        self.tensor(case, place, &values(ours), width, Some(rows), TOLERANCE);
    }

    /// Compares rows of `width` values within `tolerance`: those at `rows`, or all.
    #[expect(
        clippy::too_many_arguments,
        reason = "a comparison is told all that its failure must say"
    )]
    pub fn tensor(
        &mut self,
        case: &str,
        place: &str,
        ours: &[f32],
        width: usize,
        rows: Option<&[usize]>,
        tolerance: f64,
    ) {
        let name = format!("{case}/{place}");
        let Some(golden) = self.golden.get(&name) else {
            self.failures.push(format!("{name}: not a golden tensor"));
            return;
        };
        self.seen.insert(name.clone());
        match select(ours, width, rows, golden) {
            Ok(ours) => self.values(case, place, (&ours, &golden.data), width, rows, tolerance),
            Err(why) => self.failures.push(format!("{name}: {why}")),
        }
    }

    /// Compares `ours` with a part of the golden tensor `case/place`, which counts as seen.
    pub fn against(&mut self, case: &str, place: &str, ours: &[f32], golden: &[f32]) {
        self.seen.insert(format!("{case}/{place}"));
        if ours.len() == golden.len() {
            let width = ours.len();
            self.values(case, place, (ours, golden), width, None, TOLERANCE);
        } else {
            let (ours, golden) = (ours.len(), golden.len());
            self.failures
                .push(format!("{case}/{place}: {ours} values, golden {golden}"));
        }
    }

    /// Compares `ours` with golden values of any origin; `rows` are the numbers of the rows in the whole tensor.
    #[expect(
        clippy::too_many_arguments,
        reason = "a comparison is told all that its failure must say"
    )]
    fn values(
        &mut self,
        case: &str,
        place: &str,
        (ours, golden): (&[f32], &[f32]),
        width: usize,
        rows: Option<&[usize]>,
        tolerance: f64,
    ) {
        let scale = golden
            .iter()
            .fold(0.0_f64, |a, x| a.max(f64::from(x.abs())));
        let error = |(a, b): (&f32, &f32)| f64::from((a - b).abs()) / scale.max(f64::MIN_POSITIVE);
        // A number that is not one is the largest error there is.
        let rank = |x: f64| if x.is_nan() { f64::INFINITY } else { x };
        let errors = ours.iter().zip(golden).map(error).map(rank);
        let Some((at, largest)) = errors.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)) else {
            return;
        };
        self.note(place, largest, case);
        if largest > tolerance {
            let row = rows.map_or(at / width, |rows| rows[at / width]);
            self.failures.push(format!(
                "{case}/{place}: row {row}, element {}: ours {}, golden {}; {largest:.1e} of the largest magnitude \
                 {scale:.4}, allowed {tolerance:.0e}",
                at % width,
                ours[at],
                golden[at],
            ));
        }
    }

    /// Compares a wave with the golden samples `case/place`, whose places in it are `case/place.at`, or all.
    pub fn wave(&mut self, case: &str, place: &str, ours: &[f32]) {
        let Some(at) = self.golden.get(&format!("{case}/{place}.at")) else {
            return self.whole(case, place, ours);
        };
        let at: Vec<usize> = at.integers().into_iter().map(|x| x as usize).collect();
        self.tensor(case, place, ours, 1, Some(&at), TOLERANCE);
    }

    /// Records an error for the table.
    pub fn note(&mut self, place: &str, error: f64, case: &str) {
        let worst = self
            .worst
            .entry(place.to_owned())
            .or_insert((-1.0, String::new()));
        if error > worst.0 {
            *worst = (error, case.to_owned());
        }
    }

    /// Compares what must be equal.
    pub fn equal<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, ours: &T, golden: &T) {
        if ours != golden {
            self.failures
                .push(format!("{what}: ours {ours:?}, golden {golden:?}"));
        }
    }

    /// Compares integers with the rows of a golden tensor, value by value.
    pub fn integers(&mut self, case: &str, place: &str, ours: &[u32]) {
        let name = format!("{case}/{place}");
        match self.golden.get(&name) {
            Some(golden) => {
                let golden = golden.integers();
                self.seen.insert(name.clone());
                let first = ours.iter().zip(&golden).position(|(a, b)| a != b);
                if ours.len() != golden.len() || first.is_some() {
                    let at = first.unwrap_or(ours.len().min(golden.len()));
                    self.failures.push(format!(
                        "{name}: {} values, golden {}; the first difference is at {at}: {:?}, golden {:?}",
                        ours.len(),
                        golden.len(),
                        ours.get(at),
                        golden.get(at),
                    ));
                } else {
                    self.note(place, 0.0, case);
                }
            }
            None => self.failures.push(format!("{name}: not a golden tensor")),
        }
    }

    /// Leaves a golden tensor to another test.
    pub fn seen(&mut self, case: &str, place: &str) {
        self.seen.insert(format!("{case}/{place}"));
    }

    /// Fails for golden tensors of a stage (without one, of the case) that nothing was compared with.
    pub fn covers(&mut self, case: &str, stage: &str) {
        let prefix = [case, stage, ""].join("/").replace("//", "/");
        for layer in self.golden.below(&prefix) {
            let name = format!("{prefix}{layer}");
            // Indices of samples belong to the tensor beside them.
            if !self.seen.contains(&name) && !name.ends_with(".at") {
                self.failures
                    .push(format!("{name}: nothing of ours to compare with"));
            }
        }
    }

    /// Prints the largest error of every place.
    ///
    /// # Panics
    /// When anything differed, with a list of it.
    #[expect(clippy::print_stdout, reason = "a table for `--nocapture`")]
    pub fn finish(self, what: &str) {
        let mut table =
            format!("{what}: largest error, relative to the tensor's largest magnitude\n");
        for (place, (error, case)) in &self.worst {
            let _ = writeln!(table, "  {place:<24} {error:>8.1e}  {case}");
        }
        println!("{table}");
        let count = self.failures.len();
        let listed = self.failures[..count.min(LISTED)].join("\n  ");
        assert!(count == 0, "{what}: {count} differ\n  {listed}\n{table}");
    }
}

/// The rows of `ours` that the golden tensor holds.
fn select(
    ours: &[f32],
    width: usize,
    rows: Option<&[usize]>,
    golden: &Values,
) -> Result<Vec<f32>, String> {
    let selected = match rows {
        None => ours.to_vec(),
        Some(rows) => {
            let mut selected = Vec::with_capacity(rows.len() * width);
            for row in rows {
                let place = row * width..(row + 1) * width;
                let Some(values) = ours.get(place) else {
                    return Err(format!(
                        "ours has {} rows, no row {row}",
                        ours.len() / width
                    ));
                };
                selected.extend(values);
            }
            selected
        }
    };
    let count = selected.len();
    let width_differs = golden.shape.len() == 2 && golden.shape[1] != width;
    if width_differs || count != golden.data.len() {
        let shape = &golden.shape;
        return Err(format!(
            "{count} values in rows of {width}, golden {shape:?}"
        ));
    }
    Ok(selected)
}

/// The values of a tensor.
///
/// # Panics
/// When it is not of numbers.
#[must_use]
pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor
        .cast(DType::F32)
        .into_data()
        .try_to_vec()
        .expect("the tensor was cast to f32")
}

/// The largest difference of two lists of the same length.
#[must_use]
pub fn furthest(ours: &[f32], golden: &[f32]) -> f32 {
    let pairs = ours.iter().zip(golden);
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}
