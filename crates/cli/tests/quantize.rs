//! What `quantize` writes, and everything that it refuses.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use burn_omni_quant::checkpoint::{Checkpoint, Component, Dtype};
use common::checkpoint::Broken;
use common::{Run, demo, names, program, run};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Name of what an unfinished run leaves.
const RECORD: &str = ".burn-omni-quantize.json";

struct Target {
    folder: TempDir,
}

impl Target {
    fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        Self { folder }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("out")
    }

    fn text(&self) -> String {
        self.path().to_str().expect("a plain name").into()
    }

    fn quantize(&self, more: &[&str]) -> Run {
        self.quantize_from(&demo(), more)
    }

    fn quantize_from(&self, source: &Path, more: &[&str]) -> Run {
        let source = source.to_str().expect("a plain name");
        run([&["quantize", source, &self.text()], more].concat())
    }
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("the file exists")).expect("JSON")
}

#[test]
fn the_demo_becomes_a_split_tree() {
    let target = Target::new();
    let result = target.quantize(&["--json"]).succeeds().json();
    // Four layers of four projections and eight experts of three.
    assert_eq!(result["quantized"], 4 * (4 + 8 * 3));
    assert_eq!(result["tensors"], 629);
    assert!(result["bytes_out"].as_u64() < result["bytes_in"].as_u64());
    assert!(result["seconds"].as_f64().is_some());
    let found = names(&target.path());
    for name in [
        "thinker",
        "talker",
        "code2wav",
        "config.json",
        "tokenizer.json",
    ] {
        assert!(found.iter().any(|own| own == name), "{name}: {found:?}");
    }
    assert!(
        !found
            .iter()
            .any(|name| name == "README.md" || name == RECORD)
    );
    let written = Checkpoint::open(&target.path()).expect("a checkpoint");
    let source = Checkpoint::open(&demo()).expect("the demo");
    for component in Component::ALL {
        let (old, new) = (source.component(component), written.component(component));
        let (old, new) = (old.expect("the demo has it"), new.expect("it was written"));
        for (name, tensor) in old.iter() {
            let own = new
                .get(name)
                .unwrap_or_else(|| panic!("{component} has {name}"));
            if own.dtype == tensor.dtype {
                assert_eq!(
                    (own.shape, own.bytes),
                    (tensor.shape, tensor.bytes),
                    "{name}"
                );
                continue;
            }
            assert_eq!(component, Component::Thinker, "{name}");
            let &[rows, width] = tensor.shape else {
                panic!("{name} is a matrix")
            };
            assert_eq!((own.dtype, own.shape), (Dtype::U8, &[rows, width / 2][..]));
            let scale = new.get(&format!("{name}_scale")).expect("a scale");
            assert_eq!(scale.dtype, Dtype::F8_E4M3);
            assert_eq!(scale.shape, [rows, width / 16]);
            let tensor_scale = new.get(&format!("{name}_scale_2")).expect("a tensor scale");
            assert_eq!(tensor_scale.dtype, Dtype::F32);
            assert!(tensor_scale.shape.is_empty());
        }
    }
    let own = json(&target.path().join("thinker/config.json"));
    assert_eq!(own["quantization_config"]["quant_method"], "modelopt");
    let own = json(&target.path().join("thinker/hf_quant_config.json"));
    assert_eq!(own["quantization"]["quant_algo"], "W4A16_NVFP4");
}

#[test]
fn the_other_forms_are_one_folder() {
    for (form, format, parts) in [
        ("nvfp4-ct", "nvfp4-pack-quantized", 3),
        ("mxfp4", "mxfp4-pack-quantized", 2),
    ] {
        let target = Target::new();
        let more = ["--format", form, "--quantize-talker", "--quantize-head"];
        target.quantize(&more).succeeds();
        let written = Checkpoint::open(&target.path()).expect("a checkpoint");
        let thinker = written.component(Component::Thinker).expect("a thinker");
        let head: Vec<_> = thinker
            .names()
            .filter(|name| name.starts_with("lm_head."))
            .collect();
        assert_eq!(head.len(), parts, "{head:?}");
        let talker = written.component(Component::Talker).expect("a talker");
        for name in ["codec_head", "model.layers.0.mlp.shared_expert.up_proj"] {
            assert!(talker.contains(&format!("{name}.weight_packed")), "{name}");
        }
        for name in [
            "model.layers.0.mlp.gate",
            "model.codec_embedding",
            "code_predictor.lm_head.0",
            "text_projection.linear_fc1",
        ] {
            let weight = talker.get(&format!("{name}.weight")).expect(name);
            assert_eq!(weight.dtype, Dtype::BF16, "{name}");
        }
        let config = json(&target.path().join("config.json"));
        assert_eq!(config["quantization_config"]["format"], format);
        assert_eq!(config["model_type"], "qwen3_omni_moe");
    }
}

