//! Every operation on a Vulkan adapter against its plain-tensor reference on the CPU, on random data.

use std::time::Instant;

use burn::tensor::{Device, Tensor};
use burn_omni_ops::adapter::software_vulkan_for_test;
use burn_omni_ops::check::{CHECKS, CPU_TOLERANCE, FILLING, GPU_TOLERANCE, Random, error};
use burn_omni_ops::{self as ops, AttentionSpec};

#[test]
fn every_operation_matches_its_reference() {
    let Some(device) = software_vulkan_for_test() else {
        return;
    };
    let mut wrong = Vec::new();
    for check in CHECKS.iter().chain([&FILLING]) {
        let started = Instant::now();
        let error = check.run(&device, &Device::flex());
        let seconds = started.elapsed().as_secs_f64();
        println!("{:<18} error {error:.1e}, {seconds:.1} s", check.name);
        if error > GPU_TOLERANCE {
            wrong.push(format!("{}: error {error:e}", check.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn keys_behind_the_last_query_are_not_read() {
    let Some(device) = software_vulkan_for_test() else {
        return;
    };
    let mut random = Random(4);
    let q = random.tensor([3, 2, 32], &device);
    let k = random.tensor([9, 2, 32], &device);
    let v = random.tensor([9, 2, 32], &device);
    let poison =
        |x: Tensor<3>| Tensor::cat(vec![x, Tensor::full([4, 2, 32], f32::NAN, &device)], 0);
    let spec = AttentionSpec::causal(32, 6);
    let expected = ops::attention(q.clone(), k.clone(), v.clone(), spec.clone());
    let found = ops::attention(q, poison(k), poison(v), spec);
    assert!(error(found, expected) <= CPU_TOLERANCE);
}

#[test]
fn many_keys_of_one_row_are_split_and_joined() {
    let Some(device) = software_vulkan_for_test() else {
        return;
    };
    let cpu = Device::flex();
    let [q, k, v] = [[1, 8, 72], [700, 2, 72], [700, 2, 72]].map(|shape| (Random(6), shape));
    let on = |(random, shape): &(Random, [usize; 3]), device| random.clone().tensor(*shape, device);
    let spec = AttentionSpec::causal(72, 699);
    let expected = ops::attention(on(&q, &cpu), on(&k, &cpu), on(&v, &cpu), spec.clone());
    let found = ops::attention(on(&q, &device), on(&k, &device), on(&v, &device), spec);
    assert!(error(found, expected) <= GPU_TOLERANCE);
}
