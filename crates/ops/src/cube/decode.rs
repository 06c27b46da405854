//! A decoding step captured on the device.

use std::time::{Duration, Instant};

use burn::tensor::{DType, Device, Tensor};
use burn_cubecl::CubeBackend;
use burn_omni_kernels::Buffer;
use burn_omni_kernels::choose::{self, Chooser, Chosen, MOST};
use burn_omni_kernels::control::{RING, TOKENS};
use burn_omni_kernels::decode::{
    Attend, Cache, FeedForward, Layer, Node, Router, Routing, Stack, Step,
};
use burn_omni_kernels::few::{Rows, Weights};
use burn_omni_kernels::packed::tiles;
use cubecl::client::Graph;
use cubecl::prelude::*;

use super::buffers::{e4m3, flat, primitive};
use super::packed::{in_tiles, tiled};
use crate::decode::{
    Choosing, DecodeError, DecoderParts, FeedForwardParts, LayerParts, MOST_SCORES, Matrices,
    NodeTime, Place, SharedParts, StackParts,
};
use crate::{KvStore, Packed};

const _: () = assert!(
    MOST == MOST_SCORES,
    "what the kernels choose among is what users are told"
);

/// Numbers of a head.
const HEAD: usize = 128;
/// Experts of a row at most: a plane chooses them.
const MOST_CHOSEN: usize = 32;

/// Steps whose tokens are read together: a read costs as much as two launches between two graphs.
const TOGETHER: usize = 2;
/// How often launches are repeated whose time is measured.
const REPLAYS: u32 = 20;
/// The launches of a layer.
const NODES: [(&str, Node); 6] = [
    ("qkv", Node::Qkv),
    ("attention", Node::Attend),
    ("o_proj", Node::OProj),
    ("router", Node::Router),
    ("gate_up", Node::GateUp),
    ("down", Node::Down),
];

/// A step, captured, and how far it has come.
pub(crate) struct Captured {
    graph: Graph,
    step: Step,
    client: Client,
    capacity: usize,
    /// Rows that the caches held at the start.
    len: usize,
    /// Steps that may be taken since then before their tokens are asked for.
    left: usize,
    /// Steps launched, those whose tokens are on the host, and tokens given, since the start.
    launched: usize,
    known: usize,
    given: usize,
    /// The last [`RING`] tokens.
    tokens: Vec<u32>,
}

