//! What was compared, how far it is apart, and how far it may be.

use std::fmt::Write as _;

use burn::tensor::Tensor;

use crate::compare::values;

/// The comparisons of one run, in the order of the stages.
#[derive(Debug, Default)]
pub struct Table(Vec<Line>);

#[derive(Debug)]
struct Line {
    stage: String,
    rows: usize,
    error: f64,
    bound: f64,
    remark: String,
}

impl Table {
    /// Notes an error of so many rows.
    pub fn note(&mut self, stage: impl Into<String>, rows: usize, error: f64, bound: f64) {
        self.remark(stage, (rows, error, bound), String::new());
    }

    /// The same with something to say.
    pub fn remark(
        &mut self,
        stage: impl Into<String>,
        (rows, error, bound): (usize, f64, f64),
        remark: String,
    ) {
        self.0.push(Line {
            stage: stage.into(),
            rows,
            error,
            bound,
            remark,
        });
    }

    /// Prints all lines.
    ///
    /// # Panics
    /// When a bound is exceeded: names the first stage of which that is so.
    #[expect(clippy::print_stdout, reason = "a table for `--nocapture`")]
    pub fn finish(self, what: &str) {
        let mut text = format!(
            "{what}\n  {:<44} {:>5} {:>9} {:>9}\n",
            "stage", "rows", "error", "bound"
        );
        for line in &self.0 {
            let Line {
                stage,
                rows,
                error,
                bound,
                remark,
            } = line;
            let verdict = if line.holds() { "" } else { "  EXCEEDED" };
            let _ = writeln!(
                text,
                "  {stage:<44} {rows:>5} {error:>9.1e} {bound:>9.1e}  {remark}{verdict}"
            );
        }
        println!("{text}");
        assert!(!self.0.is_empty(), "{what}: nothing was compared");
        let first = self.0.iter().find(|line| !line.holds());
        if let Some(Line {
            stage,
            error,
            bound,
            ..
        }) = first
        {
            let count = self.0.iter().filter(|line| !line.holds()).count();
            panic!(
                "{what}: {count} stages are too far apart, the first of them {stage}: {error:.1e}, allowed {bound:.1e}\n{text}"
            );
        }
    }
}

impl Line {
    /// An error that is no number does not hold.
    fn holds(&self) -> bool {
        self.error <= self.bound
    }
}

/// How far rows are apart, the worst of those that `counts`: the length of the difference as a share of the length of what
/// the stage added to its input; without an input, of the row.
///
/// # Panics
/// When the shapes differ.
pub(super) fn worst(
    found: Tensor<2>,
    expected: &Tensor<2>,
    entering: Option<&Tensor<2>>,
    counts: impl Fn(usize) -> bool,
) -> f64 {
    assert_eq!(found.dims(), expected.dims(), "both have the same shape");
    let [_, width] = found.dims();
    let found = values(found);
    let added = lengths(expected, entering);
    let expected = values(expected.clone());
    let rows = found.chunks(width).zip(expected.chunks(width)).zip(added);
    let shares = rows.enumerate().filter(|(row, _)| counts(*row));
    let shares = shares.map(|(_, ((found, expected), added))| apart(found, expected) / added);
    // A number that is none is the largest error there is.
    let rank = |x: f64| if x.is_nan() { f64::INFINITY } else { x };
    shares.map(rank).fold(0.0, f64::max)
}

/// The lengths of rows, less those that entered where there are any.
pub(super) fn lengths(x: &Tensor<2>, entering: Option<&Tensor<2>>) -> Vec<f64> {
    let [_, width] = x.dims();
    let x = values(x.clone());
    let entering = entering.map_or_else(|| vec![0.0; x.len()], |x| values(x.clone()));
    let rows = x.chunks(width).zip(entering.chunks(width));
    rows.map(|(x, entering)| apart(x, entering)).collect()
}

/// The squares of what entered, and of what was added to it, as shares of those of the sum, over all rows.
pub(super) fn shares(x: &Tensor<2>, entering: &Tensor<2>) -> [f64; 2] {
    let squares = |lengths: Vec<f64>| lengths.iter().map(|length| length * length).sum::<f64>();
    let all = squares(lengths(x, None));
    let parts = [lengths(entering, None), lengths(x, Some(entering))];
    parts.map(|lengths| squares(lengths) / all)
}

fn apart(a: &[f32], b: &[f32]) -> f64 {
    let pairs = a.iter().zip(b);
    let squares = pairs.map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
    squares.sum::<f64>().sqrt()
}
