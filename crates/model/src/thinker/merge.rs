//! The encoders' rows take the places of their placeholders.

use burn::tensor::{Tensor, s};
use burn_omni_quant::Embedding;

use super::VisionRows;
use crate::config::ThinkerConfig;
use crate::processor::Prompt;

/// Rows for the decoder.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Input of the first layer, `[rows, hidden]`.
    pub embeds: Tensor<2>,
    /// What is added to the outputs of the first layers, `[rows, hidden]` each and zero outside of pictures; empty
    /// without pictures.
    pub deepstack: Vec<Tensor<2>>,
}

impl Rows {
    /// Rows of text.
    #[must_use]
    pub fn text(embeds: Tensor<2>) -> Self {
        Self {
            embeds,
            deepstack: Vec::new(),
        }
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.embeds.dims()[0]
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows `range`.
    #[must_use]
    pub fn slice(&self, range: std::ops::Range<usize>) -> Self {
        let part = |x: &Tensor<2>| x.clone().slice(s![range.clone(), ..]);
        Self {
            embeds: part(&self.embeds),
            deepstack: self.deepstack.iter().map(part).collect(),
        }
    }
}

/// What the encoders made of a prompt's media.
pub(super) struct Encoded {
    /// `[audio rows, hidden]`
    pub(super) audio: Option<Tensor<2>>,
    pub(super) images: Option<VisionRows>,
    pub(super) videos: Option<VisionRows>,
}

/// Whose row a token is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Audio,
    Image,
    Video,
}

/// Consecutive tokens of one kind, and where their rows begin in what the encoder of the kind gave.
struct Run {
    kind: Kind,
    first: usize,
    rows: usize,
    /// First token of the run in the prompt.
    start: usize,
}

pub(super) fn merge(
    prompt: &Prompt,
    config: &ThinkerConfig,
    table: &Embedding,
    encoded: Encoded,
) -> Rows {
    let kind = |id: u32| match id {
        id if id == config.audio_token_id => Kind::Audio,
        id if id == config.image_token_id => Kind::Image,
        id if id == config.video_token_id => Kind::Video,
        _ => Kind::Text,
    };
    let runs = runs(prompt.ids.iter().map(|id| kind(*id)));
    let rows = |encoded: &Option<Tensor<2>>, run: &Run| {
        let rows = encoded
            .clone()
            .expect("a prompt has placeholders only for the media that it carries");
        rows.slice(s![run.first..run.first + run.rows, ..])
    };
    let images = encoded.images.as_ref().map(|x| x.rows.clone());
    let videos = encoded.videos.as_ref().map(|x| x.rows.clone());
    let embeds = runs.iter().map(|run| match run.kind {
        Kind::Text => table.forward(&prompt.ids[run.start..run.start + run.rows]),
        Kind::Audio => rows(&encoded.audio, run),
        Kind::Image => rows(&images, run),
        Kind::Video => rows(&videos, run),
    });
    let embeds = Tensor::cat(embeds.collect(), 0);

    let levels = [&encoded.images, &encoded.videos]
        .into_iter()
        .flatten()
        .map(|x| x.deepstack.len())
        .max();
    let [_, hidden] = embeds.dims();
    let deepstack = (0..levels.unwrap_or(0)).map(|level| {
        let level =
            |encoded: &Option<VisionRows>| encoded.as_ref().map(|x| x.deepstack[level].clone());
        let (images, videos) = (level(&encoded.images), level(&encoded.videos));
        let parts = runs.iter().map(|run| match run.kind {
            Kind::Image => rows(&images, run),
            Kind::Video => rows(&videos, run),
            Kind::Text | Kind::Audio => {
                Tensor::zeros([run.rows, hidden], (&embeds.device(), embeds.dtype()))
            }
        });
        Tensor::cat(parts.collect(), 0)
    });
    Rows {
        deepstack: deepstack.collect(),
        embeds,
    }
}

fn runs(kinds: impl Iterator<Item = Kind>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut taken = [0; 4];
    for (start, kind) in kinds.enumerate() {
        match runs.last_mut() {
            Some(run) if run.kind == kind => run.rows += 1,
            _ => runs.push(Run {
                kind,
                first: taken[kind as usize],
                rows: 1,
                start,
            }),
        }
        taken[kind as usize] += 1;
    }
    runs
}
