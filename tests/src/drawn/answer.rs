//! A prompt and the tokens behind it, through the thinker as the program runs it: one pass, then captured steps where the
//! device has them.
//!
//! Where two experts are as good as one another, two devices may choose otherwise, and all that follows differs. So tokens
//! are taken whose experts are chosen clearly: one that is not is replaced by another until all are.

use burn::tensor::{DType, Device, Tensor, TensorData, s};
use burn_omni_model::thinker::{Rows, Thinker};
use burn_omni_ops::check::Random;
use burn_omni_ops::decode::Decoder;
use burn_omni_quant::checkpoint::Component;
use burn_omni_quant::{Bias, Embedding, Linear};

use super::rounding::joined;
use super::stack::{Passed, Stack, Which};
use super::table::{shares, worst};
use super::{Drawn, Rounding, Table};
use crate::parts::device as cpu;

/// Tokens of the prompt: few enough that nothing is rounded that decoding does not round.
const PROMPT: usize = 40;
/// Tokens behind it.
const DECODED: usize = 12;
/// How often tokens are replaced at most.
const ATTEMPTS: usize = 100;
/// Two scores, each with the error of the mean, are this often further apart than it in one of some hundred choices.
const CLEAR: f64 = 4.0;

/// The thinker on the CPU.
struct Oracle {
    stack: Stack,
    embedding: Embedding,
    head: Linear,
    rounding: Rounding,
}

/// What the CPU says of a sequence.
struct Said {
    ids: Vec<u32>,
    layers: Vec<Passed>,
    /// The error that the rows of each layer may have.
    variances: Vec<f64>,
    /// `[rows, vocabulary]`, of the last row of the prompt and of all behind it.
    scores: Tensor<2>,
    /// How often tokens were replaced.
    replaced: usize,
    rounding: Rounding,
}

/// The residual stream behind every layer and the scores of every step, the answer's tokens being given.
///
/// # Panics
/// When no tokens are found whose experts are clear.
#[must_use]
pub fn answer(model: &Drawn, device: &Device) -> Table {
    let said = Oracle::new(model, device).say();
    let thinker = model.on(device, Component::Thinker, |weights| {
        Thinker::load(weights, &model.config.thinker, None)
    });
    let mut table = Table::default();
    let count = PROMPT + DECODED;
    let positions: Vec<f32> = (0..count).map(|row| row as f32).collect();
    let rope = |rows: std::ops::Range<usize>| thinker.rope([&positions[rows]; 3]);
    let (mut state, mut decoder) = match thinker.decoder(count) {
        Some((state, decoder)) => (state, Some(decoder)),
        None => (thinker.state(count), None),
    };
    assert_eq!(
        decoder.is_some(),
        Decoder::runs_on(device),
        "steps are captured where they can be"
    );
    let input = Rows::text(thinker.embed_text(&said.ids[..PROMPT]));
    let mut outputs = Vec::new();
    let passed = thinker.forward_with(&input, &rope(0..PROMPT), &mut state, &mut |name, x| {
        if name.starts_with("layers.") {
            outputs.push(x.clone());
        }
    });
    said.compare_layers(outputs, &mut table);
    said.compare("scores of the prompt", 0, passed.logits, &mut table);
    for row in PROMPT..count {
        let scores = match &mut decoder {
            Some(decoder) => captured(decoder, said.ids[row], row),
            None => {
                let input = Rows::text(thinker.embed_text(&said.ids[row..=row]));
                thinker
                    .forward(&input, &rope(row..row + 1), &mut state)
                    .logits
            }
        };
        said.compare(
            &format!("scores of row {row}"),
            row + 1 - PROMPT,
            scores,
            &mut table,
        );
    }
    let way = if decoder.is_some() {
        "captured"
    } else {
        "passed"
    };
    table.remark(
        format!("{DECODED} rows were {way}"),
        (DECODED, 0.0, 0.0),
        format!("{} tokens were replaced", said.replaced),
    );
    table
}

fn captured(decoder: &mut Decoder, token: u32, row: usize) -> Tensor<2> {
    let scores = decoder.scores(token, row, row as f32);
    let scores = scores.expect("the device works");
    let count = scores.len();
    Tensor::from_data(TensorData::new(scores, [1, count]), &cpu())
}

