//! Every message that a wrong field leads to.

use serde_json::json;

use super::*;

/// Short names of the sections in the tables below, longer ones first where one starts another.
const SECTIONS: [(&str, &str); 9] = [
    ("$text", "thinker_config.text_config"),
    ("$audio", "thinker_config.audio_config"),
    ("$vision", "thinker_config.vision_config"),
    ("$thinker", "thinker_config"),
    ("$decoder", "talker_config.text_config"),
    ("$predictor", "talker_config.code_predictor_config"),
    ("$talker", "talker_config"),
    ("$wav", "code2wav_config"),
    ("$root.", ""),
];

/// Every field without which there is no config.
const REQUIRED: [(&str, &str); 9] = [
    (
        "$thinker",
        "text_config audio_config vision_config audio_token_id image_token_id video_token_id \
         audio_start_token_id audio_end_token_id vision_start_token_id vision_end_token_id \
         position_id_per_seconds",
    ),
    (
        "$text",
        "vocab_size hidden_size num_hidden_layers num_attention_heads num_key_value_heads head_dim \
         hidden_act max_position_embeddings rms_norm_eps rope_theta num_experts \
         num_experts_per_tok moe_intermediate_size norm_topk_prob",
    ),
    (
        "$audio",
        "num_mel_bins d_model encoder_layers encoder_attention_heads encoder_ffn_dim \
         activation_function max_source_positions n_window n_window_infer conv_chunksize \
         downsample_hidden_size output_dim",
    ),
    (
        "$vision",
        "depth hidden_size hidden_act intermediate_size num_heads spatial_merge_size \
         temporal_patch_size out_hidden_size num_position_embeddings deepstack_visual_indexes",
    ),
    (
        "$talker",
        "text_config code_predictor_config accept_hidden_layer thinker_hidden_size num_code_groups \
         codec_bos_id codec_eos_token_id codec_pad_id codec_nothink_id codec_think_bos_id \
         codec_think_eos_id speaker_id audio_token_id image_token_id video_token_id \
         audio_start_token_id vision_start_token_id position_id_per_seconds spatial_merge_size",
    ),
    (
        "$decoder",
        "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads \
         num_key_value_heads head_dim hidden_act max_position_embeddings rms_norm_eps rope_theta \
         num_experts num_experts_per_tok moe_intermediate_size shared_expert_intermediate_size \
         norm_topk_prob",
    ),
    (
        "$predictor",
        "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads \
         num_key_value_heads head_dim hidden_act max_position_embeddings rms_norm_eps rope_theta \
         num_code_groups",
    ),
    (
        "$wav",
        "codebook_size num_quantizers hidden_size intermediate_size num_hidden_layers \
         num_attention_heads num_key_value_heads hidden_act rms_norm_eps rope_theta \
         max_position_embeddings sliding_window upsample_rates upsampling_ratios decoder_dim",
    ),
    ("$root", "model_type thinker_config"),
];

fn expand(text: &str) -> String {
    SECTIONS
        .iter()
        .fold(text.into(), |text: String, (short, path)| {
            text.replace(short, path)
        })
}

/// Each line of `table` is `field = JSON | the message after "is"`.
fn check(table: &str) {
    for line in table.lines().filter(|line| !line.trim().is_empty()) {
        let (change, expected) = line.split_once(" | ").expect("a message");
        let (field, value) = change.trim().split_once(" = ").expect("a value");
        let field = expand(field);
        let value = serde_json::from_str(value).expect("JSON");
        let error = read(&changed(&[(&field, value)])).expect_err(line);
        let expected = format!("config.json: `{field}` is {}", expand(expected));
        assert_eq!(error.to_string(), expected, "{line}");
    }
}

#[test]
fn every_missing_field_is_named() {
    for (section, keys) in REQUIRED {
        for key in keys.split_whitespace() {
            let field = expand(&format!("{section}.{key}"));
            for gone in [None, Some(Value::Null)] {
                let mut json = demo_json();
                set(&mut json, &field, gone);
                let error = read(&json).expect_err(&field);
                assert_eq!(
                    error.to_string(),
                    format!("config.json: `{field}` is missing")
                );
                assert!(error.hint().is_some());
            }
        }
    }
    let mut json = demo_json();
    set(
        &mut json,
        "thinker_config.text_config.rope_scaling.mrope_section",
        None,
    );
    assert_eq!(
        read(&json).unwrap_err().to_string(),
        "config.json: `thinker_config.text_config.rope_scaling.mrope_section` is missing"
    );
}

