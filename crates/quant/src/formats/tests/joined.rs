//! Matrices that are read as one, factors on inputs, and experts.

use burn::tensor::{Int, Tensor as Values, TensorData};
use burn_omni_ops::{Packed, Routes};
use half::bf16;

use crate::formats::{AtLoad, QuantConfig};
use crate::{Bias, Experts, Linear, Weight};

use super::*;

/// A tensor scale that no other part of a test has.
fn scaled(tensors: Tensors, name: &str, factor: f32) -> Tensors {
    let scale = tensors.get(name).f32s()[0] * factor;
    tensors.f32s(name, &[], &[scale])
}

/// The same matrix `[2, 64]` three times, with three tensor scales.
fn qkv() -> Tensors {
    let mut tensors = Tensors::default();
    for (name, factor) in [("q", 1.0), ("k", 3.0), ("v", 0.3)] {
        tensors = tensors
            .and_golden("modelopt", "n64.nvfp4.", &format!("{name}."))
            .without(&format!("{name}.value"));
        tensors = scaled(tensors, &format!("{name}.weight_scale_2"), factor);
    }
    tensors
}

fn fused(open: &Open) -> Linear {
    let parts = [("q", 2), ("k", 2), ("v", 2)];
    open.load(|weights| weights.fused_linear(&parts, 64, Bias::No))
        .unwrap()
}

fn matrix(linear: &Linear) -> Vec<f32> {
    match linear.weight() {
        Weight::Dense(weight) => weight
            .clone()
            .cast(DType::F32)
            .into_data()
            .try_to_vec()
            .unwrap(),
        Weight::Packed(packed) => unpacked(packed),
    }
}

fn unpacked(packed: &Packed) -> Vec<f32> {
    burn_omni_ops::unpack(packed)
        .into_data()
        .try_to_vec()
        .unwrap()
}

fn rows(count: usize, width: usize) -> Values<2> {
    let values = (0..count * width).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0);
    let data = TensorData::new(values.collect::<Vec<f32>>(), [count, width]);
    Values::from_data(data, &Device::flex())
}

fn vec(x: Values<2>) -> Vec<f32> {
    x.into_data().try_to_vec().unwrap()
}

fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (found - expected).abs() <= 1e-5 * expected.abs().max(0.1),
            "{found} for {expected}"
        );
    }
}

/// Two matrices of which each is copied in several tasks.
#[test]
fn large_parts_follow_one_another_and_are_mended_to_their_ends() {
    const ROWS: usize = 70_000;
    const WIDTH: usize = 48; // filled up to 64
    let mut tensors = Tensors::default();
    for (name, gain) in [("q", 0.5), ("k", 0.25)] {
        let row = |row: usize| (0..WIDTH / 2).map(move |i| ((row * 7 + i * 3) % 251) as u8);
        let mut scales = vec![0x38; ROWS * 3];
        for bad in [0, ROWS * 3 - 1] {
            scales[bad] = 0x7F;
        }
        let codes = (0..ROWS).flat_map(row).collect();
        let scale = Dtype::F8_E4M3;
        tensors = tensors
            .with(
                &format!("{name}.weight"),
                Dtype::U8,
                &[ROWS, WIDTH / 2],
                codes,
            )
            .with(&format!("{name}.weight_scale"), scale, &[ROWS, 3], scales)
            .f32s(&format!("{name}.weight_scale_2"), &[], &[gain]);
    }
    let open = tensors.open();
    let parts = [("q", ROWS), ("k", ROWS)];
    let linear = open.load(|weights| weights.fused_linear(&parts, WIDTH, Bias::No));
    let found = matrix(&linear.unwrap());
    assert_eq!(
        open.said()[1],
        "2 tensors, the first `thinker.k.weight_scale`: 4 scale bytes are NaN, taken as 448"
    );
    const E2M1: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    for (index, found) in found.iter().enumerate() {
        let (part, row, column) = (index / WIDTH / ROWS, index / WIDTH % ROWS, index % WIDTH);
        let byte = (row * 7 + column / 2 * 3) % 251;
        let code = byte >> (column % 2 * 4) & 0xF;
        let sign = if code < 8 { 1.0 } else { -1.0 };
        let block = row * 3 + column / 16;
        let scale = if [0, ROWS * 3 - 1].contains(&block) {
            448.0
        } else {
            1.0
        };
        let gain = [0.5, 0.25][part];
        assert_eq!(
            *found,
            sign * E2M1[code % 8] * scale * gain,
            "{part} {row} {column}"
        );
    }
}

