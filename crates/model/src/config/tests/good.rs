//! What is accepted, and what it becomes.

use burn_omni_quant::checkpoint::Checkpoint;
use serde_json::json;
use tempfile::TempDir;

use super::super::{Activation, GenerationConfig, RopeConfig, SpecialIds, SpeechIds};
use super::*;

/// A checkpoint folder whose components have one tensor each.
fn folder(files: &[(&str, &Value)], components: &[&str]) -> TempDir {
    let dir = TempDir::new().expect("a temporary folder");
    let header = |name: &str| {
        let entry = json!({"dtype": "U8", "shape": [0], "data_offsets": [0, 0]});
        json!({ format!("{name}.x"): entry }).to_string()
    };
    let write = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("inside of the folder")).expect("a folder");
        fs::write(path, content).expect("a file");
    };
    for component in components {
        let header = header(component.trim_end_matches('/'));
        let mut content = (header.len() as u64).to_le_bytes().to_vec();
        content.extend_from_slice(header.as_bytes());
        let folder = if component.ends_with('/') {
            component
        } else {
            ""
        };
        let name = component.trim_end_matches('/');
        write(&format!("{folder}{name}.safetensors"), &content);
    }
    for (name, json) in files {
        write(name, json.to_string().as_bytes());
    }
    dir
}

fn from_folder(dir: &TempDir) -> Result<Config, ConfigError> {
    Config::from_checkpoint(&Checkpoint::open(dir.path())?)
}

/// The demo config as a split layout without a root gives it, but for the copies of the thinker.
fn without_ids() -> Config {
    Config {
        im_start_token_id: None,
        im_end_token_id: None,
        tts_pad_token_id: None,
        tts_bos_token_id: None,
        tts_eos_token_id: None,
        system_token_id: None,
        user_token_id: None,
        assistant_token_id: None,
        ..read(&demo_json()).expect("the demo config")
    }
}

#[test]
fn demo_checkpoint_is_read() {
    let mut config = Config::from_checkpoint(&Checkpoint::open(Path::new(DEMO)).unwrap()).unwrap();
    assert!(config.can_speak());
    let text = &config.thinker.text_config;
    assert_eq!(
        (text.hidden_size, text.head_dim(), text.num_experts),
        (192, 128, 8)
    );
    assert_eq!(text.attention().query_width(), 512);
    assert_eq!(text.attention().key_value_width(), 256);
    assert_eq!(text.attention().queries_per_key(), 2);
    assert_eq!(text.hidden_act, Activation::Silu);
    let rope = RopeConfig {
        rope_theta: 1e6,
        mrope_section: Some([24, 20, 20]),
    };
    assert_eq!(text.rope, rope);
    let talker = config.talker.as_ref().unwrap();
    assert_eq!(talker.speaker("Ethan"), Some(382));
    assert_eq!(talker.default_speaker(), Some(("ethan", 382)));
    assert_eq!(talker.code_predictor_config.rope.mrope_section, None);
    assert_eq!(talker.code_predictor_config.steps(), 15);
    assert_eq!(
        talker.text_config.moe().shared_expert_intermediate_size,
        Some(128)
    );
    let code2wav = config.code2wav.as_ref().unwrap();
    assert_eq!((code2wav.total_upsample(), code2wav.head_dim()), (1920, 64));
    assert_eq!(
        (code2wav.block_channels(0), code2wav.block_channels(3)),
        (128, 16)
    );
    assert!((code2wav.frame_rate() - 12.5).abs() < 1e-9);
    let (audio, vision) = (&config.thinker.audio_config, &config.thinker.vision_config);
    assert_eq!((audio.head_dim(), audio.conv_out_width()), (64, 768));
    assert_eq!((audio.chunk_frames(), audio.chunks_per_window()), (100, 8));
    assert_eq!(
        (
            vision.head_dim(),
            vision.position_side(),
            vision.merged_width()
        ),
        (72, 8, 576)
    );
    assert_eq!(vision.patch_values(), 1536);
    assert_eq!(config.generation.talker_top_k, Some(50));
    assert_eq!(config.generation.temperature, None);
    let ids = config.resolve_ids(|_| None).unwrap();
    assert_eq!((ids.im_start, ids.im_end), (966, 967));
}