impl std::fmt::Debug for Captured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Captured")
            .field("capacity", &self.capacity)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl Captured {
    pub(crate) fn runs_on(device: &Device) -> bool {
        let probe = primitive(Tensor::<1>::empty([1], device));
        probe.is_some_and(|probe| tiles::runs_on(&probe.client))
    }

    pub(crate) fn new(parts: DecoderParts) -> Option<Self> {
        let capacity = parts.stack.layers.first()?.attention.cache[0].dims()[0];
        let Stacked { client, stack } = Stacked::new(parts.stack)?;
        let embedding = rows(parts.embedding.unsqueeze())?;
        let step = Step::new(&client, embedding, stack, scored(parts.head)?);
        step.stack
            .control
            .start(&client, 0, last_row(capacity), 0.0);
        let graph = capture(&client, &step.logits, || step.launch(&client))?;
        Some(Self {
            graph,
            step,
            client,
            capacity,
            len: 0,
            left: 0,
            launched: 0,
            known: 0,
            given: 0,
            tokens: vec![0; RING],
        })
    }

    pub(crate) fn chosen(scores: Tensor<1>, choosing: &Choosing, count: usize) -> Option<Vec<u32>> {
        let vocabulary = scores.dims()[0];
        let scores = primitive(scores.cast(DType::F32)).filter(|_| vocabulary <= MOST)?;
        let client = scores.client.clone();
        let scores = flat(scores);
        let chooser = Chooser::new(&client, vocabulary);
        chooser.start(&client, &on_device(choosing));
        let codes = Buffer::numbers(&client, &vec![0; count]);
        for slot in 0..count {
            chooser.launch(&client, &scores, Chosen::Code(&codes, slot));
        }
        let bytes = client.read_one(codes.handle).ok()?;
        Some(u32::from_bytes(&bytes)[..count].to_vec())
    }

    #[allow(
        clippy::unnecessary_wraps,
        reason = "there are builds that know no rules"
    )]
    pub(crate) fn by_rules(
        scores: &[f32],
        mut choosing: Choosing,
        count: usize,
    ) -> Option<Vec<u32>> {
        let tokens = (0..count).map(|_| {
            let token = choose::rules::next(scores, &on_device(&choosing), 0, [0.0; 2]);
            choosing.seen.push(token);
            choosing.draws += 1;
            choosing.bans = choosing.bans.saturating_sub(1);
            token
        });
        Some(tokens.collect())
    }

    pub(crate) const fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn start(&mut self, place: Place, choosing: &Choosing) {
        let Place {
            token,
            len,
            position,
            left,
        } = place;
        assert!(len < self.capacity, "the caches have room for the token");
        let Step { stack, chooser, .. } = &self.step;
        let control = &stack.control;
        control.start(&self.client, token, rows_of(len), position);
        chooser.start(&self.client, &on_device(choosing));
        self.len = len;
        self.left = left.min(self.capacity - len);
        (self.launched, self.known, self.given) = (0, 0, 0);
    }

    pub(crate) fn next_token(&mut self) -> Result<u32, DecodeError> {
        if self.given == self.known {
            self.read()?;
        }
        let token = self.tokens[self.given % RING];
        self.given += 1;
        if token == u32::MAX {
            return Err(DecodeError::NotFinite);
        }
        Ok(token)
    }

    /// Reads the tokens of all steps that were launched.
    fn read(&mut self) -> Result<(), DecodeError> {
        if self.launched == self.known {
            self.launch()?;
        }
        // The read is queued before the next steps are, and waited for while they run. A queue of its own would not know of
        // what a graph writes.
        let known = self.launched;
        let control = self.step.stack.control.0.handle.clone();
        let client = self.client.clone();
        let words = client.read_async(vec![control]);
        for _ in 0..TOGETHER {
            if self.launched < self.left {
                self.launch()?;
            }
        }
        let words = cubecl::future::block_on(words).map_err(failed)?;
        self.tokens
            .copy_from_slice(&u32::from_bytes(&words[0])[TOKENS..TOKENS + RING]);
        self.known = known;
        Ok(())
    }

    pub(crate) fn times(&mut self, len: usize) -> Result<Vec<NodeTime>, DecodeError> {
        let step = &self.step;
        let client = &self.client;
        step.stack
            .control
            .start(client, 0, rows_of(len), len as f32);
        let mut times = Vec::new();
        let mut time = |what, count, launch: &dyn Fn()| {
            if count == 0 {
                return Ok(());
            }
            let each = time(client, &step.logits, launch)? / count as u32;
            times.push(NodeTime { what, count, each });
            Ok(())
        };
        time("entry", 1, &|| step.launch_entry(client))?;
        for (what, node) in NODES {
            let launch = || step.stack.launch_node(client, node);
            time(what, step.stack.count(node), &launch)?;
        }
        time("head", 1, &|| step.launch_head(client))?;
        time("choice", 1, &|| step.launch_choice(client))?;
        Ok(times)
    }

    pub(crate) fn scores(&mut self) -> Result<Vec<f32>, DecodeError> {
        self.launch()?;
        (self.known, self.given) = (self.launched, self.launched);
        let logits = self.step.logits.handle.clone();
        let bytes = self.client.read_one(logits).map_err(failed)?;
        Ok(f32::from_bytes(&bytes)[..self.step.logits.len()].to_vec())
    }

    fn launch(&mut self) -> Result<(), DecodeError> {
        self.launched += 1;
        #[expect(unsafe_code, reason = "the graph works on the buffers of `step`")]
        // SAFETY: `step` holds them as long as the graph.
        unsafe { self.graph.replay() }.map_err(failed)
    }
}