#[test]
fn every_shard_keeps_its_own_tensor_scale() {
    let open = qkv().open();
    let linear = fused(&open);
    assert!(matches!(linear.weight(), Weight::Packed(_)));
    let expected: Vec<f32> = ["q", "k", "v"]
        .iter()
        .flat_map(|name| open.values(name, [2, 64]))
        .collect();
    assert_eq!(matrix(&linear), expected);
    let x = rows(3, 64);
    let dense = Values::from_data(TensorData::new(expected, [6, 64]), &Device::flex());
    close(
        &vec(linear.forward(x.clone())),
        &vec(x.matmul(dense.transpose())),
    );
}

#[test]
fn parts_of_several_forms_become_values() {
    let mxfp4 = Tensors::golden("modelopt", "n64.mxfp4.", "").clone();
    let open = {
        let mut tensors = qkv();
        for part in ["k.weight", "k.weight_scale", "k.weight_scale_2"] {
            tensors = tensors.without(part);
        }
        for part in ["weight", "weight_scale"] {
            let Tensor {
                dtype,
                shape,
                bytes,
                ..
            } = mxfp4.get(part).clone();
            tensors = tensors.with(&format!("k.{part}"), dtype, &shape, bytes);
        }
        tensors.open()
    };
    let linear = fused(&open);
    assert!(matches!(linear.weight(), Weight::Dense(_)));
    let expected: Vec<f32> = ["q", "k", "v"]
        .iter()
        .flat_map(|name| open.values(name, [2, 64]))
        .collect();
    assert_eq!(matrix(&linear), expected);
    assert!(
        open.said()
            .iter()
            .any(|line| line.contains("several forms")),
        "{:?}",
        open.said()
    );
}

#[test]
fn a_dense_part_decides_the_dtype_of_all() {
    let values: Vec<f32> = (0..128).map(|i| i as f32).collect();
    let halves = values
        .iter()
        .flat_map(|value| bf16::from_f32(*value).to_le_bytes())
        .collect();
    let open = qkv()
        .without("k.weight_scale")
        .without("k.weight_scale_2")
        .with("k.weight", Dtype::BF16, &[2, 64], halves)
        .open();
    let linear = fused(&open);
    let Weight::Dense(weight) = linear.weight() else {
        panic!("dense parts cannot be packed");
    };
    assert_eq!(weight.dtype(), DType::BF16);
    assert_eq!(matrix(&linear)[128..256], values);
}

#[test]
fn a_factor_on_the_input_is_applied() {
    let factor: Vec<f32> = (0..64).map(|i| 0.5 + i as f32 / 64.0).collect();
    let with = |names: &[&str], factor: &[f32]| {
        names.iter().fold(qkv(), |tensors, name| {
            tensors.f32s(&format!("{name}.pre_quant_scale"), &[64], factor)
        })
    };
    let x = rows(3, 64);
    let scaled = Values::<1>::from_data(TensorData::new(factor.clone(), [64]), &Device::flex());
    let expected = vec(fused(&qkv().open()).forward(x.clone() * scaled.unsqueeze()));
    let all = with(&["q", "k", "v"], &factor).open();
    let linear = fused(&all);
    assert!(matches!(linear.weight(), Weight::Packed(_)));
    close(&vec(linear.forward(x.clone())), &expected);
    // One for a part of the rows cannot be applied to the input of all.
    let one = with(&["k"], &factor).open();
    let linear = fused(&one);
    assert!(matches!(linear.weight(), Weight::Dense(_)));
    let (found, plain) = (
        vec(linear.forward(x.clone())),
        vec(fused(&qkv().open()).forward(x)),
    );
    for row in 0..3 {
        close(
            &found[row * 6 + 2..row * 6 + 4],
            &expected[row * 6 + 2..row * 6 + 4],
        );
        close(&found[row * 6..row * 6 + 2], &plain[row * 6..row * 6 + 2]);
    }
    assert!(
        one.said()
            .iter()
            .any(|line| line.contains("several pre_quant_scale")),
        "{:?}",
        one.said()
    );
}

