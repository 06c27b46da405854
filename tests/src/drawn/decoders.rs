//! Layers of decoders, each fed with what entered it on the CPU: an error has its own layer's name, and does not grow.

use std::slice;

use burn::tensor::{DType, Device, Tensor, TensorData, s};
use burn_omni_model::layers::DecoderLayer;
use burn_omni_ops::KvFormat;
use burn_omni_ops::check::Random;
use burn_omni_ops::decode::{Decoder, DecoderParts, Matrices};

use super::rounding::joined;
use super::stack::{Passed, Stack, Which};
use super::table::{shares, worst};
use super::{Drawn, Rounding, Table, there};
use crate::parts::device as cpu;

/// Rows of a prompt. A device has other ways for many rows than for few: passes are of each of these.
const PROMPTS: [usize; 4] = [1, 12, 56, 130];
/// Rows of the longest.
const PROMPT: usize = PROMPTS[3];
/// Rows behind it, one at a time.
const DECODED: usize = 16;
/// Share of a layer's rows whose experts may be as good as others at most.
const UNCLEAR: f64 = 0.05;
/// The same of rows that are decoded.
const UNCLEAR_DECODED: f64 = 0.75;

/// Passes of prompts through thinker, talker and code predictor on a device, half a layer at a time.
///
/// # Panics
/// When the model does not speak.
#[must_use]
pub fn decoders(model: &Drawn, device: &Device) -> Table {
    let mut table = Table::default();
    for which in Which::ALL {
        let stacks = [&cpu(), device].map(|device| which.on(device, model));
        halves(which, &stacks, which.rounding(device, model), &mut table);
    }
    table
}

/// Compares the halves of all layers of a decoder, those of the CPU first.
fn halves(which: Which, [oracle, stack]: &[Stack; 2], rounding: Rounding, table: &mut Table) {
    let format = rounding.cache();
    let expected = expected(oracle, format);
    for rows in PROMPTS {
        for (number, passed) in expected.iter().enumerate() {
            let stage = format!("{} layers.{number}", which.name());
            let layer = Halves {
                stack,
                number,
                passed,
                rounding,
                format,
            };
            layer.compare(&stage, rows, table);
        }
    }
}

/// What layers do to random rows on the CPU: small ones, beside which what layers add is not. What enters a layer is rounded
/// to bf16, so that tables can hold it.
fn expected(stack: &Stack, format: KvFormat) -> Vec<Passed> {
    let size = [PROMPT + DECODED, stack.hidden()];
    let mut x = Random(7).tensor(size, &stack.device) / 8.0;
    let layers = 0..stack.layers.len();
    let pass = |number| {
        let rounded = x.clone().cast(DType::BF16).cast(DType::F32);
        let passed = stack.pass(number, rounded, format);
        x = passed.output.clone();
        passed
    };
    layers.map(pass).collect()
}

/// A layer on a device, and what it does on the CPU.
struct Halves<'a> {
    stack: &'a Stack,
    number: usize,
    passed: &'a Passed,
    rounding: Rounding,
    format: KvFormat,
}