#[test]
fn what_was_written_answers() {
    for form in ["nvfp4", "nvfp4-ct", "mxfp4"] {
        let target = Target::new();
        let more = ["--format", form, "--quantize-talker", "--quantize-head"];
        target.quantize(&more).succeeds();
        let answer = run([
            "run",
            "-m",
            &target.text(),
            "-p",
            "What is three plus four?",
        ]);
        assert_eq!(answer.succeeds().stdout.trim(), "Seven.", "{form}");
    }
}

#[test]
fn what_is_ignored_stays_and_what_nothing_has_is_said() {
    let target = Target::new();
    let done = target.quantize(&[
        "--ignore",
        "thinker.model.layers.0",
        "--ignore",
        "*self_attn*",
        "--ignore",
        "no.such.module",
    ]);
    assert!(
        done.succeeds()
            .stderr
            .contains("'no.such.module' is the name of no module"),
        "{done:#?}"
    );
    assert!(
        done.stderr.contains("72 of 629 tensors quantized"),
        "{done:#?}"
    );
    assert_eq!(done.stdout, "");
    let quiet = target.quantize(&["-q", "--force"]);
    assert_eq!(quiet.succeeds().stderr, "");
}

#[test]
fn shards_have_an_index() {
    let target = Target::new();
    target
        .quantize(&["--format", "mxfp4", "--shard-size", "5MB"])
        .succeeds();
    let index = json(&target.path().join("model.safetensors.index.json"));
    let map = index["weight_map"].as_object().expect("a map");
    let files: std::collections::BTreeSet<_> = map.values().filter_map(Value::as_str).collect();
    assert!(files.len() > 3, "{files:?}");
    for file in files {
        let size = fs::metadata(target.path().join(file)).expect(file).len();
        assert!(size < 5_200_000, "{file}: {size}");
    }
}