#[test]
fn a_low_rank_correction_is_added() {
    let a: Vec<f32> = (0..64).map(|i| i as f32 / 64.0).collect();
    let tensors = Tensors::golden("modelopt", "n64.nvfp4.", "m.")
        .without("m.value")
        .f32s("m.svdquant_lora_a", &[1, 64], &a)
        .f32s("m.svdquant_lora_b", &[2, 1], &[2.0, -1.0]);
    let open = tensors.open();
    let linear = open
        .load(|weights| weights.linear("m", [2, 64], Bias::No))
        .unwrap();
    let plain = open.values("m", [2, 64]);
    let expected: Vec<f32> = (0..128)
        .map(|i| plain[i] + [2.0, -1.0][i / 64] * a[i % 64])
        .collect();
    assert_eq!(matrix(&linear), expected);
}

/// Two experts of hidden size 64 and intermediate size 32, from bytes that repeat.
fn experts() -> Tensors {
    let mut tensors = Tensors::default();
    for (number, expert) in ["0", "1"].iter().enumerate() {
        for (kind, name) in ["gate_proj", "up_proj", "down_proj"].iter().enumerate() {
            let [rows, width] = if kind == 2 { [64, 32] } else { [32, 64] };
            let seed = number * 3 + kind + 1;
            let code = |i: usize| (i * 73 * seed + i / 7 + seed) as u8;
            let module = format!("experts.{expert}.{name}");
            tensors = tensors
                .with(
                    &format!("{module}.weight"),
                    Dtype::U8,
                    &[rows, width / 2],
                    (0..rows * width / 2).map(code).collect(),
                )
                .with(
                    &format!("{module}.weight_scale"),
                    Dtype::F8_E4M3,
                    &[rows, width / 16],
                    (0..rows * width / 16)
                        .map(|i| 0x30 + (i * seed % 16) as u8)
                        .collect(),
                )
                .f32s(
                    &format!("{module}.weight_scale_2"),
                    &[],
                    &[0.01 * seed as f32],
                );
        }
    }
    tensors
}

fn run(experts: &Experts) -> Vec<f32> {
    let device = Device::flex();
    let ids = TensorData::new(vec![0_i64, 1, 1, 0, 0, 1], [3, 2]);
    let weights = TensorData::new(vec![0.75_f32, 0.25, 0.5, 0.5, 0.9, 0.1], [3, 2]);
    let routes = Routes {
        ids: Values::<2, Int>::from_data(ids, &device),
        weights: Values::from_data(weights, &device),
    };
    vec(experts.forward(rows(3, 64), routes))
}

fn load_experts(open: &Open) -> Experts {
    open.load(|weights| weights.at("experts").experts(2, 64, 32))
        .unwrap()
}

/// The experts as plain tensors in f32.
fn dense(tensors: &Tensors) -> Tensors {
    let open = tensors.open();
    let mut dense = Tensors::default();
    for expert in ["0", "1"] {
        for (name, shape) in [
            ("gate_proj", [32, 64]),
            ("up_proj", [32, 64]),
            ("down_proj", [64, 32]),
        ] {
            let module = format!("experts.{expert}.{name}");
            dense = dense.f32s(
                &format!("{module}.weight"),
                &shape,
                &open.values(&module, shape),
            );
        }
    }
    dense
}

#[test]
fn experts_with_unequal_scales() {
    let packed = load_experts(&experts().open());
    assert!(packed.is_packed());
    close(
        &run(&packed),
        &run(&load_experts(&dense(&experts()).open())),
    );
}

