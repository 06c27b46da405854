//! What a choice takes in a captured graph: `cargo bench -p burn-omni-kernels --features cuda --bench choose`

#![allow(clippy::print_stdout, reason = "a program that prints")]

use std::time::Instant;

use burn_omni_kernels::Buffer;
use burn_omni_kernels::choose::{Chooser, Choosing, Chosen};
use cubecl::prelude::*;

/// Choices of a graph, and how often it runs.
const CHOICES: usize = 50;
const RUNS: usize = 20;

fn main() {
    let client = cubecl::Device::Cuda(Default::default()).client();
    for vocabulary in [2048, 3072, 152_064] {
        for (temperature, top_k, top_p) in [
            (0.0, 0, 1.0),
            (0.7, 20, 0.8),
            (0.9, 50, 1.0),
            (1.0, 50, 0.8),
            (1.0, 0, 1.0),
            (1.0, 0, 0.9),
        ] {
            let choosing = Choosing {
                temperature,
                top_k,
                top_p,
                ..Choosing::GREEDY
            };
            let time = time(&client, vocabulary, &choosing);
            println!(
                "{vocabulary:6} scores, temperature {temperature}, top_k {top_k}, top_p {top_p}: {time:.2} us"
            );
        }
    }
}

/// Microseconds of a choice.
fn time(client: &Client, vocabulary: usize, choosing: &Choosing) -> f64 {
    let mut state = 1_u64;
    let mut score = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let flat = (state >> 40) as f32 / (1 << 23) as f32 - 1.0;
        4.0 * flat + 12.0 * flat.powi(31)
    };
    let scores: Vec<f32> = (0..vocabulary).map(|_| score()).collect();
    let scores = Buffer::of(client, &scores);
    let codes = Buffer::numbers(client, &[0; CHOICES]);
    let chooser = Chooser::new(client, vocabulary);
    chooser.start(client, choosing);
    let launch = || {
        for slot in 0..CHOICES {
            chooser.launch(client, &scores, Chosen::Code(&codes, slot));
        }
    };
    let wait = || {
        let read = client.read_one(codes.handle.clone());
        read.expect("the launches before this read worked")
    };
    client.graph_prepare().expect("graphs are supported");
    launch();
    wait();
    client.start_capture().expect("capture starts");
    launch();
    let graph = client.stop_capture().expect("capture ends");
    let run = || {
        #[expect(unsafe_code, reason = "the buffers outlive the graph")]
        // SAFETY: they live until the end of the function.
        unsafe { graph.replay() }.expect("the graph runs");
    };
    run();
    wait();
    let start = Instant::now();
    for _ in 0..RUNS {
        run();
    }
    wait();
    start.elapsed().as_secs_f64() * 1e6 / (RUNS * CHOICES) as f64
}
