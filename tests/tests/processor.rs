//! Conversations to prompts, against the reference's processor.
//!
//! | what | held to |
//! |---|---|
//! | ids, grids, numbers of frames | equal |
//! | positions on three axes, their delta, seconds a grid step | equal bits |
//! | patches | equal bytes after the resize, and equal bits after normalisation |
//! | log-mel | 1e-4 of the clip's largest value |

use burn_omni_model::processor::media::{LogMel, Patches};
use burn_omni_model::processor::{Medium, Prompt};
use burn_omni_tests::compare::Comparison;
use burn_omni_tests::tiny::{Case, golden, parts};

/// Every case with its prompt.
fn prompts() -> impl Iterator<Item = (&'static str, &'static Case, Prompt)> {
    golden().cases.iter().map(|(name, case)| {
        let prompt = parts().processor.prepare(&case.conversation());
        (name.as_str(), case, prompt.expect("the case is sound"))
    })
}

#[test]
fn prompts_have_the_references_ids_and_positions() {
    let mut compared = Comparison::new(&golden().tensors);
    for (name, case, prompt) in prompts() {
        compared.equal(&format!("{name}: ids"), &prompt.ids, &case.facts.prompt_ids);
        let positions = &prompt.positions;
        let axes = [&positions.t, &positions.h, &positions.w];
        let ours: Vec<f32> = axes.into_iter().flatten().copied().collect();
        let (seq, place) = (positions.len(), "thinker/positions");
        compared.tensor(name, place, &ours, seq, None, 0.0);
        compared.equal(
            &format!("{name}: delta"),
            &positions.delta,
            &case.facts.rope_delta,
        );
        let steps: Vec<f32> = prompt.media.iter().filter_map(step).collect();
        let what = format!("{name}: seconds a grid step");
        compared.equal(&what, &steps, &case.facts.second_per_grid);
    }
    compared.finish("prompts");
}

/// Seconds a step in time of a film.
fn step(medium: &Medium) -> Option<f32> {
    match medium {
        Medium::Video {
            second_per_grid, ..
        } => Some(*second_per_grid as f32),
        _ => None,
    }
}

#[test]
fn clips_have_the_references_log_mel() {
    let mut compared = Comparison::new(&golden().tensors);
    for (name, case, prompt) in prompts() {
        let count = [prompt.audio.len(), case.facts.mel.len()];
        compared.equal(&format!("{name}: clips"), &count[0], &count[1]);
        for (i, (mel, facts)) in prompt.audio.iter().zip(&case.facts.mel).enumerate() {
            compared.equal(&format!("{name}: frames"), &mel.frames, &facts.frames);
            let rows = &case.facts.rows[&format!("mel.{i}")];
            let ours = by_frame(mel);
            let place = format!("audio/mel.{i}");
            compared.tensor(name, &place, &ours, mel.mels, Some(rows), 1e-4);
            let mean = mean(ours.iter().map(|x| f64::from(*x)));
            let mean_abs = self::mean(ours.iter().map(|x| f64::from(x.abs())));
            compared.note("mel mean", (mean - facts.mean).abs(), name);
            compared.note(
                "mel mean magnitude",
                (mean_abs - facts.mean_abs).abs(),
                name,
            );
            let close = (mean - facts.mean)
                .abs()
                .max((mean_abs - facts.mean_abs).abs())
                < 1e-5;
            compared.equal(
                &format!("{name}: clip {i}: mean {mean} is close"),
                &close,
                &true,
            );
        }
    }
    compared.finish("log-mel");
}

/// `[mels, frames]` as `[frames, mels]`.
fn by_frame(mel: &LogMel) -> Vec<f32> {
    let at = |frame: usize| (0..mel.mels).map(move |k| mel.data[k * mel.frames + frame]);
    (0..mel.frames).flat_map(at).collect()
}

#[test]
fn pictures_and_films_have_the_references_patches() {
    let mut compared = Comparison::new(&golden().tensors);
    for (name, case, prompt) in prompts() {
        let facts = &case.facts;
        for (stage, ours, grids, mean_u8) in [
            (
                "image",
                &prompt.images,
                &facts.image_grid_thw,
                facts.image_mean_u8,
            ),
            (
                "video",
                &prompt.videos,
                &facts.video_grid_thw,
                facts.video_mean_u8,
            ),
        ] {
            let ours_grids: Vec<_> = ours.iter().map(|x| x.grid).collect();
            compared.equal(&format!("{name}: {stage} grids"), &ours_grids, grids);
            let Some(mean_u8) = mean_u8 else { continue };
            let bytes = bytes(ours);
            let width = ours[0].data.len() / ours[0].rows();
            let rows = &facts.rows[stage];
            let place = format!("{stage}/patches");
            compared.tensor(name, &place, &bytes, width, Some(rows), 0.0);
            let error = (mean(bytes.iter().map(|x| f64::from(*x))) - mean_u8).abs();
            compared.note("mean byte", error, name);
            compared.equal(
                &format!("{name}: mean byte is close"),
                &(error < 1e-3),
                &true,
            );
        }
    }
    compared.finish("patches");
}

/// The bytes behind normalised patches: each value must be exactly what a byte becomes.
fn bytes(patches: &[Patches]) -> Vec<f32> {
    let values = patches.iter().flat_map(|patches| patches.data.iter());
    let byte = |x: &f32| {
        let byte = (x * 127.5 + 127.5).round();
        assert_eq!(((byte - 127.5) / 127.5).to_bits(), x.to_bits(), "{byte}");
        byte
    };
    values.map(byte).collect()
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}