#[test]
fn one_expert_that_is_not_quantized() {
    let plain = dense(&experts());
    let mut mixed = experts();
    for part in ["weight_scale", "weight_scale_2"] {
        mixed = mixed.without(&format!("experts.1.down_proj.{part}"));
    }
    mixed = mixed.f32s(
        "experts.1.down_proj.weight",
        &[64, 32],
        &plain.get("experts.1.down_proj.weight").f32s(),
    );
    let open = mixed.open();
    let found = load_experts(&open);
    assert!(!found.is_packed());
    // The packed half is rounded to bf16 beside it.
    let (found, expected) = (run(&found), run(&load_experts(&plain.open())));
    let largest = expected
        .iter()
        .fold(0.0_f32, |largest, value| largest.max(value.abs()));
    for (found, expected) in found.iter().zip(&expected) {
        assert!(
            (found - expected).abs() <= largest / 128.0,
            "{found} for {expected}"
        );
    }
    assert!(
        open.said()
            .iter()
            .any(|line| line.contains("several forms")),
        "{:?}",
        open.said()
    );
}

#[test]
fn factors_on_the_inputs_of_experts() {
    let factors = |seed: usize, width: usize| -> Vec<f32> {
        (0..width)
            .map(|i| 0.5 + (i * seed % 7) as f32 / 8.0)
            .collect()
    };
    let mut tensors = experts();
    let mut plain = dense(&experts());
    for (number, expert) in ["0", "1"].iter().enumerate() {
        for (name, rows, factor) in [
            ("gate_proj", 32, factors(1, 64)),
            ("up_proj", 32, factors(1, 64)),
            ("down_proj", 64, factors(2 + number, 32)),
        ] {
            let module = format!("experts.{expert}.{name}");
            let weight = plain.get(&format!("{module}.weight")).f32s();
            let width = factor.len();
            let folded: Vec<f32> = weight
                .iter()
                .enumerate()
                .map(|(i, value)| value * factor[i % width])
                .collect();
            plain = plain.f32s(&format!("{module}.weight"), &[rows, width], &folded);
            tensors = tensors.f32s(&format!("{module}.pre_quant_scale"), &[width], &factor);
        }
    }
    let packed = load_experts(&tensors.open());
    assert!(packed.is_packed());
    close(&run(&packed), &run(&load_experts(&plain.open())));
}

#[test]
fn fused_experts_with_rows_in_turn() {
    // [2, 64, 2 blocks, 16] and [2, 64, 1 block, 16]
    let code = |i: usize| (i * 29 + i / 11) as u8;
    let scale = |i: usize| 120 + (i % 5) as u8;
    let tensors = Tensors::default()
        .with(
            "experts.gate_up_proj_blocks",
            Dtype::U8,
            &[2, 64, 2, 16],
            (0..4096).map(code).collect(),
        )
        .with(
            "experts.gate_up_proj_scales",
            Dtype::U8,
            &[2, 64, 2],
            (0..256).map(scale).collect(),
        )
        .with(
            "experts.down_proj_blocks",
            Dtype::U8,
            &[2, 64, 1, 16],
            (0..2048).map(code).collect(),
        )
        .with(
            "experts.down_proj_scales",
            Dtype::U8,
            &[2, 64, 1],
            (0..128).map(scale).collect(),
        );
    let open = tensors.open();
    let packed = load_experts(&open);
    assert!(packed.is_packed());
    let all = |name: &str, width| {
        let module = Module::new(open.set(), name, &[2, 64], width);
        Stored::find(module, &open.warnings)
            .unwrap()
            .read(&open.warnings)
            .unwrap()
            .values()
    };
    let (gate_up, down) = (
        all("experts.gate_up_proj", 64),
        all("experts.down_proj", 32),
    );
    let mut plain = Tensors::default().f32s("experts.down_proj", &[2, 64, 32], &down);
    let mut halves = Vec::new();
    for expert in gate_up.chunks_exact(64 * 64) {
        for odd in [0, 1] {
            halves.extend(expert.chunks_exact(64).skip(odd).step_by(2).flatten());
        }
    }
    plain = plain.f32s("experts.gate_up_proj", &[2, 64, 64], &halves);
    close(&run(&packed), &run(&load_experts(&plain.open())));
}