impl Oracle {
    fn new(model: &Drawn, device: &Device) -> Self {
        let config = &model.config.thinker.text_config;
        let table = [config.vocab_size, config.hidden_size];
        let sizes = Which::Thinker.sizes(model);
        let rounding = Which::Thinker.rounding(device, model);
        model.on(&cpu(), Component::Thinker, |weights| {
            let place = weights.at(Which::Thinker.place());
            Self {
                stack: Stack::load(&place, sizes),
                embedding: place.embedding("embed_tokens", table),
                head: weights.linear("lm_head", table, Bias::No),
                rounding,
            }
        })
    }

    /// A sequence whose experts are all chosen clearly.
    fn say(&self) -> Said {
        let mut random = Random(11);
        let vocabulary = self.embedding.rows() as f32;
        let mut next = || ((random.number() + 1.0) / 2.0 * vocabulary) as u32;
        let mut ids: Vec<u32> = (0..PROMPT + DECODED).map(|_| next()).collect();
        let mut replaced = 0;
        for _ in 0..ATTEMPTS {
            let (layers, variances, unclear) = self.pass(&ids);
            if unclear.is_empty() {
                let [rows, _] = layers[0].output.dims();
                let last = layers[layers.len() - 1].output.clone();
                let last = self
                    .stack
                    .norm
                    .forward(last.slice(s![PROMPT - 1..rows, ..]));
                return Said {
                    ids,
                    layers,
                    variances,
                    scores: self.head.forward(last),
                    replaced,
                    rounding: self.rounding,
                };
            }
            replaced += unclear.len();
            unclear.into_iter().for_each(|row| ids[row] = next());
        }
        panic!("no tokens have clear experts");
    }

    /// What layers do to these tokens, the error of each, and the rows whose experts are not clear in one of them.
    fn pass(&self, ids: &[u32]) -> (Vec<Passed>, Vec<f64>, Vec<usize>) {
        let Self {
            stack, rounding, ..
        } = self;
        let format = rounding.cache();
        let (mut layers, mut variances): (Vec<Passed>, Vec<f64>) = (Vec::new(), Vec::new());
        let mut unclear = vec![false; ids.len()];
        let mut x = self.embedding.forward(ids);
        let mut variance = 0.0;
        for number in 0..stack.layers.len() {
            let passed = stack.pass(number, x, format);
            let added = rounding.attention(PROMPT, variance, format);
            let heard = joined([variance, added], shares(&passed.attended, &passed.input));
            if let Some(choice) = &passed.choice {
                let least = CLEAR * (heard + rounding.products(1)).sqrt();
                for (row, margin) in choice.margins.iter().enumerate() {
                    unclear[row] |= *margin < least;
                }
            }
            let added = rounding.feed_forward(PROMPT, heard);
            variance = joined([heard, added], shares(&passed.output, &passed.attended));
            x = passed.output.clone();
            variances.push(variance);
            layers.push(passed);
        }
        let unclear = unclear.into_iter().enumerate();
        let unclear = unclear.filter_map(|(row, unclear)| unclear.then_some(row));
        (layers, variances, unclear.collect())
    }
}

impl Said {
    /// Compares the rows of the prompt behind every layer.
    fn compare_layers(&self, outputs: Vec<Tensor<2>>, table: &mut Table) {
        assert_eq!(outputs.len(), self.layers.len(), "every layer is seen");
        for (number, (found, expected)) in outputs.into_iter().zip(&self.layers).enumerate() {
            let expected = expected.output.clone().slice(s![..PROMPT, ..]);
            let error = worst(found, &expected, None, |_| true);
            let bound = self.rounding.bound(self.variances[number]);
            let stage = format!("thinker layers.{number}, from the prompt on");
            table.note(stage, PROMPT, error, bound);
        }
    }

    /// Compares the scores behind a row, counted from the last of the prompt.
    fn compare(&self, stage: &str, row: usize, found: Tensor<2>, table: &mut Table) {
        let expected = self.scores.clone().slice(s![row..=row, ..]);
        let error = worst(found.cast(DType::F32), &expected, None, |_| true);
        let last = self.variances[self.variances.len() - 1];
        // The head is one more product.
        let bound = self.rounding.bound(last + self.rounding.products(1));
        table.note(stage, 1, error, bound);
    }
}
