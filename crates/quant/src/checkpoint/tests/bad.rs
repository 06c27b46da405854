//! One test for each thing that can be wrong, with the message that the user sees.

use std::path::Path;

use super::super::Component;
use super::*;

/// The message for a lone `model.safetensors` of this header over `data` zero bytes.
fn header_error(header: &str, data: usize) -> String {
    error_of(&[("model.safetensors", &raw_file(header, &vec![0; data]))]).0
}

fn f32s(entries: &[(&str, usize, usize)]) -> String {
    let entry = |(name, from, to): &(&str, usize, usize)| {
        let shape = [to.saturating_sub(*from) / 4];
        (
            (*name).to_string(),
            json!({"dtype": "F32", "shape": shape, "data_offsets": [from, to]}),
        )
    };
    Value::Object(entries.iter().map(entry).collect()).to_string()
}

#[test]
fn missing_folder() {
    let error = Checkpoint::open(Path::new("no/such/folder")).unwrap_err();
    assert_eq!(error.to_string(), "no/such/folder: no such folder");
    assert!(error.hint().unwrap().contains("hub name"));
}

#[test]
fn folder_is_a_file() {
    let dir = folder(&[("model.safetensors", &file_of(&["thinker.a"]))]);
    let error = Checkpoint::open(&dir.path().join("model.safetensors")).unwrap_err();
    let message = shorten(&error.to_string(), dir.path());
    assert_eq!(
        message,
        "DIR/model.safetensors: expected a checkpoint folder, found a file"
    );
    let hint = shorten(&error.hint().unwrap(), dir.path());
    assert_eq!(hint, "pass the folder that contains it: DIR");
}

#[test]
fn not_a_checkpoint() {
    let (message, hint) = error_of(&[("notes.txt", b"")]);
    assert!(
        message.starts_with("DIR: not a checkpoint, no *.safetensors file"),
        "{message}"
    );
    assert_eq!(hint, None);
    let (_, hint) = error_of(&[("pytorch_model.bin", b"")]);
    assert!(
        hint.unwrap()
            .starts_with("`pytorch_model.bin` is another format; only safetensors")
    );
    let (_, hint) = error_of(&[("q4.GGUF", b"")]);
    assert!(hint.unwrap().starts_with("`q4.GGUF` is another format"));
    let (_, hint) = error_of(&[("snapshots/0123/README.md", b"")]);
    assert_eq!(
        hint.unwrap(),
        "this is a hub cache, pass DIR/snapshots/0123"
    );
}

#[test]
fn checkpoint_without_tensors() {
    let (message, _) = error_of(&[("model.safetensors", &raw_file("{}", &[]))]);
    assert!(message.starts_with("DIR: not a checkpoint"), "{message}");
}

#[test]
fn names_without_owner() {
    let weights = file_of(&["model.norm.weight"]);
    let (message, hint) = error_of(&[("model.safetensors", &weights)]);
    assert_eq!(
        message,
        "DIR/model.safetensors: tensor `model.norm.weight` starts with none of thinker., talker., \
         code2wav., and there is no config.json to say whose it is"
    );
    assert_eq!(
        hint.unwrap(),
        "copy config.json of the original release into the folder"
    );
    let config = br#"{"model_type": "llama"}"#;
    let (message, hint) = error_of(&[("model.safetensors", &weights), ("config.json", config)]);
    assert!(message.ends_with("has model_type `llama`, expected `qwen3_omni_moe_thinker`"));
    assert!(hint.unwrap().contains("Qwen3-Omni"));
    let (message, _) = error_of(&[("model.safetensors", &weights), ("config.json", b"{}")]);
    assert!(
        message.ends_with("config.json has no model_type to say whose it is"),
        "{message}"
    );
}

#[test]
fn malformed_config() {
    let weights = file_of(&["thinker.a"]);
    let (message, _) = error_of(&[
        ("model.safetensors", &weights),
        ("config.json", b"{\"a\":\n"),
    ]);
    assert_eq!(
        message,
        "DIR/config.json: invalid JSON: EOF while parsing a value at line 2 column 0"
    );
    let (message, _) = error_of(&[("model.safetensors", &weights), ("config.json", b"[]")]);
    assert_eq!(
        message,
        "DIR/config.json: expected a JSON object, found another value"
    );
}

