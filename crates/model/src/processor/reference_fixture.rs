//! Test data of the reference: `fixtures/text_reference.json`, written by the script beside it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::processor::{Grid, Medium, SpecialTokens, Tokenizer};

/// The entries of one section: `prompts`, `texts` or `positions`.
pub(crate) fn section(name: &str) -> Vec<Value> {
    let text = include_str!("../../fixtures/text_reference.json");
    let json: Value = serde_json::from_str(text).unwrap();
    json[name].as_array().unwrap().clone()
}

/// The demo checkpoint that the reference was run on.
pub(crate) fn demo_dir() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut candidates = here.ancestors().map(|dir| dir.join("assets/omni-demo"));
    candidates
        .find(|dir| dir.is_dir())
        .expect("assets/omni-demo lies in the repository")
}

pub(crate) fn special_tokens(tokenizer: &Tokenizer) -> SpecialTokens {
    let id = |token: &str| tokenizer.token_id(token).unwrap();
    SpecialTokens {
        audio: id("<|audio_pad|>"),
        image: id("<|image_pad|>"),
        video: id("<|video_pad|>"),
        audio_start: id("<|audio_start|>"),
        audio_end: id("<|audio_end|>"),
        vision_start: id("<|vision_start|>"),
        vision_end: id("<|vision_end|>"),
        position_id_per_seconds: 13.0,
        spatial_merge_size: 2,
    }
}

/// `[1, [5, 3, 1], [9, 2, 0]]` → 1, 5, 6, 7, 9, 9.
pub(crate) fn runs(encoded: &Value) -> Vec<f64> {
    let expand = |entry: &Value| match entry.as_array() {
        None => vec![entry.as_f64().unwrap()],
        Some(run) => {
            let [first, count, step] = [0, 1, 2].map(|index| run[index].as_f64().unwrap());
            (0..count as usize)
                .map(|index| first + index as f64 * step)
                .collect()
        }
    };
    encoded
        .as_array()
        .unwrap()
        .iter()
        .flat_map(expand)
        .collect()
}

pub(crate) fn media(encoded: &Value) -> Vec<Medium> {
    encoded.as_array().unwrap().iter().map(medium).collect()
}

fn medium(encoded: &Value) -> Medium {
    let size = |value: &Value| value.as_u64().map(|size| size as usize);
    let tokens = size(&encoded["audio_tokens"]);
    let grid = || {
        let [t, h, w] = [0, 1, 2].map(|axis| size(&encoded["grid"][axis]).unwrap());
        Grid { t, h, w }
    };
    match encoded["kind"].as_str().unwrap() {
        "audio" => Medium::Audio {
            tokens: tokens.unwrap(),
        },
        "image" => Medium::Image { grid: grid() },
        _ => Medium::Video {
            grid: grid(),
            second_per_grid: encoded["second_per_grid"].as_f64().unwrap(),
            audio_tokens: tokens,
        },
    }
}
