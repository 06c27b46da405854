//! Companions of any dtype, shape and content are read or refused in one line.

use proptest::prelude::*;

use super::*;

const PARTS: [&str; 16] = [
    "weight",
    "weight_packed",
    "weight_scale",
    "weight_scale_2",
    "weight_global_scale",
    "weight_scale_inv",
    "weight_shape",
    "weight_zero_point",
    "qweight",
    "qzeros",
    "scales",
    "g_idx",
    "pre_quant_scale",
    "weight.absmax",
    "weight.quant_map",
    "weight.quant_state.bitsandbytes__nf4",
];

const DTYPES: [Dtype; 8] = [
    Dtype::U8,
    Dtype::F8_E4M3,
    Dtype::F8_E8M0,
    Dtype::F32,
    Dtype::BF16,
    Dtype::I32,
    Dtype::I64,
    Dtype::F16,
];

fn tensor() -> impl Strategy<Value = (usize, usize, Vec<usize>, Vec<u8>)> {
    let size = prop_oneof![
        Just(0),
        Just(1),
        Just(2),
        Just(4),
        Just(8),
        Just(16),
        Just(32),
        Just(64)
    ];
    let shape = prop::collection::vec(size, 0..4);
    (
        0..PARTS.len(),
        0..DTYPES.len(),
        shape,
        prop::collection::vec(any::<u8>(), 1..40),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_companions_are_read_or_refused(
        parts in prop::collection::vec(tensor(), 1..5),
        rows in 1_usize..5,
        width in prop_oneof![Just(1_usize), Just(16), Just(20), Just(32), Just(64)],
    ) {
        let mut tensors = Tensors::default();
        for (part, dtype, shape, bytes) in parts {
            let dtype = DTYPES[dtype];
            let length = shape.iter().product::<usize>() * dtype.bitsize() / 8;
            let bytes = bytes.iter().cycle().take(length).copied().collect();
            tensors = tensors.with(&format!("m.{}", PARTS[part]), dtype, &shape, bytes);
        }
        try_all(&tensors, [rows, width])?;
    }

    #[test]
    fn any_bytes_of_the_right_shape_are_read(
        seed in prop::collection::vec(any::<u8>(), 64),
        rows in 1_usize..5,
        blocks in 1_usize..5,
        form in 0_usize..5,
    ) {
        let width = blocks * 32;
        let fill = |length: usize| seed.iter().cycle().take(length).copied().collect::<Vec<u8>>();
        let with = |tensors: Tensors, name: &str, dtype: Dtype, shape: &[usize]| {
            let bytes = fill(shape.iter().product::<usize>() * dtype.bitsize() / 8);
            tensors.with(name, dtype, shape, bytes)
        };
        let none = Tensors::default;
        let tensors = match form {
            0 => {
                let codes = with(none(), "m.weight", Dtype::U8, &[rows, width / 2]);
                with(codes, "m.weight_scale", Dtype::F8_E4M3, &[rows, width / 16]).f32s("m.weight_scale_2", &[], &[0.5])
            }
            1 => {
                let codes = with(none(), "m.weight_packed", Dtype::U8, &[rows, width / 2]);
                // Powers of two up to 2^120, so that products are numbers.
                with(codes, "m.weight_scale", Dtype::U8, &[rows, blocks])
                    .changed("m.weight_scale", |scales| scales.iter_mut().for_each(|scale| *scale = (*scale).min(247)))
            }
            2 => with(none(), "m.weight", Dtype::F8_E4M3, &[rows, width]).f32s("m.weight_scale", &[], &[0.5]),
            3 => {
                let codes = with(none(), "m.qweight", Dtype::I32, &[width / 8, rows * 8]);
                let zeros = with(codes, "m.qzeros", Dtype::I32, &[blocks, rows]);
                zeros.f32s("m.scales", &[blocks, rows * 8], &vec![0.5; blocks * rows * 8])
            }
            _ => {
                let codes = with(none(), "m.qweight", Dtype::I32, &[width, rows]);
                let zeros = with(codes, "m.qzeros", Dtype::I32, &[blocks, rows]);
                zeros.f32s("m.scales", &[blocks, rows * 8], &vec![0.5; blocks * rows * 8])
            }
        };
        let rows = if form > 2 { rows * 8 } else { rows };
        let open = tensors.open();
        let linear = open.load(|weights| weights.linear("m", [rows, width], crate::Bias::No));
        prop_assert!(linear.is_ok(), "{:?}", linear.err());
        prop_assert!(open.values("m", [rows, width]).iter().all(|value| value.is_finite()));
        let forms = crate::formats::survey(open.set(), None);
        let parameters: u64 = forms.values().map(|form| form.parameters).sum();
        prop_assert_eq!(parameters, (rows * width) as u64);
    }
}

/// Loads a matrix in every way that there is; only a panic is wrong.
fn try_all(tensors: &Tensors, [rows, width]: [usize; 2]) -> Result<(), TestCaseError> {
    let open = tensors.open();
    let error = open
        .load(|weights| weights.linear("m", [rows, width], crate::Bias::No))
        .err();
    let table = open
        .load(|weights| weights.embedding("m", [rows, width]))
        .err();
    let kernel = open
        .load(|weights| {
            weights
                .at("m")
                .mapped("weight", [rows, width, 1], [rows, width], |values| values)
        })
        .err();
    for error in [error, table, kernel].into_iter().flatten() {
        prop_assert!(!error.to_string().contains('\n'), "{error}");
    }
    let _ = crate::formats::survey(open.set(), None);
    Ok(())
}