#[test]
fn a_width_that_is_no_multiple_of_sixteen() {
    // 20 columns are two blocks.
    let tensors = Tensors::default()
        .with(
            "m.weight",
            Dtype::U8,
            &[3, 10],
            (0..30).map(|i| (i * 91) as u8).collect(),
        )
        .with(
            "m.weight_scale",
            Dtype::F8_E4M3,
            &[3, 2],
            vec![0x38, 0x40, 0x30, 0x38, 0x48, 0x28],
        )
        .f32s("m.weight_scale_2", &[], &[0.5]);
    let open = tensors.open();
    let linear = open
        .load(|weights| weights.linear("m", [3, 20], Bias::No))
        .unwrap();
    let values = open.values("m", [3, 20]);
    assert_eq!(matrix(&linear), values);
    let expected = burn_omni_ops::packed::Code::E2m1
        .value(&tensors.get("m.weight").bytes[..10], 17)
        * 2.0
        * 0.5;
    assert_eq!(values[17], expected);
}

#[test]
fn tables_and_kernels_are_unpacked() {
    let tensors = Tensors::golden("modelopt", "n64.nvfp4.", "table.").without("table.value");
    let tensors = tensors
        .and_golden("modelopt", "n64.nvfp4.", "conv.")
        .without("conv.value");
    let open = tensors.f32s("conv.bias", &[2], &[0.5, -0.5]).open();
    let (table, kernel) = open
        .load(|weights| {
            let conv = weights.at("conv");
            (
                weights.embedding("table", [2, 64]),
                conv.kernel([2, 16, 4], [2, 64], |values| values),
            )
        })
        .unwrap();
    let values = open.values("table", [2, 64]);
    assert_eq!(
        vec(table.forward(&[1, 0])),
        [&values[64..], &values[..64]].concat()
    );
    assert_eq!(matrix(&kernel), values);
    assert!(
        open.said()
            .iter()
            .any(|line| line.contains("tables and convolutions are quantized")),
        "{:?}",
        open.said()
    );
}

#[test]
fn plain_matrices_are_quantized_on_loading() {
    let values: Vec<f32> = (0..64 * 64)
        .map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0)
        .collect();
    let name = |part: &str| format!("model.layers.0.self_attn.{part}_proj.weight");
    let tensors =
        ["q", "k", "v", "x"]
            .iter()
            .enumerate()
            .fold(Tensors::default(), |tensors, (i, part)| {
                let values: Vec<f32> = values.iter().map(|value| value * (i + 1) as f32).collect();
                tensors.f32s(&name(part), &[64, 64], &values)
            });
    let open = tensors.open();
    let device = Device::flex();
    let options = LoadOptions {
        quantize: Some(AtLoad {
            format: burn_omni_ops::PackedFormat::NVFP4,
            head: false,
        }),
        ..LoadOptions::new(&device, DType::F32, &open.warnings)
    };
    let [qkv, other] = crate::load(open.set(), options, |weights| {
        let place = weights.at("model").at("layers").at(0).at("self_attn");
        [
            place.fused_linear(
                &[("q_proj", 64), ("k_proj", 64), ("v_proj", 64)],
                64,
                Bias::No,
            ),
            place.linear("x_proj", [64, 64], Bias::No),
        ]
    })
    .unwrap();
    assert!(
        matches!(other.weight(), Weight::Dense(_)),
        "not among those that are quantized"
    );
    assert!(matches!(qkv.weight(), Weight::Packed(_)));
    let found = matrix(&qkv);
    for (i, found) in found.iter().enumerate() {
        let expected = values[i % 4096] * (i / 4096 + 1) as f32;
        // Half a step of the code and the rounding of its block's scale, at most.
        assert!(
            (found - expected).abs() <= 0.2 * (i / 4096 + 1) as f32,
            "value {i}: {found} for {expected}"
        );
    }
}

#[test]
fn the_head_is_quantized_on_loading_when_that_is_wanted() {
    let values: Vec<f32> = (0..32 * 64).map(|i| (i % 13) as f32 - 6.0).collect();
    let tensors = Tensors::default().f32s("lm_head.weight", &[32, 64], &values);
    let open = tensors.open();
    let device = Device::flex();
    for format in [
        burn_omni_ops::PackedFormat::NVFP4,
        burn_omni_ops::PackedFormat::MXFP4,
    ] {
        for head in [false, true] {
            let options = LoadOptions {
                quantize: Some(AtLoad { format, head }),
                ..LoadOptions::new(&device, DType::F32, &open.warnings)
            };
            let build = |weights: &Weights<'_>| weights.linear("lm_head", [32, 64], Bias::No);
            let linear = crate::load(open.set(), options, build).unwrap();
            let is_packed = matches!(linear.weight(), Weight::Packed(_));
            assert_eq!(is_packed, head);
        }
    }
}