/// The time of launches that were captured for themselves, as often as they are in a step.
fn time(client: &Client, written: &Buffer, launch: &dyn Fn()) -> Result<Duration, DecodeError> {
    let graph = capture(client, written, launch).ok_or_else(|| failed("nothing was captured"))?;
    let replay = |times: u32| -> Result<Duration, DecodeError> {
        let start = Instant::now();
        for _ in 0..times {
            #[expect(unsafe_code, reason = "the graph works on the buffers of the step")]
            // SAFETY: the caller holds them.
            unsafe { graph.replay() }.map_err(failed)?;
        }
        cubecl::future::block_on(client.sync()).map_err(failed)?;
        Ok(start.elapsed())
    };
    replay(1)?;
    Ok(replay(REPLAYS)? / REPLAYS)
}

/// How tokens are chosen, as the kernels take it.
pub(super) fn on_device(choosing: &Choosing) -> choose::Choosing {
    let low = |x: u64| (x & u64::from(u32::MAX)) as u32;
    let most = |x: usize| u32::try_from(x).unwrap_or(u32::MAX);
    choose::Choosing {
        temperature: choosing.temperature,
        top_k: most(choosing.top_k),
        top_p: choosing.top_p,
        penalty: choosing.penalty,
        seed: [low(choosing.seed), low(choosing.seed >> 32)],
        stage: choosing.stage,
        draws: choosing.draws,
        seen: choosing.seen.clone(),
        banned: choosing.banned.clone(),
        bans: most(choosing.bans),
    }
}

/// Where the launch before a capture writes, so that what the caches hold stays.
pub(super) fn last_row(capacity: usize) -> u32 {
    rows_of(capacity - 1)
}

/// Rows of a cache.
pub(super) fn rows_of(rows: usize) -> u32 {
    u32::try_from(rows).expect("caches have less than 2^32 rows")
}

pub(super) fn failed(error: impl std::fmt::Display) -> DecodeError {
    DecodeError::Device(error.to_string())
}

/// Records launches, which write `written` among others; twice if something else on the device disturbed the first record.
pub(super) fn capture(client: &Client, written: &Buffer, launch: impl Fn()) -> Option<Graph> {
    (0..2).find_map(|_| record(client, written, &launch).ok())
}

/// Launches once, which compiles kernels, and records.
fn record(
    client: &Client,
    written: &Buffer,
    launch: &impl Fn(),
) -> Result<Graph, Box<dyn std::error::Error>> {
    client.graph_prepare()?;
    launch();
    if let Err(error) = client.read_one(written.handle.clone()) {
        // Unwinds what was prepared.
        drop(client.stop_capture());
        return Err(Box::new(error));
    }
    client.start_capture()?;
    launch();
    Ok(client.stop_capture()?)
}

/// A stack on its device.
pub(super) struct Stacked {
    pub(super) client: Client,
    pub(super) stack: Stack,
}

impl Stacked {
    pub(super) fn new(parts: StackParts) -> Option<Self> {
        let [heads, kv_heads] = parts.heads;
        let width = parts.norm.dims()[0];
        let fits = heads.is_multiple_of(kv_heads)
            && heads / kv_heads <= 8
            && parts.layers.first()?.attention.cache[0].dims()[2] == HEAD
            && parts.inverse_frequency.len() == HEAD / 2;
        let client = primitive(parts.norm.clone())?.client;
        if !fits || !tiles::runs_on(&client) {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "an epsilon is an f32 everywhere"
        )]
        let eps = parts.eps as f32;
        let layers: Option<Vec<Layer>> = parts.layers.into_iter().map(layer).collect();
        let attend = Attend::new(&client, parts.heads, eps, &parts.inverse_frequency);
        let stack = Stack::new(&client, width, layers?, (f32s(parts.norm)?, eps), attend);
        Some(Self { client, stack })
    }
}

