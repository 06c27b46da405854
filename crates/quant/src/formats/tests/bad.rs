//! One fault at a time: each is one line that names the tensor, or a warning where the rest can be read.

use super::*;
use crate::formats::QuantConfig;

/// ModelOpt's NVFP4 of a matrix `[2, 64]`.
fn nvfp4() -> Tensors {
    Tensors::golden("modelopt", "n64.nvfp4.", "m.").without("m.value")
}

/// The same matrix from compressed-tensors.
fn nvfp4_ct() -> Tensors {
    Tensors::golden("compressed_tensors", "n64.nvfp4.", "m.").without("m.value")
}

const SHAPE: [usize; 2] = [2, 64];

fn set_scale(bytes: u8) -> impl FnOnce(&mut Vec<u8>) {
    move |scales| scales[3] = bytes
}

fn f32_bytes(value: f32) -> impl FnOnce(&mut Vec<u8>) {
    move |bytes| *bytes = value.to_le_bytes().to_vec()
}

#[test]
fn tensor_scales_that_are_none() {
    for (tensors, name) in [
        (nvfp4(), "m.weight_scale_2"),
        (nvfp4_ct(), "m.weight_global_scale"),
    ] {
        for (value, shown) in [
            (0.0, "0"),
            (-1.0, "-1"),
            (f32::NAN, "NaN"),
            (f32::INFINITY, "inf"),
        ] {
            let error = tensors
                .clone()
                .changed(name, f32_bytes(value))
                .open()
                .error(SHAPE);
            let expected =
                format!("tensor `thinker.{name}`: expected a factor above 0, found {shown}");
            assert_eq!(error, expected);
        }
        let missing = tensors.without(name).open().error(SHAPE);
        assert_eq!(missing, format!("thinker has 1 missing tensor: `{name}`"));
    }
}

#[test]
fn a_missing_tensor_scale_comes_from_the_largest_weight() {
    let whole = nvfp4();
    let scale = whole.get("m.weight_scale_2").f32s()[0];
    let tensors = nvfp4().without("m.weight_scale_2").f32s(
        "m.weight_quantizer._amax",
        &[],
        &[scale * 2688.0],
    );
    let open = tensors.open();
    assert_eq!(open.values("m", SHAPE), whole.open().values("m", SHAPE));
    assert!(open.said()[0].contains("`m`: no tensor scale, taken from the largest weight"));
}

#[test]
fn block_scales_that_are_nan_or_negative() {
    let whole = nvfp4().open().values("m", SHAPE);
    for byte in [0x7F, 0xFF] {
        let open = nvfp4().changed("m.weight_scale", set_scale(byte)).open();
        let highest = nvfp4().changed("m.weight_scale", set_scale(0x7E)).open();
        assert_eq!(open.values("m", SHAPE), highest.values("m", SHAPE));
        assert_eq!(
            open.said(),
            ["`thinker.m.weight_scale`: 1 scale byte is NaN, taken as 448"]
        );
    }
    let open = nvfp4()
        .changed("m.weight_scale", |scales| scales[3] |= 0x80)
        .open();
    let found = open.values("m", SHAPE);
    for (i, (found, whole)) in found.iter().zip(&whole).enumerate() {
        let sign = if (48..64).contains(&i) { -1.0 } else { 1.0 };
        assert_eq!(*found, sign * whole, "value {i}");
    }
    assert_eq!(
        open.said(),
        ["`thinker.m.weight_scale`: 1 scale byte with a sign, which was moved to the codes"]
    );
}

#[test]
fn a_tensor_of_zeros_needs_no_scale() {
    let zeros = Tensors::golden("modelopt", "zeros.nvfp4.", "m.").without("m.value");
    let open = zeros.open();
    assert_eq!(open.values("m", [1, 32]), [0.0; 32]);
    assert_eq!(open.said().len(), 1);
    let open = nvfp4_ct()
        .changed("m.weight_packed", |codes| codes.fill(0x80))
        .changed("m.weight_global_scale", f32_bytes(f32::INFINITY))
        .open();
    assert!(open.values("m", SHAPE).iter().all(|value| *value == 0.0));
}