#[test]
fn wrong_types_say_what_is_expected() {
    check(
        r#"
        $root.thinker_config = [1] | [1], expected an object
        $text.hidden_size = "192" | "192", expected a whole number from 1 to 16777216
        $text.hidden_size = -1 | -1, expected a whole number from 1 to 16777216
        $text.hidden_size = 1.5 | 1.5, expected a whole number from 1 to 16777216
        $text.hidden_size = 0 | 0, expected a whole number from 1 to 16777216
        $text.hidden_size = 1099511627776 | 1099511627776, expected a whole number from 1 to 16777216
        $text.rms_norm_eps = 0 | 0, expected a number above 0
        $text.norm_topk_prob = 1 | 1, expected true or false
        $text.hidden_act = "a\nb" | "a\nb", supported: "silu"
        $text.rope_scaling.mrope_section = [32,32] | [32,32], expected a list of 3 whole numbers
        $thinker.audio_token_id = "x" | "x", expected a token id
        $vision.deepstack_visual_indexes = 3 | 3, expected a list of whole numbers
        $wav.upsample_rates = [8,0] | [8,0], expected a list of whole numbers of at least 1
        "#,
    );
    let long = format!("[{}]", "1,".repeat(1000) + "1");
    let long = serde_json::from_str(&long).unwrap();
    let error = read(&changed(&[("thinker_config", long)])).unwrap_err();
    assert!(error.to_string().len() < 200, "{error}");
}

#[test]
fn other_models_are_called_by_name() {
    check(
        r#"
        $root.model_type = "qwen2_5_omni" | "qwen2_5_omni", supported here: `qwen3_omni_moe`
        $thinker.model_type = "x_thinker" | "x_thinker", supported here: `qwen3_omni_moe_thinker`
        "#,
    );
    let error = read(&json!({"model_type": "llama"})).unwrap_err();
    assert!(
        error
            .hint()
            .unwrap()
            .starts_with("supported model types: qwen3_omni_moe")
    );
}

#[test]
fn unsupported_options_are_refused() {
    check(
        r#"
        $text.attention_bias = true | true, supported: false
        $text.use_sliding_window = true | true, supported: false
        $text.mlp_only_layers = [0] | [0], supported: []
        $text.decoder_sparse_step = 2 | 2, supported: 1
        $text.shared_expert_intermediate_size = 64 | 64, supported: 0
        $text.use_qk_norm = false | false, supported: true
        $text.hidden_act = "gelu" | "gelu", supported: "silu"
        $text.rope_scaling.rope_type = "yarn" | "yarn", supported: "default"
        $text.rope_scaling.interleaved = false | false, supported: true
        $audio.scale_embedding = true | true, supported: false
        $audio.activation_function = "relu" | "relu", supported: "gelu"
        $vision.hidden_act = "gelu" | "gelu", supported: "gelu_pytorch_tanh"
        $vision.apply_vit_abs_pos_embed = false | false, supported: true
        $predictor.layer_types = ["full_attention","x"] | ["full_attention","x"], supported: a list of "full_attention"
        "#,
    );
    let mut json = demo_json();
    set(
        &mut json,
        "thinker_config.text_config.use_sliding_window",
        None,
    );
    set(
        &mut json,
        "thinker_config.text_config.sliding_window",
        Some(json!(128)),
    );
    let message = read(&json).unwrap_err().to_string();
    assert!(
        message.ends_with("text_config.sliding_window` is 128, supported: null"),
        "{message}"
    );
}

