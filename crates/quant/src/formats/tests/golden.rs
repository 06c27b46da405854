//! What each package makes of its own bytes, bit by bit where it rounds as we do.

use super::*;

/// The inputs that both writers of NVFP4 have seen, with their shapes.
const NVFP4: [(&str, [usize; 2]); 11] = [
    ("spec", [2, 16]),
    ("ties", [2, 32]),
    ("n16", [2, 16]),
    ("n32", [2, 32]),
    ("n64", [2, 64]),
    ("n96", [1, 96]),
    ("n128", [1, 128]),
    ("outlier", [1, 64]),
    ("zeroblock", [1, 64]),
    ("zeros", [1, 32]),
    ("tiny", [4, 32]),
];

/// How many steps of f32 two values are apart, the two zeros being one.
fn steps(a: f32, b: f32) -> u32 {
    let place = |x: f32| {
        let bits = x.to_bits() as i32;
        if bits < 0 {
            i32::MIN.wrapping_sub(bits)
        } else {
            bits
        }
    };
    place(a).abs_diff(place(b))
}

/// Compares a module's values with those that the package gives, which may be so many steps apart.
fn check(tensors: &Tensors, shape: [usize; 2], allowed: u32) -> Vec<String> {
    let open = tensors.open();
    let found = open.values("m", shape);
    let expected = tensors.get("m.value").f32s();
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let apart = steps(*found, *expected);
        assert!(
            apart <= allowed,
            "value {i}: {found} for {expected}, {apart} steps apart"
        );
    }
    open.said()
}

#[test]
fn nvfp4_of_both_dialects() {
    // Both packages multiply (or divide) scale and tensor scale first and round there, we round once: a step apart.
    for (name, shape) in NVFP4 {
        for file in ["modelopt", "compressed_tensors"] {
            if (name, file) == ("zeros", "modelopt") {
                continue; // the package makes NaN of its own zeros
            }
            let tensors = Tensors::golden(file, &format!("{name}.nvfp4."), "m.");
            assert_eq!(check(&tensors, shape, 1), [""; 0], "{name} of {file}");
        }
    }
}

#[test]
fn the_dialects_say_the_same() {
    for (name, shape) in NVFP4 {
        if matches!(name, "zeros" | "tiny") {
            continue; // the writers differ there
        }
        let read = |file| {
            Tensors::golden(file, &format!("{name}.nvfp4."), "m.")
                .open()
                .values("m", shape)
        };
        let (modelopt, other) = (read("modelopt"), read("compressed_tensors"));
        let apart = modelopt
            .iter()
            .zip(&other)
            .map(|(a, b)| steps(*a, *b))
            .max();
        // Each is rounded once, and so is the reciprocal.
        assert!(apart <= Some(2), "{name}: {apart:?} steps apart");
    }
}

#[test]
fn mxfp4_of_both_dialects() {
    for (name, shape) in NVFP4 {
        if matches!(name, "spec" | "n16") {
            continue;
        }
        for file in ["modelopt", "compressed_tensors"] {
            let said = check(
                &Tensors::golden(file, &format!("{name}.mxfp4."), "m."),
                shape,
                0,
            );
            assert_eq!(said, [""; 0]);
        }
    }
}

#[test]
fn fp8_of_every_reach() {
    let cases = [
        ("modelopt", "tensor", [2, 16]),
        ("modelopt", "channel", [3, 16]),
        ("modelopt", "rows", [130, 2]),
        ("modelopt", "cols", [1, 144]),
        ("modelopt", "mx", [2, 64]),
        ("compressed_tensors", "channel", [3, 16]),
        ("compressed_tensors", "mx", [2, 64]),
    ];
    for (file, name, shape) in cases {
        let said = check(
            &Tensors::golden(file, &format!("fp8.{name}."), "m."),
            shape,
            0,
        );
        assert_eq!(said, [""; 0], "{name} of {file}");
    }
    // The same blocks in the shape and under the name that other writers give them.
    let blocks =
        Tensors::golden("modelopt", "fp8.rows.", "m.").shaped("m.weight_scale", &[2, 1, 1, 1]);
    check(&blocks, [130, 2], 0);
    let scale = blocks.get("m.weight_scale").bytes.clone();
    let inverse =
        blocks
            .without("m.weight_scale")
            .with("m.weight_scale_inv", Dtype::F32, &[2, 1], scale);
    check(&inverse, [130, 2], 0);
}