#[test]
fn shapes_that_do_not_fit() {
    let cases = [
        (
            nvfp4().shaped("m.weight", &[4, 16]),
            "tensor `thinker.m.weight`: expected shape [2, 32], found [4, 16]",
        ),
        (
            nvfp4().shaped("m.weight_scale", &[4, 2]),
            "tensor `thinker.m.weight_scale`: expected shape [2, 4], found [4, 2]",
        ),
        (
            // Groups of 32.
            nvfp4()
                .changed("m.weight_scale", |scales| scales.truncate(4))
                .shaped("m.weight_scale", &[2, 2]),
            "tensor `thinker.m.weight_scale`: expected shape [2, 4], found [2, 2]",
        ),
        (
            nvfp4().f32s("m.weight_scale_2", &[3], &[1.0; 3]),
            "tensor `thinker.m.weight_scale_2`: expected shape [], found [3]",
        ),
        (
            nvfp4().f32s("m.pre_quant_scale", &[4], &[1.0; 4]),
            "tensor `thinker.m.pre_quant_scale`: expected shape [64], found [4]",
        ),
        (
            nvfp4().without("m.weight_scale"),
            "tensor `thinker.m.weight`: expected dtype BF16, F16 or F32, found U8",
        ),
        (
            nvfp4().f32s("m.weight_scale", &[2, 4], &[1.0; 8]),
            "tensor `thinker.m.weight`: expected dtype BF16, F16 or F32, found U8",
        ),
    ];
    for (tensors, expected) in cases {
        assert_eq!(tensors.open().error(SHAPE), expected);
    }
    let mx = Tensors::golden("compressed_tensors", "n64.mxfp4.", "m.").without("m.value");
    let error = mx.shaped("m.weight_scale", &[4, 1]).open().error(SHAPE);
    assert_eq!(
        error,
        "tensor `thinker.m.weight_scale`: expected shape [2, 2], found [4, 1]"
    );
}

#[test]
fn fp8_scales_that_are_none() {
    let fp8 = || Tensors::golden("modelopt", "fp8.tensor.", "m.").without("m.value");
    let error = fp8()
        .changed("m.weight_scale", f32_bytes(0.0))
        .open()
        .error([2, 16]);
    assert_eq!(
        error,
        "tensor `thinker.m.weight_scale`: expected a factor above 0, found 0"
    );
    let error = fp8().without("m.weight_scale").open().error([2, 16]);
    assert_eq!(error, "thinker has 1 missing tensor: `m.weight_scale`");
    let rows = fp8().f32s("m.weight_scale", &[2, 1], &[1.0, f32::NAN]);
    assert_eq!(
        rows.open().error([2, 16]),
        "tensor `thinker.m.weight_scale`: expected finite scales, found NaN at element 1"
    );
    let other = fp8().f32s("m.weight_scale", &[3], &[1.0; 3]);
    assert_eq!(
        other.open().error([2, 16]),
        "tensor `thinker.m.weight_scale`: expected shape [1, 1], found [3]"
    );
    let open = fp8().changed("m.weight", |codes| codes[0] = 0xFF).open();
    let scale = fp8().get("m.weight_scale").f32s()[0];
    assert_eq!(open.values("m", [2, 16])[0], -448.0 * scale);
    assert_eq!(
        open.said(),
        ["`thinker.m.weight`: 1 FP8 weight is NaN, taken as 448"]
    );
}

#[test]
fn powers_of_two_that_are_nan() {
    let mx = Tensors::golden("modelopt", "n64.mxfp4.", "m.").without("m.value");
    let open = mx
        .changed("m.weight_scale", |scales| scales[1] = 0xFF)
        .open();
    let values = open.values("m", SHAPE);
    assert!(values[32..64].iter().all(|value| *value == 0.0));
    assert!(values[..32].iter().any(|value| *value != 0.0));
    assert_eq!(
        open.said(),
        ["`thinker.m.weight_scale`: 1 scale byte is NaN, the blocks taken as 0"]
    );
}

#[test]
fn both_conventions_on_one_module() {
    let tensors = nvfp4().f32s("m.weight_global_scale", &[1], &[12.0]);
    let open = tensors.open();
    assert_eq!(open.values("m", SHAPE), nvfp4().open().values("m", SHAPE));
    assert_eq!(
        open.said(),
        ["`m`: both weight_scale_2 and weight_global_scale, the first was taken"]
    );
}