impl Halves<'_> {
    /// Compares the first rows.
    fn compare(&self, stage: &str, rows: usize, table: &mut Table) {
        let Self {
            stack,
            number,
            passed,
            rounding,
            format,
        } = self;
        let first = |x: &Tensor<2>| x.clone().slice(s![..rows, ..]);
        let all = |_| true;
        let [input, attended, output] =
            [&passed.input, &passed.attended, &passed.output].map(first);
        let rope = stack.rope.sequence(0, rows, &stack.device);
        let mut cache = stack.cache(rows, *format);
        let layer = &stack.layers[*number];
        let found = layer.attend(there(&input, &stack.device), &rope, &mut cache);
        let error = worst(found, &attended, Some(&input), all);
        let bound = rounding.bound(rounding.attention(rows, 0.0, *format));
        let [_, added] = shares(&attended, &input);
        let remark = format!("adds {added:.2} of the squares");
        table.remark(format!("{stage} attention"), (rows, error, bound), remark);

        let entering = there(&attended, &stack.device);
        let clear = self.route(stage, entering.clone(), rows, table);
        let found = layer.feed_forward(entering);
        let error = worst(found, &output, Some(&attended), |row| clear[row]);
        let bound = rounding.bound(rounding.feed_forward(rows, 0.0));
        let [_, added] = shares(&output, &attended);
        let remark = format!("adds {added:.2} of the squares");
        table.remark(
            format!("{stage} feed-forward"),
            (rows, error, bound),
            remark,
        );
    }

    /// Compares the choice of experts; which rows have the same, of those that have not because others are as good.
    fn route(&self, stage: &str, attended: Tensor<2>, rows: usize, table: &mut Table) -> Vec<bool> {
        let router = self.stack.routers[self.number].as_ref();
        let (Some(router), Some(expected)) = (router, &self.passed.choice) else {
            return vec![true; rows];
        };
        let found = router.choose(attended);
        let scores = expected.scores.clone().slice(s![..rows, ..]);
        let mut error = worst(found.scores, &scores, None, |_| true);
        let bound = self.rounding.bound(0.0);
        let clear = |row: &usize| expected.margins[*row] >= tie(bound);
        let same = |row: &usize| found.experts[*row] == expected.experts[*row];
        let wrong = (0..rows).filter(|row| clear(row) && !same(row)).count();
        let aside = (0..rows).filter(|row| !clear(row)).count();
        if wrong > 0 || aside as f64 > UNCLEAR * rows as f64 {
            error = f64::INFINITY;
        }
        table.remark(
            format!("{stage} router"),
            (rows, error, bound),
            format!("{wrong} rows with other experts, {aside} near ties set aside"),
        );
        (0..rows).map(|row| clear(&row)).collect()
    }
}

/// The margin below which experts may be others: two scores, each twice as far off as the mean may be.
fn tie(bound: f64) -> f64 {
    4.0 * bound
}

/// Captured steps of each layer by itself, behind a prompt, with the given cache; nothing where none are captured.
///
/// The table of embeddings holds what entered the layer on the CPU, and the head gives every number of the normed row.
///
/// # Panics
/// When the model does not speak.
#[must_use]
pub fn captured(model: &Drawn, device: &Device, format: KvFormat) -> Option<Table> {
    Decoder::runs_on(device).then_some(())?;
    let mut table = Table::default();
    for which in Which::ALL {
        let rounding = which.rounding(device, model);
        let oracle = which.on(&cpu(), model);
        let stack = which.on(device, model);
        for (number, passed) in expected(&oracle, format).iter().enumerate() {
            let stage = format!("{} layers.{number} captured", which.name());
            let rows = steps(&stack, number, passed, format);
            let expected = oracle.norm.forward(passed.output.clone());
            let step = Step {
                rounding,
                format,
                passed,
                expected,
            };
            step.compare(&stage, &rows, &mut table);
        }
    }
    Some(table)
}

/// The normed rows of captured steps behind the prompt.
fn steps(stack: &Stack, number: usize, passed: &Passed, format: KvFormat) -> Vec<Vec<f32>> {
    let device = &stack.device;
    let [count, _] = passed.input.dims();
    let mut cache = stack.cache(count, format);
    // Few rows at a time, whose keys and values are not rounded on the way.
    for first in (0..PROMPT).step_by(PROMPTS[2]) {
        let rows = first..PROMPT.min(first + PROMPTS[2]);
        let rope = stack.rope.sequence(first, rows.len(), device);
        let part = there(&passed.input.clone().slice(s![rows, ..]), device);
        let _ = stack.layers[number].attend(part, &rope, &mut cache);
    }
    let layer = &stack.layers[number..=number];
    let parts = DecoderLayer::stack(layer, slice::from_ref(&cache), &stack.norm, &stack.rope);
    let decoder = Decoder::new(DecoderParts {
        stack: parts.expect("the layer has weights that a step reads"),
        embedding: there(&passed.input, device).cast(DType::BF16),
        head: Matrices::Dense(identity(stack.hidden(), device).unsqueeze()),
    });
    let mut decoder = decoder.expect("the step is captured");
    let step = |row: usize| {
        let token = u32::try_from(row).expect("rows are few");
        let scores = decoder.scores(token, row, row as f32);
        scores.expect("the device works")
    };
    (PROMPT..count).map(step).collect()
}

