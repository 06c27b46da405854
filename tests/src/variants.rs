//! The demo model as other programs quantize it, written from its BF16 weights: names, layouts, configs and bytes are
//! those that `golden/quant` has of the packages themselves.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn_omni_ops::packed::encode_e4m3;
use burn_omni_quant::checkpoint::Checkpoint;
use burn_omni_quant::write::{Form, Plan, Replace, Watcher, WriteOptions};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

use crate::nf4::Tables;
use crate::{read, repository};

/// The components, which are the prefixes of names and the folders of a split checkpoint.
const COMPONENTS: [&str; 3] = ["thinker", "talker", "code2wav"];
/// The file of a folder's tensors.
const WEIGHTS: &str = "model.safetensors";
/// What ModelOpt leaves alone, below the thinker.
const LEFT_ALONE: [&str; 8] = [
    "audio_tower*",
    "lm_head",
    "model.embed_tokens",
    "model.layers.0.mlp.gate",
    "model.layers.1.mlp.gate",
    "model.layers.2.mlp.gate",
    "model.layers.3.mlp.gate",
    "visual*",
];

/// A form of the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// `burn-omni quantize --format nvfp4`.
    Ours,
    /// nvidia-modelopt's export of the whole model: one folder, scales of activations, two descriptions.
    ModelOpt,
    /// compressed-tensors' NVFP4, each module that stays as it is by its name.
    CompressedTensors,
    /// nvidia-modelopt's export of the thinker alone beside the other parts; no config at the root.
    Split,
    /// ModelOpt's descriptions over BF16 weights.
    MetadataOnly,
    /// bitsandbytes NF4 with nested scales.
    Nf4,
    /// compressed-tensors' FP8, a scale a row.
    Fp8,
    /// FP8 in blocks of 128 x 128, as DeepSeek's and Qwen's own checkpoints have it.
    Fp8Blocks,
    /// ModelOpt's MXFP8.
    Mxfp8,
}

impl Variant {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Ours,
        Self::ModelOpt,
        Self::CompressedTensors,
        Self::Split,
        Self::MetadataOnly,
        Self::Nf4,
        Self::Fp8,
        Self::Fp8Blocks,
        Self::Mxfp8,
    ];

    /// Writes it into a folder that does not exist yet.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(self, dir: &Path) {
        match self {
            Self::Ours => quantize(Form::ModelOpt, dir),
            Self::ModelOpt => modelopt(dir),
            Self::CompressedTensors => compressed_tensors(dir),
            Self::Split => split(dir),
            Self::MetadataOnly => metadata_only(dir),
            Self::Nf4 => nf4(dir),
            Self::Fp8 => eight_bits(dir, (per_row, "weight_scale"), per_row_says()),
            Self::Fp8Blocks => eight_bits(dir, (per_block, "weight_scale_inv"), per_block_says()),
            Self::Mxfp8 => eight_bits(dir, (per_power, "weight_scale"), per_power_says()),
        }
    }
}

/// The tensors of a file.
#[derive(Clone, Debug, Default)]
pub struct Named(BTreeMap<String, Stored>);

/// A tensor as it is stored.
#[derive(Clone, Debug)]
pub struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Stored {
    fn f32s(shape: &[usize], values: &[f32]) -> Self {
        Self {
            dtype: Dtype::F32,
            shape: shape.to_vec(),
            bytes: values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }

    fn bytes(shape: &[usize], bytes: Vec<u8>) -> Self {
        Self {
            dtype: Dtype::U8,
            shape: shape.to_vec(),
            bytes,
        }
    }

    /// A matrix of BF16 as its sizes and values.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn matrix(&self) -> ([usize; 2], Vec<f32>) {
        assert_eq!(self.dtype, Dtype::BF16, "the demo model is stored in BF16");
        let shape = self.shape.as_slice().try_into().expect("a matrix");
        let (values, _) = self.bytes.as_chunks();
        let value = |bytes: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
        (shape, values.iter().map(value).collect())
    }
}

impl Named {
    /// The demo model's weights.
    #[must_use]
    pub fn demo() -> Self {
        Self::read(&demo(WEIGHTS))
    }

    fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = SafeTensors::deserialize(&bytes).expect("a file of tensors");
        let tensors = file.iter().map(|(name, view)| {
            let stored = Stored {
                dtype: view.dtype(),
                shape: view.shape().to_vec(),
                bytes: view.data().to_vec(),
            };
            (name.to_owned(), stored)
        });
        Self(tensors.collect())
    }

    fn write(&self, path: &Path) {
        let views = self.0.iter().map(|(name, tensor)| {
            let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes);
            (name, view.expect("as many bytes as the shape says"))
        });
        let metadata = [("format".to_owned(), "pt".to_owned())].into();
        safetensors::serialize_to_file(views, Some(metadata), path).expect("a file of tensors");
    }

    /// The weights that are quantized, by the names of their modules.
    pub fn quantized(&self) -> impl Iterator<Item = (&str, &Stored)> {
        self.0.iter().filter_map(|(name, tensor)| {
            let module = name.strip_suffix(".weight")?;
            let rest = module.strip_prefix("thinker.model.layers.")?;
            let wanted = rest.contains(".mlp.experts.")
                || (rest.contains(".self_attn.") && rest.ends_with("_proj"));
            wanted.then_some((module, tensor))
        })
    }

    /// Modules whose weights are matrices, embeddings apart.
    fn matrices(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|(name, tensor)| {
            let module = name.strip_suffix(".weight")?;
            (tensor.shape.len() == 2 && !module.contains("embed")).then_some(module)
        })
    }
}

fn demo(file: &str) -> std::path::PathBuf {
    repository("assets/omni-demo").join(file)
}

fn config() -> Value {
    serde_json::from_str(&read(&demo("config.json"))).expect("the demo's config")
}