#[test]
fn bitsandbytes_that_contradicts_itself() {
    let bnb = || {
        Tensors::golden("bitsandbytes", "k64.nf4.", "m.")
            .without("m.value")
            .without("m.storage_bf16.weight")
            .and_golden("bitsandbytes", "nf4.quant_map", "m.weight.quant_map")
    };
    const STATE: &str = "m.weight.quant_state.bitsandbytes__nf4";
    let state = |text: &str| bnb().with(STATE, Dtype::U8, &[text.len()], text.into());
    let cases = [
        (
            bnb().without("m.weight.quant_map"),
            "thinker has 1 missing tensor: `m.weight.quant_map`",
        ),
        (
            state("{"),
            "tensor `thinker.m.weight.quant_state.bitsandbytes__nf4`: expected JSON, found EOF while parsing an object at line 1 column 1",
        ),
        (
            state(r#"{"shape":[2,32],"blocksize":64}"#),
            "tensor `thinker.m.weight.quant_state.bitsandbytes__nf4`: expected shape [1, 64], found [2, 32]",
        ),
        (
            state(r#"{"shape":[1,64],"blocksize":32}"#),
            "tensor `thinker.m.weight.absmax`: expected shape [2], found [1]",
        ),
        (
            bnb().f32s("m.weight.absmax", &[1], &[f32::INFINITY]),
            "tensor `thinker.m.weight.absmax`: expected finite scales, found inf at element 0",
        ),
    ];
    for (tensors, expected) in cases {
        assert_eq!(tensors.open().error([1, 64]), expected);
    }
    let mut table = bnb().get("m.weight.quant_map").f32s();
    table[3] = 0.25;
    let open = bnb().f32s("m.weight.quant_map", &[16], &table).open();
    assert!(matches!(open.read("m", [1, 64]), Matrix::Values(_)));
    assert!(open.said()[0].contains("the table of values is not the usual one"));
}

#[test]
fn int4_that_does_not_fit() {
    let awq = || Tensors::golden("int4", "awq.", "m.").and_golden("int4", "scales", "m.scales");
    let cases = [
        (
            awq().without("m.scales"),
            "thinker has 1 missing tensor: `m.scales`",
        ),
        (
            awq().shaped("m.qweight", &[16, 8]),
            "tensor `thinker.m.qweight`: expected shape [4, 32], found [16, 8]",
        ),
        (
            awq().shaped("m.scales", &[4, 16]),
            "tensor `thinker.m.scales`: expected shape [4, 32], found [4, 16]",
        ),
    ];
    for (tensors, expected) in cases {
        assert_eq!(tensors.open().error([32, 32]), expected);
    }
    let sym = Tensors::golden("compressed_tensors", "int4.sym.", "m.").without("m.value");
    let error = sym
        .changed("m.weight_shape", |sizes| sizes[0] = 9)
        .open()
        .error([3, 64]);
    assert_eq!(
        error,
        "tensor `thinker.m.weight_shape`: expected shape [3, 64], found [9, 64]"
    );
}

#[test]
fn the_width_of_a_layer_is_that_of_its_codes() {
    let gptq = || {
        let tensors = Tensors::golden("int4", "gptq.", "m.");
        tensors.and_golden("int4", "scales", "m.scales")
    };
    let load = |tensors: &Tensors, bits: usize| {
        let open = tensors.open();
        let json = serde_json::json!({
            "quant_method": "auto-round", "packing_format": "auto_round:auto_gptq", "bits": 4, "group_size": 16,
            "extra_config": {"m": {"bits": bits}, ".*other": {"bits": 16, "data_type": "float"}},
        });
        let config = QuantConfig::read(Path::new("config.json"), &json, &open.warnings);
        let device = Device::flex();
        let options = LoadOptions {
            config: Some(&config),
            ..LoadOptions::new(&device, DType::F32, &open.warnings)
        };
        let build = |weights: &Weights<'_>| weights.linear("m", [32, 32], crate::Bias::No);
        let loaded = crate::load(open.set(), options, build);
        assert_eq!(open.said(), [""; 0]);
        loaded.map(drop).map_err(|error| error.to_string())
    };
    // The config is wrong about 4 bits.
    for bits in [4, 8, 16] {
        assert_eq!(load(&gptq(), bits), Ok(()));
    }
    // It is right about 8, 3 and 2.
    for bits in [8, 3, 2] {
        let codes = vec![0x11; bits * 32 * 4];
        let other = gptq().with("m.qweight", Dtype::I32, &[bits, 32], codes);
        let error = load(&other, bits).unwrap_err();
        let expected =
            format!("`thinker.m.qweight`: expected codes of 4 bits, found codes of {bits} bits");
        assert!(
            error.ends_with(&expected) && !error.contains('\n'),
            "{error}"
        );
    }
}

#[test]
fn what_belongs_to_nobody_is_still_unexpected() {
    let error = nvfp4()
        .f32s("other.weight_scale_2", &[], &[1.0])
        .open()
        .error(SHAPE);
    assert_eq!(
        error,
        "thinker has 1 unexpected tensor: `other.weight_scale_2`"
    );
    let more = nvfp4()
        .f32s("m.input_scale", &[], &[1.0])
        .f32s("m.k_scale", &[], &[1.0])
        .f32s("self_attn.kv_scale", &[], &[1.0])
        .f32s("m.output_quantizer._amax", &[], &[1.0]);
    let linear = more
        .open()
        .load(|weights| weights.linear("m", SHAPE, crate::Bias::No));
    assert!(linear.is_ok());
}