#[test]
fn four_bit_products_need_a_four_bit_matrix() {
    let device = Device::flex();
    let read = |tensors: &Tensors, quantize: Option<AtLoad>| {
        let open = tensors.open();
        let options = LoadOptions {
            w4a4: true,
            quantize,
            ..LoadOptions::new(&device, DType::F32, &open.warnings)
        };
        let loaded = crate::load(open.set(), options, |weights| {
            weights.fused_linear(&[("q", 2), ("k", 2), ("v", 2)], 64, Bias::No)
        });
        loaded.map(|linear| match linear.weight() {
            Weight::Packed(packed) => packed.spec().w4a4,
            Weight::Dense(_) => false,
        })
    };
    assert!(read(&qkv(), None).unwrap());
    let plain = ["q", "k", "v"]
        .iter()
        .fold(Tensors::default(), |tensors, name| {
            tensors.f32s(&format!("{name}.weight"), &[2, 64], &[1.0; 128])
        });
    let error = read(&plain, None).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("thinker has no matrix in NVFP4 or MXFP4, which W4A4 was asked for")
    );
    assert!(error.hint().is_some());
    assert!(
        read(
            &plain,
            Some(AtLoad {
                format: burn_omni_ops::PackedFormat::NVFP4,
                head: false
            })
        )
        .is_ok()
    );
}

#[test]
fn the_config_is_compared_with_the_tensors() {
    let read = |json: serde_json::Value, tensors: &Tensors| {
        let open = tensors.open();
        let config = QuantConfig::read(Path::new("config.json"), &json, &open.warnings);
        let device = Device::flex();
        let options = LoadOptions {
            config: Some(&config),
            ..LoadOptions::new(&device, DType::F32, &open.warnings)
        };
        let parts = [("q", 2), ("k", 2), ("v", 2)];
        let loaded = crate::load(open.set(), options, |weights| {
            weights.fused_linear(&parts, 64, Bias::No)
        });
        (loaded.err().map(|error| error.to_string()), open.said())
    };
    use serde_json::json;
    let modelopt = |ignore: &[&str]| {
        json!({"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ignore,
        "config_groups": {"group_0": {"targets": ["Linear"]}}})
    };
    assert_eq!(read(modelopt(&["lm_head"]), &qkv()), (None, vec![]));
    assert_eq!(
        read(modelopt(&["thinker.k"]), &qkv()).1,
        [
            "config.json says NVFP4, but `thinker.k` is quantized against its list; the tensors decide"
        ]
    );
    let plain = ["q", "k", "v"]
        .iter()
        .fold(Tensors::default(), |tensors, name| {
            tensors.f32s(&format!("{name}.weight"), &[2, 64], &[1.0; 128])
        });
    assert_eq!(
        read(modelopt(&[]), &plain).1,
        [
            "config.json says NVFP4, but 3 modules, the first `thinker.k`, are not quantized; the tensors decide"
        ]
    );
    let bnb = json!({"quant_method": "bitsandbytes", "load_in_4bit": true});
    assert_eq!(
        read(bnb, &plain).1,
        ["config.json says bitsandbytes, but no tensor is quantized; the tensors decide"]
    );
    let unknown = json!({"quant_method": "modelopt", "quant_algo": "NVFP9"});
    let (error, said) = read(unknown.clone(), &qkv());
    assert_eq!(error, None);
    assert!(
        said[0].contains("\"NVFP9\", which is not known; every tensor is in a known form"),
        "{said:?}"
    );
    let odd = qkv().without("q.weight_scale");
    let (error, _) = read(unknown, &odd);
    assert!(error.unwrap().contains("NVFP9"));
    let broken = json!({"quant_method": "compressed-tensors", "ignore": ["re:("]});
    let (error, said) = read(broken, &qkv());
    assert_eq!(error, None);
    assert!(
        said[0].contains("`re:(`: not a regular expression"),
        "{said:?}"
    );
}
