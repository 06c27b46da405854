use std::fs;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::processor::reference_fixture::{demo_dir, section};
use crate::processor::vocabulary::byte_char;

static DEMO: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::load(&demo_dir()).unwrap());

/// The same checkpoint without its `tokenizer.json`.
fn demo_from_vocab_and_merges() -> Tokenizer {
    let dir = tempfile::tempdir().unwrap();
    for name in ["vocab.json", "merges.txt", "tokenizer_config.json"] {
        fs::copy(demo_dir().join(name), dir.path().join(name)).unwrap();
    }
    Tokenizer::load(dir.path()).unwrap()
}

#[test]
fn ids_and_texts_equal_the_reference_from_either_set_of_files() {
    for tokenizer in [DEMO.clone(), demo_from_vocab_and_merges()] {
        for case in section("texts") {
            let text = case["text"].as_str().unwrap();
            let ids: Vec<u32> = case["ids"]
                .as_array()
                .unwrap()
                .iter()
                .map(|id| id.as_u64().unwrap() as u32)
                .collect();
            assert_eq!(tokenizer.encode(text).unwrap(), ids, "{text:?}");
            assert_eq!(
                tokenizer.decode(&ids, false),
                case["decoded"].as_str().unwrap()
            );
            assert_eq!(
                tokenizer.decode(&ids, true),
                case["plain"].as_str().unwrap()
            );
        }
    }
}

#[test]
fn special_tokens_have_their_ids() {
    assert_eq!(DEMO.token_id("<|im_start|>"), Some(966));
    assert_eq!(DEMO.token_id("<|audio_pad|>"), Some(997));
    assert_eq!(DEMO.token_id("<|no_such_token|>"), None);
    assert_eq!(DEMO.vocab_size(), 998);
}

#[test]
fn ids_without_a_token_decode_to_nothing() {
    assert_eq!(DEMO.decode(&[5000, u32::MAX], false), "");
}

#[test]
fn alphabet_is_a_bijection() {
    for byte in 0..=u8::MAX {
        assert_eq!(char_byte(byte_char(byte)), Some(byte));
    }
    let known = (0..0x11_0000)
        .filter_map(char::from_u32)
        .filter(|c| char_byte(*c).is_some());
    assert_eq!(known.count(), 256);
}

#[test]
fn stream_holds_an_emoji_back_until_it_is_whole() {
    let ids = DEMO.encode("a🙂b").unwrap();
    let mut stream = DEMO.stream(true);
    let events: Vec<_> = ids.iter().map(|id| stream.push(*id)).collect();
    assert_eq!(
        events
            .iter()
            .flatten()
            .map(String::as_str)
            .collect::<Vec<_>>(),
        ["a", "🙂", "b"]
    );
    assert_eq!(stream.finish(), None);
}

#[test]
fn stream_gives_up_on_a_character_that_ends_early() {
    let ids = DEMO.encode("🙂").unwrap();
    let mut stream = DEMO.stream(true);
    assert_eq!(stream.push(ids[0]), None);
    assert_eq!(stream.finish().as_deref(), Some("\u{fffd}"));
}

/// A folder with the files of a byte-level BPE whose every byte is a token, and `edit` applied to
/// the vocabulary.
fn load_vocab(
    merges: &str,
    config: &str,
    edit: impl Fn(&mut serde_json::Map<String, serde_json::Value>),
) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut vocab: serde_json::Map<_, _> = (0..=u8::MAX)
        .map(|byte| (byte_char(byte).to_string(), byte.into()))
        .collect();
    edit(&mut vocab);
    fs::write(
        dir.path().join("vocab.json"),
        serde_json::Value::Object(vocab).to_string(),
    )
    .unwrap();
    fs::write(dir.path().join("merges.txt"), merges).unwrap();
    fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
    Tokenizer::load(dir.path()).map_or_else(|error| error.to_string(), |_| "loaded".into())
}

