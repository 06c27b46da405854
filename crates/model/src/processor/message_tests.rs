use proptest::prelude::*;
use serde_json::json;

use super::*;

fn error_of(json: &str) -> String {
    Conversation::from_json(json).unwrap_err().to_string()
}

#[test]
fn text_and_parts_are_kept_apart() {
    let json = r#"[{"role":"system","content":"Be brief."},
        {"role":"user","content":[{"type":"audio","audio":"a.wav"},{"type":"text","text":"What?"},{"image":"b.png"}]}]"#;
    let conversation = Conversation::from_json(json).unwrap();
    assert_eq!(
        conversation.messages[0],
        Message::text(Role::System, "Be brief.")
    );
    let parts = [
        Content::Audio("a.wav".into()),
        Content::Text("What?".into()),
        Content::Image("b.png".into()),
    ];
    assert_eq!(conversation.messages[1], Message::parts(Role::User, parts));
    let media: Vec<_> = conversation
        .media()
        .map(|(kind, path)| (kind, path.as_str()))
        .collect();
    assert_eq!(
        media,
        [(MediaKind::Audio, "a.wav"), (MediaKind::Image, "b.png")]
    );
}

#[test]
fn a_conversation_is_read_back_from_its_own_json() {
    let tools = json!([{"type": "function"}]);
    for json in [
        json!([{"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "audio", "audio": "a.wav"}, {"type": "text", "text": "What?"},
                {"type": "image", "image": "b.png"}, {"type": "video", "video": "c.mp4"}]},
            {"role": "assistant", "tool_calls": [1]}]),
        json!({"messages": [{"role": "user", "content": "Hi", "name": "Ada"}], "tools": tools}),
    ] {
        let conversation = Conversation::from_value(json.clone()).unwrap();
        assert_eq!(conversation.to_value(), json);
    }
}

#[test]
fn media_can_be_replaced_in_order() {
    let json = r#"[{"role":"user","content":[{"type":"video","video":"c.mp4"},{"type":"audio","audio":"a.wav"}]}]"#;
    let conversation = Conversation::from_json(json).unwrap();
    let mut next = 0;
    let numbered = conversation.map_media(|_, _| {
        next += 1;
        Ok::<usize, ()>(next)
    });
    let expected = Message::parts(Role::User, [Content::Video(1), Content::Audio(2)]);
    assert_eq!(numbered.unwrap().messages, [expected]);
}

#[test]
fn other_fields_and_tools_pass_through() {
    let json = r#"{"messages":[{"role":"assistant","tool_calls":[{"name":"now","arguments":{}}],"reasoning_content":"x"}],
        "tools":[{"name":"now"}]}"#;
    let conversation = Conversation::from_json(json).unwrap();
    assert_eq!(conversation.messages[0].content, None);
    assert_eq!(conversation.messages[0].extra["reasoning_content"], "x");
    assert_eq!(conversation.tools, [json!({"name": "now"})]);
}

#[test]
fn errors_name_message_and_field() {
    let cases = [
        (
            r#"[{"role":"user"}]"#,
            "message 0: field `content`: expected a text or a list of parts, found nothing",
        ),
        (
            r#"[{"role":"user","content":"x"},{"role":"usr","content":"x"}]"#,
            "message 1: field `role`: expected `system`, `user`, `assistant` or `tool`, found `usr`",
        ),
        (
            r#"[{"role":"user","content":[{"type":"text","text":"x"},{"type":"audio","audio":3}]}]"#,
            "message 0: field `content[1].audio`: expected a text, found a number",
        ),
        (
            r#"[{"role":"user","content":[{"type":"sound","sound":"x"}]}]"#,
            "message 0: field `content[0].type`: expected `text`, `audio`, `image` or `video`, found `sound`",
        ),
        (
            r#"[{"role":"user","content":[{"type":"video","video":"x","fps":2}]}]"#,
            "message 0: field `content[0].fps`: expected no such field, found a number",
        ),
        (
            r#"[{"role":"user","content":["x"]}]"#,
            "message 0: field `content[0]`: expected an object with `type` and `text`, `audio`, `image` or `video`, found `x`",
        ),
        (
            "[1]",
            "message 0: field `message`: expected an object with `role` and `content`, found a number",
        ),
        (
            "{}",
            "messages: expected an object with a list `messages`, found an object",
        ),
        ("3", "messages: expected a list of messages, found a number"),
        (
            r#"{"messages":[],"tool":[]}"#,
            "messages: expected only the fields `messages` and `tools`, found `tool`",
        ),
    ];
    for (json, expected) in cases {
        assert_eq!(error_of(json), expected);
    }
    assert!(error_of("[").starts_with("messages: expected JSON, found EOF"));
    assert!(Conversation::from_json("3").unwrap_err().hint().is_some());
}

fn any_json() -> impl Strategy<Value = Value> {
    let names = prop::sample::select(vec![
        "role",
        "content",
        "type",
        "text",
        "audio",
        "user",
        "assistant",
        "x",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        names.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 4, move |inner| {
        let field = (names.clone().prop_map(str::to_owned), inner.clone());
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            prop::collection::vec(field, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_json_is_read_or_refused(value in any_json()) {
        if let Ok(conversation) = Conversation::from_value(value) {
            for message in &conversation.messages {
                message.to_template_value();
            }
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,80}") {
        let _ = Conversation::from_json(&text);
    }
}
