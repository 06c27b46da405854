//! A decoding step captured on the device.

use burn::tensor::{DType, Device, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use burn_omni_kernels::Buffer;
use burn_omni_kernels::decode::{Attend, Cache, FeedForward, Layer, RING, Routing, Step, TOKENS};
use burn_omni_kernels::few::{Rows, Weights};
use burn_omni_kernels::packed::tiles;
use cubecl::client::Graph;
use cubecl::prelude::*;

use super::buffers::flat;
use super::packed::{in_tiles, tiled};
use crate::Packed;
use crate::decode::{DecodeError, DecoderParts, FeedForwardParts, LayerParts, Matrices};

/// Numbers of a head.
const HEAD: usize = 128;

/// A step, captured, and how far it has come.
pub(crate) struct Captured {
    graph: Graph,
    step: Step,
    client: Client,
    capacity: usize,
    /// Rows that the caches held at the start.
    len: usize,
    /// Steps launched, and tokens read, since the start.
    launched: usize,
    read: usize,
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
        let [heads, kv_heads] = parts.heads;
        let cache = parts.layers.first()?.cache[0].dims();
        let fits = heads.is_multiple_of(kv_heads)
            && heads / kv_heads <= 8
            && cache[2] == HEAD
            && parts.inverse_frequency.len() == HEAD / 2;
        let client = primitive(parts.embedding.clone())?.client;
        if !fits || !tiles::runs_on(&client) {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "an epsilon is an f32 everywhere"
        )]
        let eps = parts.eps as f32;
        let layers: Option<Vec<Layer>> = parts.layers.into_iter().map(layer).collect();
        let step = Step::new(
            &client,
            rows(parts.embedding.unsqueeze())?,
            layers?,
            (f32s(parts.norm)?, eps),
            weights(parts.head)?,
            Attend::new(&client, parts.heads, eps, &parts.inverse_frequency),
        );
        let graph = capture(&client, &step).ok()?;
        Some(Self {
            graph,
            step,
            client,
            capacity: cache[0],
            len: 0,
            launched: 0,
            read: 0,
        })
    }

    pub(crate) const fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn start(&mut self, token: u32, len: usize, position: f32) {
        let rows = u32::try_from(len).expect("caches have less than 2^32 rows");
        self.step.control.start(&self.client, token, rows, position);
        (self.len, self.launched, self.read) = (len, 0, 0);
    }

    pub(crate) fn next_token(&mut self) -> Result<u32, DecodeError> {
        if self.launched == self.read {
            self.launch()?;
        }
        // The read is queued before the next step is, and waited for while that runs.
        let control = self.step.control.0.handle.clone();
        let client = self.client.clone();
        let words = client.read_async(vec![control]);
        if self.len + self.launched < self.capacity {
            self.launch()?;
        }
        let words = cubecl::future::block_on(words).map_err(failed)?;
        let token = u32::from_bytes(&words[0])[TOKENS + self.read % RING];
        self.read += 1;
        if token == u32::MAX {
            return Err(DecodeError::NotFinite);
        }
        Ok(token)
    }

    pub(crate) fn scores(&mut self) -> Result<Vec<f32>, DecodeError> {
        self.launch()?;
        self.read = self.launched;
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

fn failed(error: impl std::fmt::Display) -> DecodeError {
    DecodeError::Device(error.to_string())
}

/// Launches the step once, which compiles its kernels, and records it.
fn capture(client: &Client, step: &Step) -> Result<Graph, Box<dyn std::error::Error>> {
    client.graph_prepare()?;
    step.control.start(client, 0, 0, 0.0);
    step.launch(client);
    let warm = client.read_one(step.control.0.handle.clone());
    if let Err(error) = warm {
        // Unwinds what was prepared.
        drop(client.stop_capture());
        return Err(Box::new(error));
    }
    client.start_capture()?;
    step.launch(client);
    Ok(client.stop_capture()?)
}

fn layer(parts: LayerParts) -> Option<Layer> {
    let [first, second] = parts.norms;
    let [q_norm, k_norm] = parts.qk_norms;
    let [keys, values] = parts.cache;
    Some(Layer {
        norms: [f32s(first)?, f32s(second)?],
        qkv: weights(parts.qkv)?,
        qk_norms: [f32s(q_norm)?, f32s(k_norm)?],
        o_proj: weights(parts.o_proj)?,
        feed_forward: match parts.feed_forward {
            FeedForwardParts::Dense([gate_up, down]) => {
                FeedForward::Dense([weights(gate_up)?, weights(down)?])
            }
            FeedForwardParts::Sparse {
                router,
                top_k,
                normalize,
                experts: [gate_up, down],
            } => FeedForward::Sparse {
                routing: Routing {
                    experts: router.dims()[0],
                    top_k,
                    normalize,
                },
                router: rows(router.unsqueeze())?,
                experts: [weights(gate_up)?, weights(down)?],
            },
        },
        cache: Cache {
            keys: bf16s(keys)?,
            values: bf16s(values)?,
        },
    })
}

fn weights(matrices: Matrices) -> Option<Weights> {
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
fn rows(dense: Tensor<3>) -> Option<Rows> {
    let [_, rows, width] = dense.dims();
    width.is_multiple_of(8).then_some(())?;
    Some(Rows {
        buffer: bf16s(dense)?,
        rows,
        width,
    })
}

/// Numbers that are bf16, side by side.
fn bf16s<const D: usize>(x: Tensor<D>) -> Option<Buffer> {
    let x = primitive(x)?;
    (x.dtype == DType::BF16).then(|| flat(x))
}

fn f32s(x: Tensor<1>) -> Option<Buffer> {
    primitive(x.cast(DType::F32)).map(flat)
}

fn primitive<const D: usize>(x: Tensor<D>) -> Option<CubeTensor> {
    x.try_into_primitive::<CubeBackend>().ok()
}
