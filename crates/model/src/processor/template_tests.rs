use std::fs;
use std::time::{Duration, Instant, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;
use crate::processor::reference_fixture::{demo_dir, section};
use crate::processor::{Conversation, Role};

fn hello() -> Vec<Message> {
    vec![Message::text(Role::User, "Hello!")]
}

fn rendered(source: &str) -> Result<String, String> {
    let template = ChatTemplate::from_source(source).map_err(|error| error.to_string())?;
    template
        .render(&hello(), &RenderOptions::default())
        .map_err(|error| error.to_string())
}

#[test]
fn prompts_equal_the_reference() {
    let demo = ChatTemplate::load(&demo_dir()).unwrap();
    assert!(!demo.is_fallback());
    let built_in = ChatTemplate::built_in().unwrap();
    for case in section("prompts") {
        let conversation = Conversation::from_value(case["messages"].clone()).unwrap();
        let options = RenderOptions {
            tools: case["tools"].as_array().unwrap().clone(),
            add_generation_prompt: case["add_generation_prompt"].as_bool().unwrap(),
            ..RenderOptions::default()
        };
        for template in [&demo, &built_in] {
            let found = template.render(&conversation.messages, &options).unwrap();
            assert_eq!(
                found,
                case["text"].as_str().unwrap(),
                "{}",
                case["messages"]
            );
        }
    }
}

#[test]
fn template_is_taken_from_the_first_file_that_has_one() {
    let dir = tempfile::tempdir().unwrap();
    let load = || ChatTemplate::load(dir.path());
    let text = || {
        load()
            .unwrap()
            .render(&hello(), &RenderOptions::default())
            .unwrap()
    };
    assert!(load().unwrap().is_fallback());
    assert_eq!(text(), "<|im_start|>user\nHello!<|im_end|>\n");
    let config = r#"{"chat_template":"config {{ eos_token }}{{ audio_token }}","eos_token":{"content":"E"},
        "extra_special_tokens":{"audio_token":"A"},"bos_token":null}"#;
    fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
    assert_eq!(text(), "config EA");
    fs::create_dir(dir.path().join("thinker")).unwrap();
    fs::write(
        dir.path().join("thinker/chat_template.jinja"),
        "jinja {{ eos_token }}\n",
    )
    .unwrap();
    assert_eq!(text(), "jinja E");
    fs::write(
        dir.path().join("chat_template.json"),
        r#"{"chat_template":"json"}"#,
    )
    .unwrap();
    assert_eq!(text(), "json");
    assert!(!load().unwrap().is_fallback());
    let bad = [
        (
            "{}",
            "chat_template.json: chat_template: expected a template, found nothing",
        ),
        (
            r#"{"chat_template":1}"#,
            "chat_template.json: chat_template: expected a text, found another type",
        ),
        (
            r#"{"chat_template":[]}"#,
            "chat_template.json: chat_template: expected a template named `default`, found none",
        ),
    ];
    for (json, expected) in bad {
        fs::write(dir.path().join("chat_template.json"), json).unwrap();
        assert_eq!(load().unwrap_err().to_string(), expected);
    }
}

#[test]
fn errors_are_one_line() {
    let error = rendered("{% for x in %}").unwrap_err();
    assert!(
        error.starts_with("chat template: the chat template does not parse: "),
        "{error}"
    );
    let error = rendered("line\n{{ raise_exception('Only\\nuser') }}").unwrap_err();
    assert_eq!(
        error,
        "chat template: the chat template failed: Only user (line 2)"
    );
    assert!(rendered("{{ missing.field }}").is_err());
}

#[test]
fn endless_templates_are_stopped() {
    let start = Instant::now();
    let source = "{% for a in range(90000) %}{% for b in range(90000) %}{% set c = b %}{% endfor %}{% endfor %}";
    assert!(rendered(source).unwrap_err().contains("fuel"));
    assert!(rendered("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}").is_err());
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[test]
fn the_day_is_the_callers() {
    let template = ChatTemplate::from_source("{{ strftime_now('%d %b %Y') }}").unwrap();
    let now = Some(UNIX_EPOCH + Duration::from_secs(951_782_400));
    let options = RenderOptions {
        now,
        ..RenderOptions::default()
    };
    assert_eq!(template.render(&hello(), &options).unwrap(), "29 Feb 2000");
}

#[test]
fn variables_reach_the_template() {
    let template = ChatTemplate::from_source("{{ enable_thinking is false }}").unwrap();
    let variables = Map::from_iter([("enable_thinking".to_owned(), false.into())]);
    let options = RenderOptions {
        variables,
        ..RenderOptions::default()
    };
    assert_eq!(template.render(&hello(), &options).unwrap(), "True");
}

proptest! {
    #[test]
    fn any_template_renders_or_fails(pieces in prop::collection::vec(prop_oneof![
        prop::sample::select(vec![
            "{{", "}}", "{%", "%}", "{#", "#}", "-", " for ", " in ", " if ", " endif ", " endfor ", " set ", " messages ",
            "[0]", ".content", "|", "tojson", "(", ")", "'", "'x'", "1", ",", "=", "+", "*", "~", "[", "]", ":", " macro f() ",
            " endmacro ", ".split", ".strip", "namespace", "range", "loop", "%d", "strftime_now", "\n", "é", "indent=",
        ]).prop_map(str::to_owned),
        ".{0,6}",
    ], 0..25)) {
        let _ = rendered(&pieces.concat());
    }

    #[test]
    fn any_expression_renders_or_fails(pieces in prop::collection::vec(prop::sample::select(vec![
        "messages", "[0]", "[-1]", ".content", ".role", "|tojson", "|length", "|upper", "('x')", "('%')", "(1)", "()", ".split",
        ".strip", ".format", ".replace", "+", "*", "~", "-", "1", "'é'", "[::-1]", "[1:0]", ",", "(", ")", " in ", " is ", "none",
        "0.5", "//", "%", "**", " and ", " not ", "|tojson(indent=1)", "|join", "|list", "|round", "9999999999", "{}",
    ]), 1..9)) {
        let _ = rendered(&format!("{{{{ {} }}}}", pieces.concat()));
    }
}
