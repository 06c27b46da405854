//! Every layout ends in the same components with the same local names.

use std::path::Path;

use super::super::{Component, TensorSet};
use super::*;

const THINKER: &[u8] = br#"{"model_type": "qwen3_omni_moe_thinker", "text_config": {}}"#;
const ROOT: &[u8] = br#"{"model_type": "qwen3_omni_moe", "thinker_config": {"a": 1},
    "talker_config": {"a": 2}, "code2wav_config": {"a": 3}}"#;

fn names(checkpoint: &Checkpoint, component: Component) -> Vec<&str> {
    checkpoint
        .component(component)
        .map_or(Vec::new(), |set| set.names().collect())
}

#[test]
fn demo_opens_with_all_components_and_configs() {
    let demo = Checkpoint::open(Path::new(DEMO)).unwrap();
    let counts: Vec<_> = demo.components().map(TensorSet::len).collect();
    assert_eq!(counts.iter().sum::<usize>(), 629);
    assert_eq!(counts.len(), 3);
    assert_eq!(demo.bytes(), 23_552_690 - 8 - 72_904);
    assert!(demo.ignored().is_empty());
    let thinker = demo.component(Component::Thinker).unwrap();
    let embed = thinker.require("model.embed_tokens.weight").unwrap();
    assert_eq!(embed.name, "thinker.model.embed_tokens.weight");
    assert_eq!(
        embed
            .expect_shape(&[1024, 192])
            .unwrap()
            .to_f32()
            .unwrap()
            .len(),
        1024 * 192
    );
    assert!(
        demo.components()
            .all(|set| set.iter().all(|(_, t)| t.check_finite().is_none()))
    );
    let talker = demo.configs().component(Component::Talker).unwrap();
    assert_eq!(
        (talker.path, &talker.json["num_code_groups"]),
        ("talker_config", &json!(16))
    );
    assert_eq!(demo.configs().root().unwrap().json["im_end_token_id"], 967);
    assert!(demo.file("tokenizer_config.json").is_some());
    assert!(demo.json("generation_config.json").unwrap().is_some());
}

#[test]
fn one_folder_with_index_is_split_by_prefix() {
    let index = json!({"metadata": {}, "weight_map": {
        "thinker.model.norm.weight": "a.safetensors", "talker.model.norm.weight": "b.safetensors",
        "code2wav.decoder.0.conv.bias": "b.safetensors"}})
    .to_string();
    let dir = folder(&[
        ("config.json", ROOT),
        ("model.safetensors.index.json", index.as_bytes()),
        ("a.safetensors", &file_of(&["thinker.model.norm.weight"])),
        (
            "b.safetensors",
            &file_of(&["talker.model.norm.weight", "code2wav.decoder.0.conv.bias"]),
        ),
        ("other.safetensors", &file_of(&["not.in.the.index"])),
    ]);
    let checkpoint = open(&dir).unwrap();
    assert_eq!(
        names(&checkpoint, Component::Thinker),
        ["model.norm.weight"]
    );
    assert_eq!(names(&checkpoint, Component::Talker), ["model.norm.weight"]);
    assert_eq!(
        names(&checkpoint, Component::Code2Wav),
        ["decoder.0.conv.bias"]
    );
    let norm = |component| {
        checkpoint
            .component(component)
            .unwrap()
            .get("model.norm.weight")
            .unwrap()
            .file
            .to_owned()
    };
    assert_ne!(norm(Component::Thinker), norm(Component::Talker));
}

#[test]
fn sub_folders_own_their_tensors_with_and_without_prefix() {
    for (thinker, talker) in [
        ("model.norm.weight", "model.norm.weight"),
        ("thinker.model.norm.weight", "talker.model.norm.weight"),
    ] {
        let dir = folder(&[
            ("thinker/config.json", THINKER),
            ("thinker/generation_config.json", b"{}"),
            (
                "thinker/model-00001-of-00002.safetensors",
                &file_of(&["lm_head.weight"]),
            ),
            (
                "thinker/model-00002-of-00002.safetensors",
                &file_of(&[thinker]),
            ),
            ("talker/model.safetensors", &file_of(&[talker])),
            (
                "code2wav/weights.safetensors",
                &file_of(&["decoder.6.conv.bias"]),
            ),
        ]);
        let checkpoint = open(&dir).unwrap();
        assert_eq!(
            names(&checkpoint, Component::Thinker),
            ["lm_head.weight", "model.norm.weight"]
        );
        assert_eq!(names(&checkpoint, Component::Talker), ["model.norm.weight"]);
        assert_eq!(
            names(&checkpoint, Component::Code2Wav),
            ["decoder.6.conv.bias"]
        );
        let configs = checkpoint.configs();
        assert!(configs.root().is_none());
        assert!(configs.component(Component::Talker).is_none());
        let thinker = configs.component(Component::Thinker).unwrap();
        assert_eq!(thinker.path, "");
        assert!(thinker.file.ends_with("thinker/config.json"));
        let side = checkpoint.file("generation_config.json").unwrap();
        assert!(side.ends_with("thinker/generation_config.json"));
    }
}