#[test]
fn contradictions_in_the_thinker() {
    check(
        r"
        $text.num_key_value_heads = 3 | 3, expected a divisor of `$text.num_attention_heads` (4)
        $text.num_experts_per_tok = 9 | 9, expected at most `$text.num_experts` (8)
        $text.head_dim = 127 | 127, expected an even number, for pairs
        $text.rope_scaling.mrope_section = [24,20,10] | [24, 20, 10], expected a sum of 64, half of `$text.head_dim` (128); the sum is 54
        $text.rope_scaling.mrope_section = [16,24,24] | [16, 24, 24], expected height and width of at most 21 pairs each
        $text.rope_scaling.rope_theta = 10000 | 10000.0, expected the value of `$text.rope_theta`, 1000000.0
        $audio.output_dim = 100 | 100, expected the width `$text.hidden_size` (192)
        $audio.d_model = 200 | 200, expected a multiple of `$audio.encoder_attention_heads` (3)
        $audio.d_model = 3 | 3, expected an even number of at least 4, for sine and cosine
        $audio.n_window_infer = 99 | 99, expected at least twice `$audio.n_window` (50)
        $audio.max_source_positions = 12 | 12, expected at least 13, the rows of one chunk of `$audio.n_window` (50)
        $vision.out_hidden_size = 100 | 100, expected the width `$text.hidden_size` (192)
        $vision.hidden_size = 145 | 145, expected a multiple of `$vision.num_heads` (2)
        $vision.hidden_size = 140 | 140, expected 4 values, two pairs, in each head of `$vision.num_heads` (2)
        $vision.num_position_embeddings = 65 | 65, expected a square number
        $vision.deepstack_visual_indexes = [0,3] | [0, 3], expected rising block numbers below `$vision.depth` (3)
        $vision.deepstack_visual_indexes = [1,1] | [1, 1], expected rising block numbers below `$vision.depth` (3)
        $vision.in_channels = 1 | 1, expected `$vision.in_chans` (3)
        ",
    );
    let deep = [
        ("thinker_config.vision_config.depth", json!(9)),
        (
            "thinker_config.vision_config.deepstack_visual_indexes",
            json!([0, 1, 2, 3, 4]),
        ),
    ];
    let message = read(&changed(&deep)).unwrap_err().to_string();
    assert!(
        message.contains("is 5 layers, expected at most"),
        "{message}"
    );
}

#[test]
fn contradictions_in_the_talker() {
    check(
        r"
        $talker.accept_hidden_layer = 5 | 5, expected at most `$text.num_hidden_layers` (4)
        $talker.thinker_hidden_size = 64 | 64, expected `$text.hidden_size` (192)
        $talker.spatial_merge_size = 1 | 1, expected `$vision.spatial_merge_size` (2)
        $talker.num_code_groups = 1 | 1, expected at least 2
        $talker.codec_eos_token_id = 1152 | 1152, expected an id below `$decoder.vocab_size` (1152)
        $talker.audio_token_id = 5 | 5, expected `$thinker.audio_token_id` (997)
        $talker.speaker_id = {} | {}, expected at least one voice
        $talker.speaker_id.ethan = 9999 | 9999, expected an id below `$decoder.vocab_size` (1152)
        $talker.speaker_id.Ethan = 5 | 5, expected the id of the voice whose name differs in case alone
        $predictor.num_code_groups = 15 | 15, expected `$talker.num_code_groups` (16)
        $predictor.hidden_size = 64 | 64, expected `$decoder.hidden_size` (128)
        $predictor.vocab_size = 2000 | 2000, expected at most `$decoder.vocab_size` (1152)
        $predictor.max_position_embeddings = 15 | 15, expected at least `$predictor.num_code_groups` (16)
        ",
    );
}

#[test]
fn contradictions_in_code2wav() {
    check(
        r"
        $wav.num_quantizers = 8 | 8, expected `$talker.num_code_groups` (16)
        $wav.codebook_size = 64 | 64, expected `$predictor.vocab_size` (128)
        $wav.hidden_size = 129 | 129, expected a multiple of `$wav.num_attention_heads` (2)
        $wav.upsample_rates = [] | [], expected at least one factor
        $wav.upsample_rates = [4000,4000] | [4000, 4000], expected with `$wav.upsampling_ratios` ([2, 2]) at most 24000 samples a frame
        $wav.decoder_dim = 24 | 24, expected a number that can be halved for each of `$wav.upsample_rates` ([8, 5, 4, 3])
        ",
    );
}

#[test]
fn contradictions_of_ids() {
    check(
        r"
        $root.im_end_token_id = 1024 | 1024, expected an id below `$text.vocab_size` (1024)
        $thinker.user_token_id = 5 | 5, expected `user_token_id` (430)
        $thinker.image_token_id = 4000 | 4000, expected an id below `$text.vocab_size` (1024)
        ",
    );
}