fn identity(width: usize, device: &Device) -> Tensor<2> {
    let mut data = vec![0.0_f32; width * width];
    data.iter_mut().step_by(width + 1).for_each(|x| *x = 1.0);
    Tensor::<2>::from_data(TensorData::new(data, [width, width]), device).cast(DType::BF16)
}

/// What a layer's captured steps are held to.
struct Step<'a> {
    rounding: Rounding,
    format: KvFormat,
    passed: &'a Passed,
    /// The normed rows.
    expected: Tensor<2>,
}

impl Step<'_> {
    fn compare(&self, stage: &str, rows: &[Vec<f32>], table: &mut Table) {
        let Self {
            rounding,
            format,
            passed:
                Passed {
                    input,
                    attended,
                    choice,
                    output,
                },
            expected,
        } = self;
        let behind = |x: &Tensor<2>| x.clone().slice(s![PROMPT.., ..]);
        let [input, attended, output, expected] = [input, attended, output, expected].map(behind);
        let of_attention = rounding.attention(1, 0.0, *format);
        let heard = joined([0.0, of_attention], shares(&attended, &input));
        let of_block = rounding.feed_forward(1, heard);
        let variance = joined([heard, of_block], shares(&output, &attended));
        let bound = rounding.bound(variance);
        let scores = rounding.bound(heard);
        let clear = |row: usize| {
            let margin = |margins: &Vec<f64>| margins[PROMPT + row];
            choice
                .as_ref()
                .is_none_or(|choice| margin(&choice.margins) >= tie(scores))
        };
        let aside = (0..rows.len()).filter(|row| !clear(*row)).count();
        let [count, width] = expected.dims();
        let found = TensorData::new(rows.concat(), [count, width]);
        let found = Tensor::from_data(found, &expected.device());
        let mut error = worst(found, &expected, None, clear);
        if aside as f64 > UNCLEAR_DECODED * count as f64 {
            error = f64::INFINITY;
        }
        let [_, added] = shares(&output, &input);
        let remark =
            format!("{aside} near ties set aside; the layer adds {added:.2} of the squares");
        table.remark(stage, (count - aside, error, bound), remark);
    }
}

#[cfg(test)]
mod tests {
    use burn_omni_ops::PackedFormat;

    use super::*;

    /// What a table says of a device whose thinker is of `found`.
    fn failure(found: &Drawn) -> String {
        let model = Drawn::shallow("omni-demo", 2, None);
        let outcome = std::panic::catch_unwind(|| {
            let stacks = [&model, found].map(|model| Which::Thinker.on(&cpu(), model));
            let mut table = Table::default();
            let rounding = Which::Thinker.rounding(&cpu(), &model);
            halves(Which::Thinker, &stacks, rounding, &mut table);
            table.finish("two thinkers");
        });
        let panic = outcome.expect_err("the thinkers are not the same");
        panic.downcast_ref::<String>().expect("it says why").clone()
    }

    #[test]
    fn the_first_stage_that_differs_is_named() {
        let said = failure(&Drawn::shallow("omni-demo", 2, Some(PackedFormat::NVFP4)));
        assert!(
            said.contains("the first of them thinker layers.0 attention: "),
            "{said}"
        );
        let mut other = Drawn::shallow("omni-demo", 2, None);
        other.config.thinker.text_config.norm_topk_prob = false;
        let said = failure(&other);
        assert!(
            said.contains("the first of them thinker layers.0 feed-forward: "),
            "{said}"
        );
    }
}