#[test]
fn the_release_is_known_by_name() {
    assert_eq!(
        Config::presets().collect::<Vec<_>>(),
        ["qwen3-omni-30b-a3b", "omni-demo"]
    );
    let config = Config::preset("qwen3-omni-30b-a3b").unwrap();
    assert_eq!(config.thinker.text_config.num_hidden_layers, 48);
    assert_eq!(config.thinker.audio_config.conv_out_width(), 7680);
    assert_eq!(config.thinker.vision_config.merged_width(), 4608);
    assert_eq!(config.talker.as_ref().unwrap().accept_hidden_layer, 24);
    assert_eq!(config.code2wav.as_ref().unwrap().head_dim(), 64);
    assert_eq!(config.im_end_token_id, Some(151_645));
    let demo = Config::preset("omni-demo").unwrap();
    assert_eq!(demo, read(&demo_json()).unwrap());
    assert!(Config::preset("gpt-2").is_none());
}

#[test]
fn what_is_written_is_read() {
    for config in [
        read(&demo_json()).unwrap(),
        Config::preset("qwen3-omni-30b-a3b").unwrap(),
    ] {
        assert_eq!(read(&config.to_json()).unwrap(), config);
        let mute = Config {
            talker: None,
            code2wav: None,
            ..config
        };
        assert_eq!(read(&mute.to_json()).unwrap(), mute);
    }
}

#[test]
fn both_spellings_give_the_same_config() {
    let expected = read(&demo_json()).unwrap();
    let mut json = demo_json();
    for decoder in ["thinker_config.text_config", "talker_config.text_config"] {
        let at = |key: &str| format!("{decoder}.{key}");
        set(&mut json, &at("rope_theta"), None);
        set(&mut json, &at("rope_scaling"), None);
        set(&mut json, &at("num_experts"), None);
        let rope =
            json!({"rope_theta": 1e6, "rope_type": "default", "mrope_section": [24, 20, 20]});
        set(&mut json, &at("rope_parameters"), Some(rope));
        set(&mut json, &at("num_local_experts"), Some(json!(8)));
    }
    set(&mut json, "code2wav_config.rope_theta", None);
    let rope = json!({"rope_theta": 10_000.0, "rope_type": "default"});
    set(&mut json, "code2wav_config.rope_parameters", Some(rope));
    set(&mut json, "thinker_config.vision_config.in_channels", None);
    assert_eq!(read(&json).unwrap(), expected);
    let twice = (
        "thinker_config.text_config.rope_parameters",
        json!({"rope_theta": 1e6}),
    );
    assert_eq!(read(&changed(&[twice])).unwrap(), expected);
    let float = ("thinker_config.position_id_per_seconds", json!(13.0));
    assert_eq!(read(&changed(&[float])).unwrap(), expected);
}

#[test]
fn absent_switches_and_image_size_are_fine() {
    let mut json = demo_json();
    for path in [
        "thinker_config.text_config.attention_bias",
        "thinker_config.text_config.mlp_only_layers",
        "thinker_config.text_config.use_sliding_window",
        "thinker_config.text_config.shared_expert_intermediate_size",
        "thinker_config.vision_config.image_size",
        "talker_config.model_type",
        "talker_config.code_predictor_config.layer_types",
        "enable_audio_output",
    ] {
        set(&mut json, path, None);
    }
    let config = read(&json).unwrap();
    assert_eq!(config.thinker.vision_config.image_size, None);
    // A width behind a switch that is off has no effect.
    let width = (
        "talker_config.code_predictor_config.sliding_window",
        json!(4096),
    );
    assert!(read(&changed(&[width])).is_ok());
}