/// A matrix of bitsandbytes with the tables that all of them share.
fn bnb(name: &str, kind: &str, nested: bool) -> Tensors {
    let front = if nested {
        format!("{name}.{kind}.nested.")
    } else {
        format!("{name}.{kind}.")
    };
    let tensors = Tensors::golden("bitsandbytes", &front, "m.").and_golden(
        "bitsandbytes",
        &format!("{kind}.quant_map"),
        "m.weight.quant_map",
    );
    if nested {
        return tensors.and_golden(
            "bitsandbytes",
            "nested_quant_map",
            "m.weight.nested_quant_map",
        );
    }
    tensors
}

#[test]
fn bitsandbytes() {
    for kind in ["nf4", "fp4"] {
        assert_eq!(check(&bnb("k64", kind, false), [1, 64], 0), [""; 0]);
        let said = check(&bnb("odd", kind, false), [3, 21], 0);
        assert!(said[0].contains("blocks cross rows"), "{said:?}");
    }
}

#[test]
fn bitsandbytes_in_blocks_that_cross_rows() {
    // The package's own values are wrong here: its CPU kernel takes one block for each row that is shorter than a block,
    // though its quantizer made blocks of the flattened matrix. So the values are compared with the input, from which
    // they are half the widest gap of the table away at most.
    for (kind, nested) in [("nf4", false), ("nf4", true), ("fp4", false), ("fp4", true)] {
        let open = bnb("cross", kind, nested).open();
        let found = open.values("m", [3, 48]);
        let input = Tensors::golden("bitsandbytes", "cross.input", "input");
        let input = input.get("input").f32s();
        for (i, block) in input.chunks(64).enumerate() {
            let largest = block
                .iter()
                .fold(0.0_f32, |largest, value| largest.max(value.abs()));
            for (value, found) in block.iter().zip(&found[i * 64..]) {
                let apart = (value - found).abs();
                assert!(
                    apart <= largest * 0.17,
                    "{kind} block {i}: {found} for {value}"
                );
            }
        }
        assert!(open.said()[0].contains("blocks cross rows"));
    }
}

#[test]
fn bitsandbytes_in_elements_of_another_dtype() {
    let tensors = bnb("k64", "nf4", false).without("m.weight").and_golden(
        "bitsandbytes",
        "k64.nf4.storage_bf16.weight",
        "m.weight",
    );
    check(&tensors, [1, 64], 0);
}

#[test]
fn int4_of_compressed_tensors() {
    for (name, shape) in [("sym", [3, 64]), ("asym", [12, 32])] {
        let said = check(
            &Tensors::golden("compressed_tensors", &format!("int4.{name}."), "m."),
            shape,
            0,
        );
        assert_eq!(said, [""; 0], "{name}");
    }
}

/// AWQ or GPTQ with the scales that both share.
fn int4(name: &str) -> Tensors {
    Tensors::golden("int4", &format!("{name}."), "m.")
        .and_golden("int4", "scales", "m.scales")
        .and_golden("int4", "value", "m.value")
}

#[test]
fn awq_and_both_versions_of_gptq() {
    // The packages multiply in f16, where these values are exact.
    check(&int4("awq"), [32, 32], 0);
    check(&int4("gptq"), [32, 32], 0);
    let second = int4("gptq")
        .without("m.qzeros")
        .and_golden("int4", "gptq_v2.", "m.");
    let open = second.open();
    let module = Module::new(open.set(), "m", &[32], 32).with_gptq_v2(true);
    let found = Stored::find(module, &open.warnings)
        .unwrap()
        .read(&open.warnings)
        .unwrap()
        .values();
    assert_eq!(found, second.get("m.value").f32s());
}

#[test]
fn gptq_in_another_order_of_columns() {
    let tensors = Tensors::golden("int4", "desc.", "m.");
    let open = tensors.open();
    let module = Module::new(open.set(), "m", &[8], 32).with_gptq_v2(true);
    let stored = Stored::find(module, &open.warnings).unwrap();
    let found = stored.read(&open.warnings).unwrap();
    assert!(matches!(found, Matrix::Values(_)));
    assert_eq!(found.values(), tensors.get("m.value").f32s());
    assert!(open.said()[0].contains("columns are grouped in another order"));
}
