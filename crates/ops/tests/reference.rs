//! Every operation of the CPU backend against its plain-tensor reference, on random data.

use burn::tensor::{Device, Tensor};
use burn_omni_ops::check::{CHECKS, CPU_TOLERANCE, Random, error, numbers};
use burn_omni_ops::{self as ops, AttentionSpec};

#[test]
fn every_operation_matches_its_reference() {
    for check in CHECKS {
        let error = check.run(&Device::flex(), &Device::flex());
        assert!(error <= CPU_TOLERANCE, "{}: error {error:e}", check.name);
    }
}

#[test]
fn keys_behind_the_last_query_are_not_read() {
    let (mut random, device) = (Random(4), Device::flex());
    let q = random.tensor([3, 2, 32], &device);
    let (k, v) = (
        random.tensor([9, 2, 32], &device),
        random.tensor([9, 2, 32], &device),
    );
    let poison =
        |x: Tensor<3>| Tensor::cat(vec![x, Tensor::full([4, 2, 32], f32::NAN, &device)], 0);
    let spec = AttentionSpec::causal(32, 6);
    let expected = ops::attention(q.clone(), k.clone(), v.clone(), spec.clone());
    let found = ops::attention(q, poison(k), poison(v), spec);
    assert!(error(found, expected) <= CPU_TOLERANCE);
}

#[test]
fn a_held_input_is_not_written_over() {
    let (mut random, device) = (Random(5), Device::flex());
    let x = random.tensor([3, 130], &device);
    let before = numbers(x.clone());
    let held = x.clone();
    let alpha = random.tensor([130], &device);
    let _ = numbers(ops::snake(x, alpha.clone(), alpha));
    assert_eq!(numbers(held.clone()), before);
    let _ = numbers(ops::gelu(held.clone()));
    assert_eq!(numbers(held), before);
}

#[test]
fn a_wrong_result_is_an_error_of_its_size() {
    let device = Device::flex();
    let tensor = |values: [f32; 3]| Tensor::<1>::from_floats(values, &device);
    let expected = tensor([1.0, 2.0, 4.0]);
    assert_eq!(error(tensor([1.0, 3.0, 4.0]), expected.clone()), 0.25);
    assert_eq!(
        error(tensor([1.0, f32::NAN, 4.0]), expected.clone()),
        f32::INFINITY
    );
    assert_eq!(error(Tensor::zeros([2], &device), expected), f32::INFINITY);
}
