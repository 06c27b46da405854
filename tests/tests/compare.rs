//! The comparison itself: it finds what it is there to find.

use burn::tensor::{Tensor, TensorData};
use burn_omni_tests::compare::Comparison;
use burn_omni_tests::parts::device;
use burn_omni_tests::tiny::golden;

/// What a comparison that fails says.
fn failure(compare: impl FnOnce(&mut Comparison<'_>) + std::panic::UnwindSafe) -> String {
    let outcome = std::panic::catch_unwind(|| {
        let mut compared = Comparison::new(&golden().tensors);
        compare(&mut compared);
        compared.finish("a comparison");
    });
    let panic = outcome.expect_err("the comparison fails");
    panic.downcast_ref::<String>().expect("it says why").clone()
}

/// A golden tensor as all rows of ours, with zeros between.
fn ours(name: &str, rows: &[usize]) -> (Vec<f32>, usize) {
    let golden = golden().tensors.require(name);
    let [_, width] = golden.rows();
    let mut ours = vec![0.0; (rows[rows.len() - 1] + 1) * width];
    for (row, values) in rows.iter().zip(golden.data.chunks(width)) {
        ours[row * width..][..width].copy_from_slice(values);
    }
    (ours, width)
}

#[test]
fn a_wrong_value_is_named_by_case_layer_row_and_element() {
    let rows = &golden().cases["text"].facts.rows["thinker"];
    let (mut values, width) = ours("text/thinker/layer.3", rows);
    values[rows[2] * width + 5] += 1.0;
    let said = failure(|compared| {
        let shape = [values.len() / width, width];
        let tensor = Tensor::from_data(TensorData::new(values, shape), &device());
        compared.rows("text", "thinker/layer.3", tensor, rows);
    });
    let place = format!("text/thinker/layer.3: row {}, element 5: ours ", rows[2]);
    assert!(said.contains(&place), "{said}");
}

#[test]
fn a_value_that_is_not_a_number_differs() {
    let mut values = golden().tensors.require("text/thinker/logits").data.clone();
    values[7] = f32::NAN;
    let said = failure(|compared| compared.whole("text", "thinker/logits", &values));
    assert!(said.contains("element 7: ours NaN"), "{said}");
}

#[test]
fn a_tensor_that_is_missing_on_either_side_or_of_another_size_differs() {
    let said = failure(|compared| {
        let all = &golden().tensors.require("text/thinker/logits").data;
        compared.whole("text", "thinker/logits", all);
        compared.covers("text", "thinker");
    });
    assert!(
        said.contains("text/thinker/layer.0: nothing of ours"),
        "{said}"
    );
    assert!(!said.contains("text/thinker/logits: "), "{said}");
    let said = failure(|compared| compared.whole("text", "thinker/layer.99", &[]));
    assert!(said.contains("not a golden tensor"), "{said}");
    let said = failure(|compared| compared.whole("text", "thinker/logits", &[0.0; 1023]));
    assert!(said.contains("1023"), "{said}");
    let said = failure(|compared| compared.integers("text", "talker/codes", &[1, 2]));
    assert!(said.contains("2 values, golden 192"), "{said}");
}
