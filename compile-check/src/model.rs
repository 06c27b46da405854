//! The sizes of the matrices of models, read from their `config.json`.

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// A model's matrices that can be packed.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    /// What the report calls it.
    pub(crate) name: &'static str,
    /// `[rows, width]` of each linear layer.
    pub(crate) linears: Vec<[usize; 2]>,
    /// The experts of each part that has some.
    pub(crate) experts: Vec<Experts>,
    /// What is decoded token by token with heads of 128 numbers.
    pub(crate) decoders: Vec<Decoder>,
}

/// A stack of layers that is decoded token by token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decoder {
    /// `hidden_size`
    pub(crate) hidden: usize,
    /// `num_attention_heads` and `num_key_value_heads`
    pub(crate) heads: [usize; 2],
    /// `moe_intermediate_size` or `intermediate_size`
    pub(crate) inner: usize,
    /// `num_experts` and `num_experts_per_tok`
    pub(crate) experts: Option<[usize; 2]>,
    /// `shared_expert_intermediate_size`
    pub(crate) shared: Option<usize>,
    /// `norm_topk_prob`
    pub(crate) normalize: bool,
    /// `vocab_size`
    pub(crate) vocabulary: usize,
}

/// The experts of a layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Experts {
    /// `num_experts`
    pub(crate) count: usize,
    /// `num_experts_per_tok`
    pub(crate) slots: usize,
    /// `hidden_size`
    pub(crate) hidden: usize,
    /// `moe_intermediate_size`
    pub(crate) intermediate: usize,
}

/// The models that are checked.
pub(crate) fn models() -> Result<Vec<Model>> {
    let release = include_str!("../../crates/model/src/config/preset/qwen3-omni-30b-a3b.json");
    let demo = include_str!("../../assets/omni-demo/config.json");
    // Qwen/Qwen3-30B-A3B: the thinker's sizes with another vocabulary.
    let text = json!({
        "hidden_size": 2048, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
        "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768, "vocab_size": 151_936,
    });
    Ok(vec![
        omni("Qwen3-Omni-30B-A3B", release)?,
        omni("demo", demo)?,
        model("Qwen3-30B-A3B", &[&text])?,
    ])
}

/// The thinker and the talker, and the code predictor, which is never packed; neither is code2wav.
fn omni(name: &'static str, config: &str) -> Result<Model> {
    let config: Value = serde_json::from_str(config).context(name)?;
    let parts = ["/thinker_config/text_config", "/talker_config/text_config"];
    let parts: Vec<&Value> = parts
        .iter()
        .filter_map(|part| config.pointer(part))
        .collect();
    let mut model = model(name, &parts)?;
    if let Some(predictor) = config.pointer("/talker_config/code_predictor_config") {
        let predictor = Decoder::of(predictor).with_context(|| format!("config of {name}"))?;
        model.decoders.push(predictor);
    }
    Ok(model)
}

fn model(name: &'static str, parts: &[&Value]) -> Result<Model> {
    let mut model = Model {
        name,
        linears: Vec::new(),
        experts: Vec::new(),
        decoders: Vec::new(),
    };
    for part in parts {
        add(&mut model, part).with_context(|| format!("config of {name}"))?;
    }
    Ok(model)
}

impl Decoder {
    fn of(part: &Value) -> Result<Self> {
        let size = |field: &str| -> Option<usize> { Some(part.get(field)?.as_u64()? as usize) };
        let need = |field: &str| size(field).with_context(|| format!("no {field}"));
        let experts = size("num_experts").zip(size("num_experts_per_tok"));
        let inner = if experts.is_some() {
            "moe_intermediate_size"
        } else {
            "intermediate_size"
        };
        Ok(Self {
            hidden: need("hidden_size")?,
            heads: [need("num_attention_heads")?, need("num_key_value_heads")?],
            inner: need(inner)?,
            experts: experts.map(<[usize; 2]>::from),
            shared: size("shared_expert_intermediate_size").filter(|shared| *shared > 0),
            normalize: part.get("norm_topk_prob").and_then(Value::as_bool) == Some(true),
            vocabulary: need("vocab_size")?,
        })
    }
}

/// The layers of a decoder and its head; matrices that are multiplied together lie in one.
fn add(model: &mut Model, part: &Value) -> Result<()> {
    let size = |field: &str| -> Result<usize> {
        let value = part.get(field).and_then(Value::as_u64);
        Ok(value.with_context(|| format!("no {field}"))? as usize)
    };
    let decoder = Decoder::of(part)?;
    let (hidden, [heads, kv_heads]) = (decoder.hidden, decoder.heads);
    let head = size("head_dim")?;
    if head == 128 {
        model.decoders.push(decoder);
    }
    model.linears.extend([
        [(heads + 2 * kv_heads) * head, hidden],
        [hidden, heads * head],
        [decoder.vocabulary, hidden],
    ]);
    if let Ok(shared @ 1..) = size("shared_expert_intermediate_size") {
        model
            .linears
            .extend([[2 * shared, hidden], [hidden, shared]]);
    }
    model.experts.push(Experts {
        count: size("num_experts")?,
        slots: size("num_experts_per_tok")?,
        hidden,
        intermediate: size("moe_intermediate_size")?,
    });
    Ok(())
}
