//! The integer generator of the weights: the rule of `generator.py`, bit by bit.

use std::collections::BTreeMap;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::Deserialize;
use tempfile::TempDir;

use crate::{read, repository};

/// Side files of the tiny model.
const OWN: [&str; 3] = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
];
/// Side files that are the demo model's.
const DEMO: [&str; 5] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "chat_template.json",
];
/// What offsets and scales count.
const UNIT: f32 = 1.0 / 4096.0;

/// Name, shape, offset and scale of every tensor, with what their values must be.
#[derive(Debug, Deserialize)]
pub struct Generator {
    seed: u64,
    /// Number of values of all tensors.
    pub parameters: u64,
    /// Sum of the bits of value `i` times `i + 1`, in hexadecimal.
    pub checksum: String,
    /// The first values of some tensors, as bits in hexadecimal.
    pub first_values: BTreeMap<String, Vec<String>>,
    tensors: Vec<(String, Vec<usize>, i16, i16)>,
}

impl Generator {
    /// Reads `manifest.json`.
    ///
    /// # Panics
    /// When it is not the manifest.
    #[must_use]
    pub fn load() -> Self {
        serde_json::from_str(&read(&repository("tests/golden/tiny/manifest.json")))
            .expect("the manifest has this shape")
    }

    /// Every tensor: name, shape and bf16 bits, in file order.
    #[must_use]
    pub fn draw(&self) -> Vec<(&str, &[usize], Vec<u16>)> {
        let draw = |(name, shape, offset, scale): &'_ (String, Vec<usize>, i16, i16)| {
            let count = shape.iter().product();
            values(
                name,
                count,
                f32::from(*offset),
                f32::from(*scale),
                self.seed,
            )
        };
        self.tensors
            .iter()
            .map(|tensor| (tensor.0.as_str(), tensor.1.as_slice(), draw(tensor)))
            .collect()
    }
}

/// The tiny model's checkpoint, in a folder that lives as long as what is returned.
///
/// # Panics
/// When it cannot be written.
#[must_use]
pub fn folder() -> TempDir {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let generator = Generator::load();
    let drawn: Vec<(&str, Vec<usize>, Vec<u8>)> = generator
        .draw()
        .into_iter()
        .map(|(name, shape, bits)| {
            let bytes = bits.iter().flat_map(|x| x.to_le_bytes()).collect();
            (name, shape.to_vec(), bytes)
        })
        .collect();
    let views = drawn.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::BF16, shape.clone(), bytes);
        (*name, view.expect("two bytes a value"))
    });
    safetensors::serialize_to_file(views, None, &dir.path().join("model.safetensors"))
        .expect("the folder is ours");
    let own = repository("tests/golden/tiny");
    let demo = repository("assets/omni-demo");
    let files = OWN
        .map(|name| (&own, name))
        .into_iter()
        .chain(DEMO.map(|name| (&demo, name)));
    for (from, name) in files {
        std::fs::copy(from.join(name), dir.path().join(name))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    dir
}

fn values(name: &str, count: usize, offset: f32, scale: f32, seed: u64) -> Vec<u16> {
    let (offset, scale) = (offset * UNIT, scale * UNIT);
    let mut state = fnv1a(name) ^ seed;
    (0..count)
        .map(|_| {
            let word = splitmix64(&mut state) >> 40;
            let steps = i32::try_from(word).expect("24 bits") - (1 << 23);
            let uniform = steps as f32 / (1 << 23) as f32;
            to_bf16(offset + scale * uniform)
        })
        .collect()
}

fn fnv1a(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
    })
}

fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Rounds to nearest, ties to even; the values are small and finite.
fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits + 0x7FFF + ((bits >> 16) & 1);
    u16::try_from(rounded >> 16).expect("16 bits are left")
}