#[test]
fn a_sub_folder_wins_over_the_root_and_the_rest_is_reported() {
    let dir = folder(&[
        ("config.json", ROOT),
        ("thinker/config.json", THINKER),
        (
            "thinker/model.safetensors",
            &file_of(&["model.norm.weight", "talker.stray"]),
        ),
        (
            "model.safetensors",
            &file_of(&["thinker.old", "talker.codec_head.weight", "stray"]),
        ),
    ]);
    let checkpoint = open(&dir).unwrap();
    assert_eq!(
        names(&checkpoint, Component::Thinker),
        ["model.norm.weight"]
    );
    assert_eq!(names(&checkpoint, Component::Talker), ["codec_head.weight"]);
    let ignored: Vec<_> = checkpoint
        .ignored()
        .iter()
        .map(|i| i.name.as_str())
        .collect();
    assert_eq!(ignored, ["talker.stray", "thinker.old", "stray"]);
    let configs = checkpoint.configs();
    assert_eq!(configs.component(Component::Thinker).unwrap().path, "");
    assert_eq!(
        configs.component(Component::Talker).unwrap().path,
        "talker_config"
    );
    assert_eq!(configs.root().unwrap().json["model_type"], "qwen3_omni_moe");
}

#[test]
fn a_root_index_may_name_the_files_of_sub_folders() {
    let index = json!({"weight_map": {"model.norm.weight": "thinker/a.safetensors"}}).to_string();
    let dir = folder(&[
        ("model.safetensors.index.json", index.as_bytes()),
        ("thinker/a.safetensors", &file_of(&["model.norm.weight"])),
    ]);
    let checkpoint = open(&dir).unwrap();
    assert_eq!(
        names(&checkpoint, Component::Thinker),
        ["model.norm.weight"]
    );
    assert!(checkpoint.ignored().is_empty());
}

#[test]
fn a_full_config_in_a_sub_folder_serves_as_root() {
    let dir = folder(&[
        ("talker/config.json", ROOT),
        ("talker/model.safetensors", &file_of(&["codec_head.weight"])),
    ]);
    let checkpoint = open(&dir).unwrap();
    let talker = checkpoint.configs().component(Component::Talker).unwrap();
    assert_eq!(
        (talker.path, &talker.json["a"]),
        ("talker_config", &json!(2))
    );
    assert!(checkpoint.configs().root().is_some());
    assert!(checkpoint.configs().component(Component::Thinker).is_none());
}

#[test]
fn a_checkpoint_can_be_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Checkpoint>();
    shared::<CheckpointError>();
}

#[test]
fn bare_names_follow_the_model_type() {
    let dir = folder(&[
        ("config.json", THINKER),
        (
            "model.safetensors",
            &file_of(&["model.norm.weight", "thinker.lm_head.weight"]),
        ),
    ]);
    let checkpoint = open(&dir).unwrap();
    assert_eq!(
        names(&checkpoint, Component::Thinker),
        ["lm_head.weight", "model.norm.weight"]
    );
    assert!(checkpoint.component(Component::Talker).is_none());
    assert!(checkpoint.configs().root().is_none());
}

#[test]
fn the_code_predictor_gets_its_inner_model_back() {
    let dir = folder(&[(
        "model.safetensors",
        &file_of(&[
            "talker.code_predictor.layers.0.mlp.up_proj.weight",
            "talker.code_predictor.codec_embedding.0.weight",
            "talker.code_predictor.norm.weight",
            "talker.code_predictor.lm_head.0.weight",
            "thinker.code_predictor.norm.weight",
        ]),
    )]);
    let checkpoint = open(&dir).unwrap();
    assert_eq!(
        names(&checkpoint, Component::Talker),
        [
            "code_predictor.lm_head.0.weight",
            "code_predictor.model.codec_embedding.0.weight",
            "code_predictor.model.layers.0.mlp.up_proj.weight",
            "code_predictor.model.norm.weight",
        ]
    );
    assert_eq!(
        names(&checkpoint, Component::Thinker),
        ["code_predictor.norm.weight"]
    );
}

#[test]
fn names_of_later_tools_are_those_of_the_release() {
    let dir = folder(&[(
        "model.safetensors",
        &file_of(&[
            "thinker.model.language_model.layers.0.mlp.gate.weight",
            "thinker.language_model.lm_head.weight",
            "thinker.model.visual.merger.ln_q.weight",
            "thinker.model.audio_tower.proj1.weight",
            "thinker.model.norm.weight",
        ]),
    )]);
    let checkpoint = open(&dir).unwrap();
    assert_eq!(
        names(&checkpoint, Component::Thinker),
        [
            "audio_tower.proj1.weight",
            "lm_head.weight",
            "model.layers.0.mlp.gate.weight",
            "model.norm.weight",
            "visual.merger.ln_q.weight",
        ]
    );
}
