//! No JSON makes the reader panic.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::json;

use super::super::GenerationConfig;
use super::super::section::Section;
use super::*;

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0_u64..5000).prop_map(Value::from),
        Just(json!(i32::MAX)),
        any::<f64>().prop_map(|x| json!(x)),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map("[a-z_]{0,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// JSON pointers of every value below `json`.
fn pointers(json: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.into());
    match json {
        Value::Object(map) => {
            map.iter()
                .for_each(|(key, value)| pointers(value, &format!("{at}/{key}"), found));
        }
        Value::Array(list) => {
            let numbered = list.iter().enumerate();
            numbered.for_each(|(n, value)| pointers(value, &format!("{at}/{n}"), found));
        }
        _ => {}
    }
}

/// Calls every derived value, so that an overflow would show.
fn touch(config: &Config) {
    let text = &config.thinker.text_config;
    let _ = (
        text.attention().query_width(),
        text.attention().key_value_width(),
        text.moe(),
    );
    let (audio, vision) = (&config.thinker.audio_config, &config.thinker.vision_config);
    let _ = (
        audio.head_dim(),
        audio.chunks_per_window(),
        audio.conv_out_width(),
    );
    let _ = (
        vision.head_dim(),
        vision.merged_width(),
        vision.patch_values(),
    );
    if let Some(talker) = &config.talker {
        let _ = (
            talker.default_speaker(),
            talker.text_config.attention().query_width(),
        );
        let _ = talker.code_predictor_config.steps();
    }
    if let Some(code2wav) = &config.code2wav {
        let _ = (
            code2wav.total_upsample(),
            code2wav.frame_rate(),
            code2wav.block_channels(0),
        );
    }
    let _ = config.clone().resolve_ids(|_| Some(7));
    assert_eq!(&read(&config.to_json()).expect("what was read"), config);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn arbitrary_json_never_panics(json in any_json()) {
        let _ = read(&json);
        let _ = read(&json!({"model_type": "qwen3_omni_moe", "thinker_config": json.clone()}));
        if let Ok(section) = Section::new(Path::new("g.json"), "", &json) {
            let _ = GenerationConfig::read(&section);
        }
    }

    #[test]
    fn changed_fields_never_panic(
        changes in prop::collection::vec((any::<Index>(), any_json()), 1..4),
    ) {
        let mut json = demo_json();
        for (place, value) in changes {
            let mut places = Vec::new();
            pointers(&json, "", &mut places);
            let place = place.get(&places);
            *json.pointer_mut(place).expect("a place") = value;
        }
        match read(&json) {
            Ok(config) => touch(&config),
            Err(error) => prop_assert!(!error.to_string().contains('\n')),
        }
    }

    #[test]
    fn changed_sizes_never_panic(place in any::<Index>(), size in prop_oneof![
        0_u64..70, Just(i32::MAX as u64), any::<u64>(), (0_u32..31).prop_map(|bit| 1 << bit),
    ]) {
        let mut json = demo_json();
        let mut places = Vec::new();
        pointers(&json, "", &mut places);
        places.retain(|place| json.pointer(place).is_some_and(Value::is_number));
        let place = &places[place.index(places.len())];
        *json.pointer_mut(place).expect("a place") = size.into();
        if let Ok(config) = read(&json) {
            touch(&config);
        }
    }
}

#[test]
fn generation_values_out_of_range_are_named() {
    for (key, value, expected) in [
        (
            "talker_temperature",
            json!(-1),
            "-1, expected a number of at least 0",
        ),
        (
            "top_p",
            json!(1.5),
            "1.5, expected a number above 0 and up to 1",
        ),
        (
            "talker_top_k",
            json!("all"),
            "\"all\", expected a whole number",
        ),
        (
            "eos_token_id",
            json!([1, -1]),
            "[1,-1], expected a token id or a list of them",
        ),
    ] {
        let json = json!({ key: value });
        let section = Section::new(Path::new("generation_config.json"), "", &json).unwrap();
        let message = GenerationConfig::read(&section).unwrap_err().to_string();
        assert_eq!(
            message,
            format!("generation_config.json: `{key}` is {expected}")
        );
    }
}