#[test]
fn bad_index() {
    let of = |index: &str| {
        let weights = file_of(&["thinker.a"]);
        error_of(&[
            ("model.safetensors.index.json", index.as_bytes()),
            ("a.safetensors", &weights),
            ("b.safetensors", &weights),
        ])
    };
    let file = "DIR/model.safetensors.index.json";
    let (message, hint) = of(r#"{"weight_map": {"thinker.a": "c.safetensors"}}"#);
    assert_eq!(
        message,
        format!("DIR/c.safetensors: missing shard, named by {file}")
    );
    assert_eq!(
        hint.unwrap(),
        "the download is incomplete, fetch the missing file"
    );
    let (message, hint) = of(r#"{"weight_map": {"thinker.b": "a.safetensors"}}"#);
    let expected =
        format!("DIR/a.safetensors: tensor `thinker.b` is missing, {file} places it here");
    assert_eq!(message, expected);
    assert!(hint.unwrap().contains("different versions"));
    for shard in ["../a.safetensors", "/a.safetensors", "", "."] {
        let (message, _) = of(&json!({"weight_map": {"thinker.a": shard}}).to_string());
        let expected = format!(
            "{file}: shard name `{shard}` of tensor `thinker.a` is not a file name inside the \
             folder"
        );
        assert_eq!(message, expected);
    }
    let (message, _) = of("{}");
    assert_eq!(
        message,
        format!("{file}: expected an object `weight_map`, found none")
    );
    let (message, _) = of(r#"{"weight_map": {"thinker.a": 3}}"#);
    assert_eq!(
        message,
        format!("{file}: weight_map.thinker.a: expected a file name, found 3")
    );
    let (message, _) =
        of(r#"{"weight_map": {"thinker.a": "a.safetensors", "thinker.b": "b.safetensors"}}"#);
    assert!(
        message.starts_with("DIR/b.safetensors: tensor `thinker.b` is missing"),
        "{message}"
    );
}

#[test]
fn duplicate_across_shards() {
    let weights = file_of(&["thinker.a"]);
    let (message, hint) = error_of(&[("a.safetensors", &weights), ("b.safetensors", &weights)]);
    assert_eq!(
        message,
        "DIR/b.safetensors: tensor `thinker.a` is also in DIR/a.safetensors"
    );
    assert!(hint.unwrap().starts_with("remove the file"));
    let both = file_of(&["thinker.a", "a"]);
    let (message, _) = error_of(&[("thinker/model.safetensors", &both)]);
    assert!(message.contains("tensor `a` is also in") || message.contains("`thinker.a`"));
}

#[test]
fn missing_numbered_shard() {
    let weights = file_of(&["thinker.a"]);
    let (message, _) = error_of(&[("model-00001-of-00002.safetensors", &weights)]);
    assert_eq!(
        message,
        "DIR/model-00002-of-00002.safetensors: missing shard, \
         named by DIR/model-00001-of-00002.safetensors"
    );
    let (message, _) = error_of(&[("model-000000001-of-999999999.safetensors", &weights)]);
    assert!(
        message.starts_with("DIR/model-000000002-of-999999999.safetensors"),
        "{message}"
    );
}

#[test]
fn git_lfs_pointer() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    let (message, hint) = error_of(&[("model.safetensors", pointer)]);
    assert_eq!(
        message,
        "DIR/model.safetensors: expected weights, found a Git LFS pointer"
    );
    assert!(hint.unwrap().contains("git lfs pull"));
}

#[test]
fn empty_and_short_files() {
    for len in [0, 7] {
        let (message, _) = error_of(&[("model.safetensors", &vec![0; len])]);
        let expected =
            format!("DIR/model.safetensors: expected a safetensors file, found only {len} bytes");
        assert_eq!(message, expected);
    }
}

#[test]
fn header_longer_than_the_file() {
    let mut file = u64::MAX.to_le_bytes().to_vec();
    file.extend_from_slice(b"{}");
    let (message, hint) = error_of(&[("model.safetensors", &file)]);
    assert_eq!(
        message,
        "DIR/model.safetensors: header of 18446744073709551615 bytes, expected at most 2"
    );
    assert!(hint.unwrap().contains("damaged"));
}

#[test]
fn header_is_not_json() {
    let start = "DIR/model.safetensors: invalid header: ";
    assert_eq!(
        header_error("{", 0),
        format!("{start}EOF while parsing an object at line 1 column 1")
    );
    assert!(header_error("[1]", 0).starts_with(&format!("{start}invalid type: sequence")));
    assert!(header_error("{} x", 0).starts_with(&format!("{start}trailing characters")));
    let (message, _) = error_of(&[("model.safetensors", &raw_file("{\"\u{1}\": 1}", &[]))]);
    assert!(
        message.starts_with(&format!("{start}control character")),
        "{message}"
    );
}

#[test]
fn truncated_file() {
    let mut file = raw_file(&f32s(&[("thinker.a", 0, 8)]), &[0; 8]);
    let whole = file.len();
    file.truncate(whole - 3);
    let (message, hint) = error_of(&[("model.safetensors", &file)]);
    let expected = format!(
        "DIR/model.safetensors: truncated, tensor `thinker.a` ends at byte {whole} but the file \
         has {}",
        whole - 3
    );
    assert_eq!(message, expected);
    assert!(hint.unwrap().contains("incomplete"));
}

#[test]
fn overlap_and_gaps() {
    let start = "DIR/model.safetensors: ";
    let overlap = f32s(&[("thinker.a", 0, 8), ("thinker.b", 4, 12)]);
    let expected = "tensor `thinker.b` overlaps tensor `thinker.a` at data byte 4";
    assert_eq!(header_error(&overlap, 12), format!("{start}{expected}"));
    let gap = f32s(&[("thinker.a", 0, 8), ("thinker.b", 12, 16)]);
    assert_eq!(
        header_error(&gap, 16),
        format!("{start}data bytes 8..12 belong to no tensor")
    );
    let tail = f32s(&[("thinker.a", 0, 8)]);
    assert_eq!(
        header_error(&tail, 9),
        format!("{start}data bytes 8..9 belong to no tensor")
    );
    let head = f32s(&[("thinker.a", 4, 8)]);
    assert_eq!(
        header_error(&head, 8),
        format!("{start}data bytes 0..4 belong to no tensor")
    );
}

#[test]
fn bad_entries() {
    let of = |entry: &str| {
        let message = header_error(&format!(r#"{{"thinker.a": {entry}}}"#), 8);
        message.replace("DIR/model.safetensors: tensor `thinker.a`: ", "")
    };
    let cases = [
        (
            r#"{"shape": [2], "data_offsets": [0, 8]}"#,
            "`dtype` is missing",
        ),
        (
            r#"{"dtype": "F32", "data_offsets": [0, 8]}"#,
            "`shape` is missing",
        ),
        (
            r#"{"dtype": "F32", "shape": [2]}"#,
            "`data_offsets` is missing",
        ),
        (
            r#"{"dtype": "F31", "shape": [2], "data_offsets": [0, 8]}"#,
            "expected a known dtype, found \"F31\"",
        ),
        (
            r#"{"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}"#,
            "expected `shape` to be a list of sizes, found [-2]",
        ),
        (
            r#"{"dtype": "F32", "shape": "x\ny", "data_offsets": [0, 8]}"#,
            "expected `shape` to be a list of sizes, found \"x\\ny\"",
        ),
        (
            r#"{"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 9]}"#,
            "expected 2 data_offsets, found 3",
        ),
        (
            r#"{"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}"#,
            "data_offsets end at 0, before their start at 8",
        ),
        (
            r#"{"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}"#,
            "shape [3] of dtype F32 takes 12 bytes, data_offsets give 8",
        ),
        (
            r#"{"dtype": "F4", "shape": [3], "data_offsets": [0, 8]}"#,
            "shape [3] of dtype F4 is no whole number of bytes",
        ),
        (
            r#"{"dtype": "U8", "shape": [4294967296, 4294967296], "data_offsets": [0, 8]}"#,
            "shape [4294967296, 4294967296] of dtype U8 is no whole number of bytes",
        ),
        ("7", "`dtype` is missing"),
    ];
    for (entry, expected) in cases {
        assert_eq!(of(entry), expected, "{entry}");
    }
    let twice = r#"{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "a": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}}"#;
    assert!(header_error(twice, 2).ends_with("tensor `a`: described twice in the header"));
}

#[test]
fn names_cannot_break_the_line() {
    let header = r#"{"evil\nname\u2028\u001b[31m": {"shape": [1], "data_offsets": [0, 1]}}"#;
    let message = header_error(header, 1);
    assert!(
        message.contains(r"`evil\nname\u{2028}\u{1b}[31m`"),
        "{message}"
    );
}

#[test]
fn missing_tensor_names_the_closest() {
    let dir = folder(&[(
        "model.safetensors",
        &file_of(&[
            "thinker.model.layers.0.mlp.gate.weight",
            "thinker.lm_head.weight",
        ]),
    )]);
    let checkpoint = open(&dir).unwrap();
    let thinker = checkpoint.component(Component::Thinker).unwrap();
    let error = thinker.require("model.layers.0.mlp.gate.bias").unwrap_err();
    assert_eq!(
        shorten(&error.to_string(), dir.path()),
        "DIR: tensor `model.layers.0.mlp.gate.bias` of the thinker is missing"
    );
    assert_eq!(
        error.hint().unwrap(),
        "the closest name in the checkpoint is `model.layers.0.mlp.gate.weight`"
    );
    let head = thinker.require("lm_head.weight").unwrap();
    let error = head.expect_shape(&[3, 1]).unwrap_err();
    assert_eq!(
        shorten(&error.to_string(), dir.path()),
        "DIR/model.safetensors: tensor `thinker.lm_head.weight`: expected shape [3, 1], found [2]"
    );
}

#[cfg(unix)]
#[test]
fn weights_that_are_no_file() {
    let dir = folder(&[("model-a.safetensors/x", b"")]);
    let error = open(&dir).unwrap_err();
    assert_eq!(
        shorten(&error.to_string(), dir.path()),
        "DIR/model-a.safetensors: expected a file, found something else"
    );
}