#[test]
fn split_layout_needs_no_root_config() {
    let json = demo_json();
    let dir = folder(
        &[
            ("thinker/config.json", &json["thinker_config"]),
            ("talker/config.json", &json["talker_config"]),
            ("code2wav/config.json", &json["code2wav_config"]),
            (
                "thinker/generation_config.json",
                &json!({"eos_token_id": [967, 965], "top_k": 20}),
            ),
        ],
        &["thinker/", "talker/", "code2wav/"],
    );
    let config = from_folder(&dir).unwrap();
    assert_eq!(config.generation.eos_token_id, Some(vec![967, 965]));
    // The thinker has a copy of one id; the rest is the tokenizer's.
    let known = Config {
        user_token_id: Some(430),
        ..without_ids()
    };
    assert_eq!(
        Config {
            generation: GenerationConfig::default(),
            ..config
        },
        known
    );
}

#[test]
fn ids_come_from_the_tokenizer_where_the_config_has_none() {
    const TOKENS: [&str; 8] = [
        "<|im_start|>",
        "<|im_end|>",
        "system",
        "user",
        "assistant",
        "<tts_pad>",
        "<tts_text_bos>",
        "<tts_text_eod>",
    ];
    let lookup = |token: &str| {
        TOKENS
            .iter()
            .zip(0..)
            .find(|(t, _)| **t == token)
            .map(|(_, id)| id)
    };
    let mut config = without_ids();
    let ids = config.resolve_ids(lookup).unwrap();
    let speech = SpeechIds {
        system: 2,
        user: 3,
        assistant: 4,
        tts_pad: 5,
        tts_bos: 6,
        tts_eos: 7,
    };
    assert_eq!(
        ids,
        SpecialIds {
            im_start: 0,
            im_end: 1,
            speech: Some(speech)
        }
    );
    assert_eq!(
        (config.im_end_token_id, config.tts_eos_token_id),
        (Some(1), Some(7))
    );
    assert_eq!(config.resolve_ids(|_| None).unwrap(), ids);
    assert_eq!(
        config.resolve_ids(|_| Some(430)).unwrap_err().to_string(),
        "`im_start_token_id` is 0, but token `<|im_start|>` of the tokenizer has id 430"
    );
    assert_eq!(
        without_ids().resolve_ids(|_| None).unwrap_err().to_string(),
        "`im_start_token_id` is in no config, and the tokenizer has no token `<|im_start|>`"
    );
}

#[test]
fn thinker_only_checkpoints_do_not_speak() {
    let json = demo_json();
    let dir = folder(&[("config.json", &json["thinker_config"])], &["thinker"]);
    let mut config = from_folder(&dir).unwrap();
    assert!(config.talker.is_none() && config.code2wav.is_none() && !config.can_speak());
    let text = |token: &str| token.starts_with("<|im").then_some(7);
    assert_eq!(config.resolve_ids(text).unwrap().speech, None);
    let dir = folder(&[("config.json", &json)], &["thinker"]);
    assert!(from_folder(&dir).unwrap().talker.is_none());
    let mute = changed(&[("enable_audio_output", json!(false))]);
    let dir = folder(
        &[("config.json", &mute)],
        &["thinker", "talker", "code2wav"],
    );
    assert!(from_folder(&dir).unwrap().talker.is_none());
    assert!(read(&mute).unwrap().code2wav.is_none());
}

#[test]
fn checkpoints_without_a_needed_config_say_whose() {
    let json = demo_json();
    let dir = folder(
        &[("thinker/config.json", &json["thinker_config"])],
        &["thinker/", "talker/"],
    );
    let error = from_folder(&dir).unwrap_err();
    assert_eq!(
        error
            .to_string()
            .replace(&dir.path().display().to_string(), "DIR"),
        "DIR: no config for the talker, expected `talker_config` in config.json or \
         talker/config.json"
    );
    assert!(error.hint().unwrap().starts_with("copy config.json"));
    let dir = folder(&[("config.json", &json)], &["talker"]);
    let error = from_folder(&dir).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("the checkpoint has no thinker tensors")
    );
    // Fields of a sub-folder's config are named as they are in that file.
    let mut thinker = json["thinker_config"].clone();
    set(&mut thinker, "text_config.num_experts", None);
    let dir = folder(&[("thinker/config.json", &thinker)], &["thinker/"]);
    let message = from_folder(&dir).unwrap_err().to_string();
    assert!(
        message.ends_with("config.json: `text_config.num_experts` is missing"),
        "{message}"
    );
}