fn put(path: &Path, document: &Value) {
    let text = serde_json::to_string_pretty(document).expect("JSON");
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Tokenizer, template and processor, and the generation config where the model has its own config.
fn side_files(dir: &Path) {
    for file in [
        "chat_template.json",
        "merges.txt",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    ] {
        fs::copy(demo(file), dir.join(file)).expect("a file of the demo model");
    }
}

/// One folder with these weights and this quantization.
fn single(dir: &Path, tensors: &Named, quantization: Value) {
    fs::create_dir(dir).expect("a new folder");
    side_files(dir);
    fs::copy(
        demo("generation_config.json"),
        dir.join("generation_config.json"),
    )
    .expect("a file of the demo model");
    let mut config = config();
    config["quantization_config"] = quantization;
    put(&dir.join("config.json"), &config);
    tensors.write(&dir.join(WEIGHTS));
}

/// The demo model through `burn-omni quantize`.
fn quantize(form: Form, dir: &Path) {
    let source = repository("assets/omni-demo");
    let checkpoint = Checkpoint::open(&source).unwrap_or_else(|error| panic!("{error}"));
    let plan = Plan::new(&checkpoint, WriteOptions::new(form));
    let watcher = Watcher {
        progress: &|_, _| {},
        stops: &|| false,
    };
    plan.and_then(|plan| plan.write(dir, Replace::Nothing, watcher))
        .unwrap_or_else(|error| panic!("{error}"));
}

/// Our tensors of a component, with the scales of activations that ModelOpt calibrates.
fn calibrated(dir: &Path, component: &str) -> Named {
    let mut tensors = Named::read(&dir.join(component).join(WEIGHTS));
    let scales: Vec<String> = tensors
        .0
        .keys()
        .filter_map(|name| {
            Some(format!(
                "{}.input_scale",
                name.strip_suffix(".weight_scale_2")?
            ))
        })
        .collect();
    for name in scales {
        tensors.0.insert(name, Stored::f32s(&[], &[0.001_4]));
    }
    tensors
}

/// How ModelOpt describes what it has done, in `config.json` and by itself.
fn modelopt_says(left_alone: &[String]) -> [Value; 2] {
    let producer = json!({"name": "modelopt", "version": "0.47.0"});
    let four_bits = json!({"dynamic": false, "num_bits": 4, "type": "float", "group_size": 16});
    [
        json!({
            "config_groups": {"group_0": {
                "input_activations": four_bits,
                "weights": four_bits,
                "targets": ["Linear"],
            }},
            "ignore": left_alone,
            "quant_algo": "NVFP4",
            "producer": producer,
            "quant_method": "modelopt",
        }),
        json!({
            "producer": producer,
            "quantization": {
                "quant_algo": "NVFP4",
                "kv_cache_quant_algo": null,
                "group_size": 16,
                "exclude_modules": left_alone,
            },
        }),
    ]
}

/// What ModelOpt says of the whole model.
fn modelopt_says_of_all() -> [Value; 2] {
    let thinker = LEFT_ALONE.map(|name| format!("thinker.{name}"));
    let others = ["code2wav*", "talker*"].map(str::to_owned);
    modelopt_says(&[&others[..], &thinker].concat())
}

fn modelopt(dir: &Path) {
    let ours = tempfile::tempdir().expect("a folder for a while");
    let split = ours.path().join("split");
    quantize(Form::ModelOpt, &split);
    let mut all = Named::default();
    for component in COMPONENTS {
        let tensors = calibrated(&split, component).0.into_iter();
        all.0
            .extend(tensors.map(|(name, tensor)| (format!("{component}.{name}"), tensor)));
    }
    let [in_config, of_its_own] = modelopt_says_of_all();
    single(dir, &all, in_config);
    put(&dir.join("hf_quant_config.json"), &of_its_own);
}

fn split(dir: &Path) {
    let ours = tempfile::tempdir().expect("a folder for a while");
    let whole = ours.path().join("split");
    quantize(Form::ModelOpt, &whole);
    fs::create_dir(dir).expect("a new folder");
    side_files(dir);
    let [in_config, of_its_own] = modelopt_says(&LEFT_ALONE.map(str::to_owned));
    let root = config();
    for component in COMPONENTS {
        let folder = dir.join(component);
        fs::create_dir(&folder).expect("a new folder");
        let mut config = root[format!("{component}_config")].clone();
        if component == "thinker" {
            config["architectures"] = json!(["Qwen3OmniMoeThinkerForConditionalGeneration"]);
            config["quantization_config"] = in_config.clone();
            put(&folder.join("hf_quant_config.json"), &of_its_own);
            fs::copy(
                demo("generation_config.json"),
                folder.join("generation_config.json"),
            )
            .expect("a file of the demo model");
        }
        put(&folder.join("config.json"), &config);
        calibrated(&whole, component).write(&folder.join(WEIGHTS));
    }
}

fn metadata_only(dir: &Path) {
    let [in_config, of_its_own] = modelopt_says_of_all();
    single(dir, &Named::demo(), in_config);
    put(&dir.join("hf_quant_config.json"), &of_its_own);
}

fn compressed_tensors(dir: &Path) {
    quantize(Form::CompressedTensors, dir);
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_str(&read(&path)).expect("the config we wrote");
    let demo = Named::demo();
    let quantized: Vec<&str> = demo.quantized().map(|(module, _)| module).collect();
    let ignore: Vec<&str> = demo
        .matrices()
        .filter(|module| !quantized.contains(module))
        .collect();
    config["quantization_config"] = json!({
        "config_groups": {"group_0": {
            "format": "nvfp4-pack-quantized",
            "input_activations": null,
            "output_activations": null,
            "targets": ["Linear"],
            "weights": {
                "actorder": null,
                "block_structure": null,
                "dynamic": false,
                "group_size": 16,
                "num_bits": 4,
                "observer": "memoryless_minmax",
                "observer_kwargs": {},
                "scale_dtype": "torch.float8_e4m3fn",
                "strategy": "tensor_group",
                "symmetric": true,
                "type": "float",
                "zp_dtype": null,
            },
        }},
        "format": "nvfp4-pack-quantized",
        "global_compression_ratio": null,
        "ignore": ignore,
        "kv_cache_scheme": null,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "sparsity_config": {},
        "transform_config": {},
        "version": "0.19.0",
    });
    put(&path, &config);
}

fn nf4(dir: &Path) {
    let tables = Tables::golden();
    let demo = Named::demo();
    let mut tensors = demo.clone();
    for (module, weight) in demo.quantized() {
        let (shape, values) = weight.matrix();
        let nested = tables.nested(&values, shape, "bfloat16");
        let table = |values: &[f32]| Stored::f32s(&[values.len()], values);
        let flat = |bytes: Vec<u8>| Stored::bytes(&[bytes.len()], bytes);
        let codes = Stored::bytes(&[nested.codes.len(), 1], nested.codes);
        for (name, tensor) in [
            ("weight", codes),
            ("weight.absmax", flat(nested.absmax)),
            ("weight.nested_absmax", table(&nested.nested_absmax)),
            ("weight.nested_quant_map", table(&tables.scales)),
            ("weight.quant_map", table(&tables.codes)),
            (
                "weight.quant_state.bitsandbytes__nf4",
                flat(nested.state.into_bytes()),
            ),
        ] {
            tensors.0.insert(format!("{module}.{name}"), tensor);
        }
    }
    // As transformers writes it.
    let quantization = json!({
        "_load_in_4bit": true,
        "_load_in_8bit": false,
        "bnb_4bit_compute_dtype": "bfloat16",
        "bnb_4bit_quant_storage": "uint8",
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": true,
        "llm_int8_enable_fp32_cpu_offload": false,
        "llm_int8_has_fp16_weight": false,
        "llm_int8_skip_modules": [
            "lm_head", "mlp.gate", "embed_tokens", "visual", "audio_tower", "talker", "code2wav",
        ],
        "llm_int8_threshold": 6.0,
        "load_in_4bit": true,
        "load_in_8bit": false,
        "quant_method": "bitsandbytes",
    });
    single(dir, &tensors, quantization);
}

/// The largest number of E4M3.
const E4M3_MAX: f32 = 448.0;
/// Rows and columns of a block of FP8.
const BLOCK: usize = 128;
/// Columns that share a power of two.
const POWER_BLOCK: usize = 32;

/// Codes of 8 bits of a matrix and the tensor of their scales.
type Encode = fn([usize; 2], &[f32]) -> (Vec<u8>, Stored);

/// The demo model with codes of 8 bits, and scales of this name.
fn eight_bits(dir: &Path, (encode, name): (Encode, &str), quantization: Value) {
    let demo = Named::demo();
    let mut tensors = demo.clone();
    for (module, weight) in demo.quantized() {
        let (shape, values) = weight.matrix();
        let (bytes, scales) = encode(shape, &values);
        let codes = Stored {
            dtype: Dtype::F8_E4M3,
            shape: shape.to_vec(),
            bytes,
        };
        tensors.0.insert(format!("{module}.weight"), codes);
        tensors.0.insert(format!("{module}.{name}"), scales);
    }
    single(dir, &tensors, quantization);
}

fn largest<'a>(values: impl IntoIterator<Item = &'a f32>) -> f32 {
    values.into_iter().fold(1e-12, |m, x| m.max(x.abs()))
}