/// Waits until a file is there, and says whether the program was still at work.
fn wait_for(path: &Path, child: &mut Child) -> bool {
    while !path.exists() {
        if child.try_wait().expect("a child").is_some() {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

/// Small shards, so that a run can be met in its middle.
const SHARDS: [&str; 4] = ["--format", "nvfp4-ct", "--shard-size", "200kB"];

impl Target {
    /// Starts a run and waits until its third shard is there.
    fn start(&self, like: &Self) -> Child {
        let demo = demo();
        let mut child = program()
            .args([
                "quantize",
                demo.to_str().expect("a plain name"),
                &self.text(),
            ])
            .args(SHARDS)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let third = names(&like.path())
            .into_iter()
            .find(|name| name.starts_with("model-00003"))
            .expect("more than three shards");
        let at_work = wait_for(&self.path().join(third), &mut child);
        assert!(at_work, "the shards are written one after another");
        child
    }

    /// It is no checkpoint yet, and the same command makes it one like the other.
    fn goes_on(&self, like: &Self) {
        assert!(self.path().join(RECORD).is_file());
        assert!(!self.path().join("config.json").exists());
        run(["inspect", "-m", &self.text()])
            .fails(1, &["not whole"])
            .hints("goes on where it stopped");
        self.quantize(&["--format", "mxfp4"])
            .fails(
                1,
                &["an interrupted run with another source or other options"],
            )
            .hints("--force");
        self.quantize(&SHARDS).succeeds();
        assert_eq!(names(&like.path()), names(&self.path()));
        for name in names(&like.path()) {
            let bytes = |target: &Self| fs::read(target.path().join(&name)).expect("a file");
            assert!(bytes(like) == bytes(self), "{name}");
        }
    }
}

#[test]
fn a_run_that_is_killed_goes_on() {
    let whole = Target::new();
    whole.quantize(&SHARDS).succeeds();
    let target = Target::new();
    let mut child = target.start(&whole);
    child.kill().expect("it can be killed");
    child.wait().expect("it has ended");
    target.goes_on(&whole);
}

#[test]
fn ctrl_c_stops_between_two_tensors() {
    let whole = Target::new();
    whole.quantize(&SHARDS).succeeds();
    let target = Target::new();
    let child = target.start(&whole);
    let kill = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .expect("there is `kill`");
    assert!(kill.success());
    let done = Run::from(child.wait_with_output().expect("it has ended"));
    assert_eq!(done.code, Some(130), "{done:#?}");
    assert!(
        done.stderr.contains("the same command goes on"),
        "{done:#?}"
    );
    let parts = names(&target.path());
    assert!(
        !parts.iter().any(|name| name.ends_with(".part")),
        "{parts:?}"
    );
    target.goes_on(&whole);
}

#[test]
fn a_folder_with_something_in_it_is_left_alone() {
    let target = Target::new();
    target.quantize(&[]).succeeds();
    target
        .quantize(&[])
        .fails(1, &[&target.text(), "the folder is not empty"])
        .hints("--force");
    fs::write(target.path().join("notes.txt"), "mine").expect("a file");
    target
        .quantize(&["--force", "--format", "mxfp4"])
        .succeeds();
    let found = names(&target.path());
    assert!(found.contains(&"notes.txt".into()) && !found.contains(&"thinker".into()));
}

#[test]
fn folders_that_do_not_fit() {
    let target = Target::new();
    target
        .quantize_from(Path::new("/no/such/folder"), &[])
        .fails(1, &["/no/such/folder", "no such folder"]);
    assert!(!target.path().exists());
    let source = Broken::new();
    let inside = source.path().join("out");
    for (to, what) in [
        (inside.to_str().expect("a plain name"), "lies inside of"),
        (source.text(), "is the same folder as"),
        (
            source
                .path()
                .parent()
                .and_then(Path::to_str)
                .expect("a folder"),
            "",
        ),
    ] {
        let refused = run(["quantize", source.text(), to]);
        refused.fails(1, &[to, what]);
    }
    assert!(!inside.exists());
    fs::write(target.path(), "a file").expect("a file");
    target
        .quantize(&[])
        .fails(1, &["expected a folder, found a file"])
        .hints("does not exist yet");
    let below = target.path().join("deeper");
    run([
        "quantize",
        demo().to_str().expect("a plain name"),
        below.to_str().expect("a name"),
    ])
    .fails(1, &["cannot be written"]);
}

#[test]
fn sources_that_cannot_be_quantized() {
    let first = Target::new();
    first.quantize(&["--format", "nvfp4-ct"]).succeeds();
    let second = Target::new();
    second
        .quantize_from(&first.path(), &[])
        .fails(
            1,
            &["config.json", "BF16, F16 or F32", "quantization_config"],
        )
        .hints("release in BF16");
    let no_config = Broken::new().remove("config.json");
    second
        .quantize_from(no_config.path(), &[])
        .fails(1, &["no config.json"])
        .hints("copy config.json");
    let cut = Broken::new().bytes(|bytes| bytes.truncate(bytes.len() - 1000));
    second
        .quantize_from(cut.path(), &[])
        .fails(1, &["model.safetensors", "truncated"]);
    let name = "thinker.model.layers.1.self_attn.q_proj.weight";
    let sick = Broken::new().tensors(|tensors| {
        let own = tensors.iter_mut().find(|tensor| tensor.name == name);
        own.expect("a tensor").bytes[..2].copy_from_slice(&0x7fc0_u16.to_le_bytes());
    });
    second
        .quantize_from(sick.path(), &["--format", "mxfp4"])
        .fails(1, &["model.safetensors", name, "expected finite weights"])
        .hints("--ignore 'model.layers.1.self_attn.q_proj'");
    assert!(!second.path().exists(), "nothing is left");
    second
        .quantize(&["--ignore", "thinker", "--json"])
        .fails(1, &["nothing to quantize"]);
}

#[test]
fn widths_that_are_not_of_whole_blocks_stay_with_a_note() {
    let name = "thinker.model.layers.2.self_attn.o_proj.weight";
    let odd = Broken::new().tensors(|tensors| {
        let own = tensors.iter_mut().find(|tensor| tensor.name == name);
        let own = own.expect("a tensor");
        // [192, 512], cut to 500 columns.
        let rows = own.bytes.chunks(1024).map(|row| row[..1000].to_vec());
        own.bytes = rows.collect::<Vec<_>>().concat();
        own.shape = vec![192, 500];
    });
    let target = Target::new();
    let done = target.quantize_from(odd.path(), &[]);
    let note = "model.layers.2.self_attn.o_proj stays BF16: its width 500 is no multiple of 16";
    assert!(done.succeeds().stderr.contains(note), "{done:#?}");
    let written = Checkpoint::open(&target.path()).expect("a checkpoint");
    let thinker = written.component(Component::Thinker).expect("a thinker");
    let own = thinker.get("model.layers.2.self_attn.o_proj.weight");
    assert_eq!(own.map(|own| own.shape), Some(&[192, 500][..]));
}

#[test]
fn what_is_typed_wrong() {
    let target = Target::new();
    let wrong = |more: &[&str], parts: &[&str]| {
        target.quantize(more).fails(2, parts);
    };
    wrong(&["--format", "int4"], &["int4", "--format"]);
    wrong(
        &["--ignore", "a[b"],
        &["--ignore", "`[` at character 2 is not closed"],
    );
    wrong(&["--ignore", ""], &["--ignore"]);
    wrong(&["--shard-size", "5XB"], &["--shard-size", "5GB"]);
    run(["quantize", "here"]).fails(2, &["<DST>"]);
    assert!(!target.path().exists());
}

#[test]
fn the_result_is_one_json_object() {
    let target = Target::new();
    let done = target.quantize(&["--json"]);
    assert_eq!(done.stdout.lines().count(), 1);
    let keys: Vec<_> = ["tensors", "quantized", "bytes_in", "bytes_out", "seconds"].into();
    let result = done.json();
    let found: Vec<_> = result.as_object().expect("an object").keys().collect();
    assert_eq!(json!(found), json!(keys));
}