fn layer(parts: LayerParts) -> Option<Layer> {
    let attention = parts.attention;
    let [q_norm, k_norm] = attention.qk_norms;
    let [keys, values] = attention.cache;
    Some(Layer {
        norms: [f32s(attention.norm)?, f32s(parts.norm)?],
        qkv: weights(attention.qkv)?,
        qk_norms: [f32s(q_norm)?, f32s(k_norm)?],
        o_proj: weights(attention.o_proj)?,
        feed_forward: feed_forward(parts.feed_forward)?,
        cache: Cache {
            keys: stored(keys)?,
            values: stored(values)?,
        },
    })
}

pub(super) fn feed_forward(parts: FeedForwardParts) -> Option<FeedForward> {
    let (router, top_k, normalize, [gate_up, down], shared) = match parts {
        FeedForwardParts::Dense([gate_up, down]) => {
            return Some(FeedForward::Dense([gated(gate_up)?, weights(down)?]));
        }
        FeedForwardParts::Sparse {
            router,
            top_k,
            normalize,
            experts,
            shared,
        } => (router, top_k, normalize, experts, shared),
    };
    (top_k <= MOST_CHOSEN).then_some(())?;
    let (gate, shared) = match shared {
        None => (None, None),
        Some(SharedParts {
            gate,
            matrices: [gate_up, down],
        }) => (
            Some(rows(gate.unsqueeze())?),
            Some([gated(gate_up)?, weights(down)?]),
        ),
    };
    let routing = Routing {
        experts: router.dims()[0],
        top_k,
        normalize,
    };
    Some(FeedForward::Sparse {
        router: Router {
            routing,
            weights: rows(router.unsqueeze())?,
            shared: gate,
        },
        experts: [gated(gate_up)?, weights(down)?],
        shared,
    })
}

/// Gates and what they gate: packed ones must have been packed as such, since their rows take turns in tiles.
fn gated(matrices: Matrices) -> Option<Weights> {
    if let Matrices::Packed(packed) = &matrices {
        packed.spec().gated.then_some(())?;
    }
    weights(matrices)
}

/// A head with so few rows that the device chooses among their scores.
pub(super) fn scored(head: Matrices) -> Option<Weights> {
    weights(head).filter(|head| head.rows() <= MOST)
}

pub(super) fn weights(matrices: Matrices) -> Option<Weights> {
    match matrices {
        Matrices::Dense(dense) => rows(dense).map(Weights::Rows),
        Matrices::Packed(packed) => in_tiles_of(&packed),
    }
}

fn in_tiles_of(packed: &Packed) -> Option<Weights> {
    let (codes, scales, gains) = packed.parts();
    let spec = packed.spec();
    let codes = codes.try_into_primitive::<CubeBackend>().ok()?;
    let scales = scales.try_into_primitive::<CubeBackend>().ok()?;
    let gains = primitive(gains)?;
    in_tiles(&gains.client.clone(), &spec)
        .then(|| Weights::Tiles(tiled((codes, scales, gains), &spec)))
}

/// Matrices of bf16 `[matrices, rows, width]` whose rows are whole vectors.
pub(super) fn rows(dense: Tensor<3>) -> Option<Rows> {
    let [_, rows, width] = dense.dims();
    width.is_multiple_of(8).then_some(())?;
    Some(Rows {
        buffer: bf16s(dense)?,
        rows,
        width,
    })
}

/// Keys or values in a form that the step reads.
pub(super) fn stored(rows: KvStore) -> Option<Buffer> {
    match rows {
        KvStore::Float(rows) => bf16s(rows),
        KvStore::E4m3(words) => {
            let words = words.try_into_primitive::<CubeBackend>().ok()?;
            Some(e4m3(words).buffer)
        }
    }
}

/// Numbers that are bf16, side by side.
fn bf16s<const D: usize>(x: Tensor<D>) -> Option<Buffer> {
    let x = primitive(x)?;
    (x.dtype == DType::BF16).then(|| flat(x))
}

fn f32s(x: Tensor<1>) -> Option<Buffer> {
    primitive(x.cast(DType::F32)).map(flat)
}