fn per_row([rows, width]: [usize; 2], values: &[f32]) -> (Vec<u8>, Stored) {
    let scales: Vec<f32> = values
        .chunks(width)
        .map(|row| largest(row) / E4M3_MAX)
        .collect();
    let codes = values.iter().enumerate();
    let codes = codes.map(|(at, x)| encode_e4m3(x / scales[at / width]));
    let codes = codes.collect();
    (codes, Stored::f32s(&[rows, 1], &scales))
}

fn per_block([rows, width]: [usize; 2], values: &[f32]) -> (Vec<u8>, Stored) {
    let across = width.div_ceil(BLOCK);
    let block = |at: usize| at / width / BLOCK * across + at % width / BLOCK;
    let mut scales = vec![1e-12_f32; rows.div_ceil(BLOCK) * across];
    for (at, x) in values.iter().enumerate() {
        scales[block(at)] = scales[block(at)].max(x.abs() / E4M3_MAX);
    }
    let codes = values.iter().enumerate();
    let codes = codes.map(|(at, x)| encode_e4m3(x / scales[block(at)]));
    let shape = [rows.div_ceil(BLOCK), across];
    let codes = codes.collect();
    (codes, Stored::f32s(&shape, &scales))
}

fn per_power([rows, width]: [usize; 2], values: &[f32]) -> (Vec<u8>, Stored) {
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    for row in values.chunks(width) {
        for block in row.chunks(POWER_BLOCK) {
            let power = (largest(block) / E4M3_MAX).log2().ceil();
            scales.push((power + 127.0) as u8);
            codes.extend(block.iter().map(|x| encode_e4m3(x / power.exp2())));
        }
    }
    let shape = [rows, width.div_ceil(POWER_BLOCK)];
    (codes, Stored::bytes(&shape, scales))
}

fn per_row_says() -> Value {
    json!({
        "config_groups": {"group_0": {
            "format": "float-quantized",
            "input_activations": null,
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": true, "dynamic": false},
        }},
        "format": "float-quantized",
        "ignore": ["lm_head", "re:.*mlp.gate$", "re:.*audio_tower.*", "re:.*visual.*", "re:talker.*", "re:code2wav.*"],
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
    })
}

fn per_block_says() -> Value {
    json!({
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "modules_to_not_convert": ["lm_head", "mlp.gate", "embed_tokens", "visual", "audio_tower", "talker", "code2wav"],
        "quant_method": "fp8",
        "weight_block_size": [BLOCK, BLOCK],
    })
}

fn per_power_says() -> Value {
    let [mut in_config, _] = modelopt_says_of_all();
    in_config["quant_algo"] = json!("MXFP8");
    in_config["config_groups"]["group_0"] = json!({
        "weights": {"dynamic": false, "num_bits": 8, "type": "float", "group_size": POWER_BLOCK},
        "targets": ["Linear"],
    });
    in_config
}
