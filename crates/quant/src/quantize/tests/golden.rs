//! The bytes that the producers' own packages write: see tests/golden/quant.

use std::fs;
use std::path::Path;

use burn_omni_ops::packed::e8m0;
use safetensors::SafeTensors;

use crate::quantize::{Convention, Encoded, Matrix, encode_e2m1, encode_e4m3, mxfp4, nvfp4};

/// A file of golden tensors.
struct Golden(Vec<u8>);

impl Golden {
    fn open(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/quant");
        Self(fs::read(folder.join(name)).unwrap())
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).unwrap()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        self.tensors().tensor(name).unwrap().data().to_vec()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let bytes = self.bytes(name);
        let (words, _) = bytes.as_chunks();
        words.iter().map(|word| f32::from_le_bytes(*word)).collect()
    }

    fn width(&self, name: &str) -> usize {
        *self.tensors().tensor(name).unwrap().shape().last().unwrap()
    }
}

/// Every matrix that both packages have quantized.
const MATRICES: [&str; 11] = [
    "spec",
    "ties",
    "n16",
    "n32",
    "n64",
    "n96",
    "n128",
    "outlier",
    "zeroblock",
    "zeros",
    "tiny",
];

fn encode(inputs: &Golden, matrix: &str, convention: Convention) -> Encoded {
    let values = inputs.floats(matrix);
    let matrix = Matrix::of_values(&values, inputs.width(matrix));
    nvfp4(matrix, matrix.amax(), convention)
}

#[test]
fn casts_are_those_of_ml_dtypes() {
    let tables = Golden::open("tables.safetensors");
    for (x, byte) in tables
        .floats("cast.x")
        .iter()
        .zip(tables.bytes("cast.e4m3"))
    {
        // 464 is the last that the cast rounds down; what is beyond is NaN there and 448 here.
        assert_eq!(encode_e4m3(*x), byte, "{x}");
    }
    for (y, code) in tables
        .floats("cast.y")
        .iter()
        .zip(tables.bytes("cast.e2m1"))
    {
        let expected = if *y == 0.0 { 0 } else { code };
        assert_eq!(encode_e2m1(*y), expected, "{y}");
    }
}

#[test]
fn nvfp4_is_that_of_modelopt() {
    let inputs = Golden::open("inputs.safetensors");
    let golden = Golden::open("modelopt.safetensors");
    for matrix in MATRICES.iter().filter(|&&matrix| matrix != "zeros") {
        let encoded = encode(&inputs, matrix, Convention::ModelOpt);
        let stored = |name: &str| golden.bytes(&format!("{matrix}.nvfp4.{name}"));
        assert_eq!(encoded.scales, stored("weight_scale"), "{matrix}: scales");
        assert_eq!(encoded.codes, stored("weight"), "{matrix}: codes");
        let scale = golden.floats(&format!("{matrix}.nvfp4.weight_scale_2"));
        assert_eq!(encoded.tensor_scale, Some(scale[0]), "{matrix}");
    }
    let values = inputs.floats("n64");
    let shared = nvfp4(Matrix::of_values(&values, 64), 0.25, Convention::ModelOpt);
    assert_eq!(shared.scales, golden.bytes("n64.shared.weight_scale"));
    assert_eq!(shared.codes, golden.bytes("n64.shared.weight"));
}

#[test]
fn nvfp4_is_that_of_compressed_tensors() {
    let inputs = Golden::open("inputs.safetensors");
    let golden = Golden::open("compressed_tensors.safetensors");
    for matrix in MATRICES {
        let encoded = encode(&inputs, matrix, Convention::CompressedTensors);
        let stored = |name: &str| golden.bytes(&format!("{matrix}.nvfp4.{name}"));
        assert_eq!(encoded.scales, stored("weight_scale"), "{matrix}: scales");
        assert_eq!(encoded.codes, stored("weight_packed"), "{matrix}: codes");
        let scale = golden.floats(&format!("{matrix}.nvfp4.weight_global_scale"));
        assert_eq!(encoded.tensor_scale, Some(scale[0]), "{matrix}");
    }
}

/// The code of element `i`.
fn code(codes: &[u8], i: usize) -> u8 {
    codes[i / 2] >> (i % 2 * 4) & 15
}

/// ModelOpt gives a tie to the smaller magnitude, and zero the code of minus zero; all else is equal.
#[test]
fn mxfp4_is_that_of_modelopt_but_for_ties() {
    const TIES: [f32; 3] = [0.75, 1.75, 3.5];
    let inputs = Golden::open("inputs.safetensors");
    let golden = Golden::open("modelopt.safetensors");
    for matrix in MATRICES
        .iter()
        .filter(|matrix| !["spec", "n16"].contains(matrix))
    {
        let values = inputs.floats(matrix);
        let encoded = mxfp4(Matrix::of_values(&values, inputs.width(matrix)));
        let stored = |name: &str| golden.bytes(&format!("{matrix}.mxfp4.{name}"));
        assert_eq!(encoded.scales, stored("weight_scale"), "{matrix}: scales");
        let codes = stored("weight");
        for (i, value) in values.iter().enumerate() {
            let number = value / e8m0(encoded.scales[i / 32]);
            let (ours, theirs) = (code(&encoded.codes, i), code(&codes, i));
            let expected = if number == 0.0 {
                ours | 8
            } else if TIES.contains(&number.abs()) {
                ours - 1
            } else {
                ours
            };
            assert_eq!(theirs, expected, "{matrix}: {number}");
        }
    }
}

/// compressed-tensors lets a block saturate a little; where the scales agree so do the codes.
#[test]
fn mxfp4_is_that_of_compressed_tensors_where_scales_agree() {
    let inputs = Golden::open("inputs.safetensors");
    let golden = Golden::open("compressed_tensors.safetensors");
    let mut agree = 0;
    for matrix in MATRICES
        .iter()
        .filter(|matrix| !["spec", "n16"].contains(matrix))
    {
        let values = inputs.floats(matrix);
        let encoded = mxfp4(Matrix::of_values(&values, inputs.width(matrix)));
        let stored = |name: &str| golden.bytes(&format!("{matrix}.mxfp4.{name}"));
        let (scales, codes) = (stored("weight_scale"), stored("weight_packed"));
        for (i, (ours, theirs)) in encoded.scales.iter().zip(&scales).enumerate() {
            if ours == theirs {
                let block = i * 16..(i + 1) * 16;
                assert_eq!(encoded.codes[block.clone()], codes[block], "{matrix}: {i}");
                agree += 1;
            }
        }
    }
    assert!(agree >= 8, "{agree} blocks have the same scale");
}