#[test]
fn broken_files_are_refused_by_name() {
    let same = |_: &mut serde_json::Map<_, _>| {};
    assert_eq!(load_vocab("#version: 0.2\n", "{}", same), "loaded");
    assert_eq!(
        load_vocab("a b c\n", "{}", same),
        "merges.txt: line 1: expected two tokens, found `a b c`"
    );
    // The library would panic on a merge into a token longer than any.
    assert_eq!(
        load_vocab("a b\n", "{}", same),
        "vocab.json and merges.txt: merges: expected a token `ab` in the vocabulary, found none"
    );
    let missing = load_vocab("", "{}", |vocab| drop(vocab.remove("a")));
    assert_eq!(
        missing,
        "vocab.json and merges.txt: vocabulary entry `a`: expected a token for byte 97, found none"
    );
    let token = |id: &str, content: &str| {
        format!(
            r#""{id}":{{"content":"{content}","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}}"#
        )
    };
    let config =
        |tokens: &[String]| format!(r#"{{"added_tokens_decoder":{{{}}}}}"#, tokens.join(","));
    assert_eq!(
        load_vocab("", &config(&[token("300", "<x>")]), same),
        "loaded"
    );
    let clash = load_vocab("", &config(&[token("97", "<x>")]), same);
    assert_eq!(
        clash,
        "vocab.json and merges.txt: added token `<x>`: expected an id of its own, found id 97 of `a`"
    );
    let twice = load_vocab(
        "",
        &config(&[token("300", "<x>"), token("0300", "<y>")]),
        same,
    );
    assert!(
        twice.contains("expected an id of its own, found id 300 of"),
        "{twice}"
    );
    let name = load_vocab("", &config(&[token("x", "<x>")]), same);
    assert_eq!(
        name,
        "tokenizer_config.json: added_tokens_decoder.x: expected a token id, found `x`"
    );
}

#[test]
fn missing_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = Tokenizer::load(dir.path()).unwrap_err();
    let expected = format!(
        "no tokenizer.json, or vocab.json and merges.txt in `{}`",
        dir.path().display()
    );
    assert_eq!(error.to_string(), expected);
}

#[test]
fn tokenizers_of_another_family_are_refused() {
    let text = fs::read_to_string(demo_dir().join("tokenizer.json")).unwrap();
    let load = |edit: &dyn Fn(&mut serde_json::Value)| {
        let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
        edit(&mut json);
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
        Tokenizer::load(dir.path()).map_or_else(|error| error.to_string(), |_| "loaded".into())
    };
    assert_eq!(load(&|_| {}), "loaded");
    let error = load(&|json| json["decoder"]["type"] = "Metaspace".into());
    assert_eq!(
        error,
        "tokenizer.json: decoder.type: expected `ByteLevel`, found `Metaspace`"
    );
    let error =
        load(&|json| json["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "x".into());
    assert!(
        error.starts_with("tokenizer.json: pre_tokenizer.pretokenizers[0].pattern.Regex: expected"),
        "{error}"
    );
    assert!(
        load(&|json| json["model"]["vocab"] = 3.into())
            .starts_with("tokenizer.json: file: expected")
    );
}

proptest! {
    #[test]
    fn text_survives_the_round_trip(text in "\\PC{0,60}") {
        let ids = DEMO.encode(&text).unwrap();
        let normal = DEMO.decode(&ids, false);
        prop_assert_eq!(DEMO.encode(&normal).unwrap(), ids);
    }

    #[test]
    fn stream_adds_up_to_decode(ids in prop::collection::vec(0_u32..1010, 0..60), skip_special: bool) {
        let mut stream = DEMO.stream(skip_special);
        let mut text: String = ids.iter().filter_map(|id| stream.push(*id)).collect();
        text.extend(stream.finish());
        prop_assert_eq!(text, DEMO.decode(&ids, skip_special));
        let library = DEMO.inner.decode(&ids, skip_special).unwrap();
        prop_assert_eq!(DEMO.decode(&ids, skip_special), library);
    }

    #[test]
    fn any_tokenizer_file_is_read_or_refused(text in prop_oneof![
        ".{0,80}",
        prop::collection::vec(prop::sample::select(vec![
            "{", "}", "[", "]", "\"model\":", "\"vocab\":", "\"merges\":", "\"a\"", "\"a b\"", ":", ",", "1", "\"added_tokens\":",
        ]), 0..20).prop_map(|pieces| pieces.concat()),
    ]) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("tokenizer.json"), text).unwrap();
        let _ = Tokenizer::load(dir.path());
    }
}
