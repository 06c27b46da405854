use super::*;

fn render(source: &str) -> String {
    let mut env = environment();
    env.add_global(
        "data",
        value(&serde_json::json!({"b": [1, 1.5, true, null, "é\"\n"], "a": {}})),
    );
    env.render_str(source, ())
        .unwrap_or_else(|error| format!("error: {error}"))
}

#[test]
fn tojson_is_json_dumps() {
    assert_eq!(
        render("{{ data | tojson }}"),
        r#"{"b": [1, 1.5, true, null, "é\"\n"], "a": {}}"#
    );
    assert_eq!(
        render("{{ data.b | tojson(ensure_ascii=True) }}"),
        r#"[1, 1.5, true, null, "\u00e9\"\n"]"#
    );
    assert_eq!(
        render("{{ data | tojson(sort_keys=True) }}"),
        r#"{"a": {}, "b": [1, 1.5, true, null, "é\"\n"]}"#
    );
    assert_eq!(
        render("{{ data.b[:2] | tojson(separators=(',', ':')) }}"),
        "[1,1.5]"
    );
    assert_eq!(
        render("{{ [1, {'k': []}] | tojson(indent=2) }}"),
        "[\n  1,\n  {\n    \"k\": []\n  }\n]"
    );
    assert_eq!(
        render("{{ {1: 2, none: 3, true: 4} | tojson }}"),
        r#"{"1": 2, "null": 3, "true": 4}"#
    );
    assert_eq!(render("{{ '<b>&' | tojson }}"), r#""<b>&""#);
}

#[test]
fn blocks_are_trimmed_as_in_the_reference() {
    assert_eq!(
        render("a\n  {% if true %}\nb\n  {% endif %}\nc\n"),
        "a\nb\nc"
    );
}

#[test]
fn python_idioms_work() {
    assert_eq!(
        render("{{ ' x '.strip() }}{{ 'a</t>b'.split('</t>')[-1] }}"),
        "xb"
    );
    assert_eq!(
        render(
            "{% for x in [1, 2, 3][::-1] %}{% if x == 2 %}{% continue %}{% endif %}{{ x }}{% endfor %}"
        ),
        "31"
    );
    assert_eq!(
        render("{% for k, v in data.items() %}{{ k }}{% endfor %}{{ data.get('z', 'd') }}"),
        "bad"
    );
    assert_eq!(
        render("{{ none }} {{ true }} {{ missing }}|{{ missing is defined }}"),
        "None True |False"
    );
    assert_eq!(
        render(
            "{% set ns = namespace(x=1) %}{% for i in [1] %}{% set ns.x = 5 %}{% endfor %}{{ ns.x }}"
        ),
        "5"
    );
}

#[test]
fn exceptions_carry_the_templates_message() {
    assert!(render("{{ raise_exception('no system role') }}").contains("no system role"));
}
