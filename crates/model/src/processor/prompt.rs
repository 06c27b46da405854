//! A conversation with its media becomes what the thinker reads.

use std::path::Path;

use burn_omni_quant::checkpoint::Checkpoint;
use image::RgbImage;

use super::media::{
    LogMel, LogMelExtractor, MediaConfig, MediaError, Patches, Pcm, Video, VideoConfig,
    audio_token_count, image_patches, read_audio, read_image, read_video, read_video_audio,
    resample, video_patches,
};
use super::{
    ChatTemplate, Conversation, Grid, MediaKind, MediaSpan, Medium, Positions, RenderOptions,
    SpecialTokens, TextError, Tokenizer, expand, positions,
};
use crate::config::ThinkerConfig;

/// A decoded medium of a conversation.
#[derive(Clone, Debug)]
pub enum MediaInput {
    /// A clip at any rate.
    Audio(Pcm),
    /// A picture.
    Image(RgbImage),
    /// A film, with its sound where that is to be heard.
    Video(Video, Option<Pcm>),
}

/// A medium as the encoders take it. Its clones share the numbers, so a conversation that keeps them prepares every medium
/// once.
#[derive(Clone, Debug)]
pub struct Features {
    medium: Medium,
    audio: Option<LogMel>,
    image: Option<Patches>,
    video: Option<Patches>,
}

impl Features {
    /// The log-mel of a clip, or of a film whose sound is heard.
    #[must_use]
    pub fn audio(&self) -> Option<&LogMel> {
        self.audio.as_ref()
    }
}

/// What the thinker reads.
#[derive(Clone, Debug, Default)]
pub struct Prompt {
    /// Token ids with a placeholder for every encoder row, `[seq]`.
    pub ids: Vec<u32>,
    /// Positions of the rows.
    pub positions: Positions,
    /// Clips and sound tracks, in order of appearance.
    pub audio: Vec<LogMel>,
    /// Pictures, in order of appearance.
    pub images: Vec<Patches>,
    /// Films, in order of appearance.
    pub videos: Vec<Patches>,
    /// The sizes of all media, in order of appearance.
    pub media: Vec<Medium>,
    /// Where the rows of the media are.
    pub spans: Vec<MediaSpan>,
}

/// Why a request cannot be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessorError {
    /// Text, template or tokenizer.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A medium.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// The checkpoint lacks a file.
    #[error("{dir}: no {file}", dir = .dir.display())]
    MissingFile {
        /// The checkpoint.
        dir: std::path::PathBuf,
        /// Name of the file.
        file: &'static str,
    },
    /// The settings of the media are not those of the model.
    #[error(
        "preprocessor_config.json: `{field}` is {found}, but `{other}` in config.json is {expected}"
    )]
    Mismatch {
        /// Field of `preprocessor_config.json`.
        field: &'static str,
        /// Its value.
        found: usize,
        /// Field of `config.json`.
        other: &'static str,
        /// Its value.
        expected: usize,
    },
    /// A file cannot be read.
    #[error("{path}: cannot be read: {cause}", path = .path.display())]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// The reason given by the operating system.
        cause: std::io::Error,
    },
}

impl ProcessorError {
    /// What the user can do about it, in one line.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Text(error) => error.hint(),
            Self::Media(error) => error.hint(),
            Self::MissingFile { file, .. } => Some(format!(
                "copy {file} of the original release into the folder"
            )),
            Self::Mismatch { .. } => Some("both files must be of the same model".into()),
            Self::Io { .. } => None,
        }
    }
}

/// The sizes that both files state must agree: features of one size would meet weights of another.
fn agree(media: &MediaConfig, config: &ThinkerConfig) -> Result<(), ProcessorError> {
    let (audio, vision) = (&config.audio_config, &config.vision_config);
    let pairs = [
        (
            "feature_size",
            media.audio.feature_size,
            "num_mel_bins",
            audio.num_mel_bins,
        ),
        (
            "patch_size",
            media.image.patch_size,
            "patch_size",
            vision.patch_size,
        ),
        (
            "temporal_patch_size",
            media.image.temporal_patch_size,
            "temporal_patch_size",
            vision.temporal_patch_size,
        ),
        (
            "merge_size",
            media.image.merge_size,
            "spatial_merge_size",
            vision.spatial_merge_size,
        ),
        // The number of rows of a clip is counted in chunks of this many frames.
        (
            "n_window (as the release has it)",
            50,
            "n_window",
            audio.n_window,
        ),
    ];
    match pairs
        .into_iter()
        .find(|(_, found, _, expected)| found != expected)
    {
        None => Ok(()),
        Some((field, found, other, expected)) => Err(ProcessorError::Mismatch {
            field,
            found,
            other,
            expected,
        }),
    }
}

/// Tokenizer, chat template and the settings of the media.
pub struct Processor {
    tokenizer: Tokenizer,
    template: ChatTemplate,
    media: MediaConfig,
    video: VideoConfig,
    mel: LogMelExtractor,
    tokens: SpecialTokens,
}

impl std::fmt::Debug for Processor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Processor")
            .field("media", &self.media)
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}

impl Processor {
    /// Reads the side files of a checkpoint.
    ///
    /// # Errors
    /// When one is missing or cannot be used.
    pub fn load(checkpoint: &Checkpoint, config: &ThinkerConfig) -> Result<Self, ProcessorError> {
        const PREPROCESSOR: &str = "preprocessor_config.json";
        let dir = |file: &str| match checkpoint.file(file).as_deref().and_then(Path::parent) {
            Some(dir) => dir.to_owned(),
            None => checkpoint.dir().to_owned(),
        };
        let missing = || ProcessorError::MissingFile {
            dir: checkpoint.dir().into(),
            file: PREPROCESSOR,
        };
        let path = checkpoint.file(PREPROCESSOR).ok_or_else(missing)?;
        let text =
            std::fs::read_to_string(&path).map_err(|cause| ProcessorError::Io { path, cause })?;
        let media = MediaConfig::from_json(&text)?;
        agree(&media, config)?;
        let tokenizer = Tokenizer::load(&dir("tokenizer_config.json"))?;
        let template = ChatTemplate::load(&dir("tokenizer_config.json"))?;
        Ok(Self {
            mel: LogMelExtractor::new(&media.audio),
            tokens: special_tokens(config),
            video: VideoConfig::default(),
            tokenizer,
            template,
            media,
        })
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Whether the checkpoint has no chat template, so that the usual one stands in.
    #[must_use]
    pub fn template_is_fallback(&self) -> bool {
        self.template.is_fallback()
    }

    /// Reads a medium from a file; `sound` says whether a film's sound is to be heard.
    ///
    /// # Errors
    /// When the file cannot be read as a medium of this kind.
    pub fn read(
        &self,
        kind: MediaKind,
        path: &Path,
        sound: bool,
    ) -> Result<MediaInput, ProcessorError> {
        Ok(match kind {
            MediaKind::Audio => MediaInput::Audio(read_audio(path)?),
            MediaKind::Image => MediaInput::Image(read_image(path)?),
            MediaKind::Video => {
                let sound = if sound { read_video_audio(path)? } else { None };
                MediaInput::Video(read_video(path, &self.video, &self.media.image)?, sound)
            }
        })
    }

    /// Renders, tokenizes and expands a conversation whose next turn is the assistant's.
    ///
    /// # Errors
    /// When a medium or the text cannot be used.
    pub fn prepare(
        &self,
        conversation: &Conversation<MediaInput>,
    ) -> Result<Prompt, ProcessorError> {
        let media = conversation.media();
        let features = media.map(|(_, medium)| self.features(medium));
        let features: Vec<Features> = features.collect::<Result<_, _>>()?;
        self.lay_out(conversation, &features)
    }

    /// The same with the features of all media, in order of appearance.
    ///
    /// # Errors
    /// When the text cannot be used.
    pub fn lay_out<'a, M>(
        &self,
        conversation: &Conversation<M>,
        features: impl IntoIterator<Item = &'a Features>,
    ) -> Result<Prompt, ProcessorError> {
        let mut prompt = Prompt::default();
        for features in features {
            prompt.media.push(features.medium);
            prompt.audio.extend(features.audio.clone());
            prompt.images.extend(features.image.clone());
            prompt.videos.extend(features.video.clone());
        }
        let options = RenderOptions {
            tools: conversation.tools.clone(),
            add_generation_prompt: true,
            ..RenderOptions::default()
        };
        let text = self.template.render(&conversation.messages, &options)?;
        let ids = self.tokenizer.encode(&text)?;
        let expanded = expand(&ids, &prompt.media, &self.tokens)?;
        (prompt.ids, prompt.spans) = (expanded.ids, expanded.spans);
        prompt.positions = positions(&prompt.ids, &prompt.media, &self.tokens)?;
        Ok(prompt)
    }

    /// The features of a medium: log-mel, patches or both.
    ///
    /// # Errors
    /// When the medium cannot be used.
    pub fn features(&self, medium: &MediaInput) -> Result<Features, ProcessorError> {
        let grid = |patches: &Patches| Grid {
            t: patches.grid[0],
            h: patches.grid[1],
            w: patches.grid[2],
        };
        let none = |medium| Features {
            medium,
            audio: None,
            image: None,
            video: None,
        };
        Ok(match medium {
            MediaInput::Audio(pcm) => {
                let (mel, tokens) = self.hear(pcm)?;
                Features {
                    audio: Some(mel),
                    ..none(Medium::Audio { tokens })
                }
            }
            MediaInput::Image(image) => {
                let patches = image_patches(image, &self.media.image)?;
                let grid = grid(&patches);
                Features {
                    image: Some(patches),
                    ..none(Medium::Image { grid })
                }
            }
            MediaInput::Video(video, sound) => {
                let video = video_patches(video, &self.video, &self.media.image)?;
                let heard = sound.as_ref().map(|pcm| self.hear(pcm)).transpose()?;
                let (audio, audio_tokens) = heard.unzip();
                let medium = Medium::Video {
                    grid: grid(&video.patches),
                    second_per_grid: video.second_per_grid,
                    audio_tokens,
                };
                Features {
                    audio,
                    video: Some(video.patches),
                    ..none(medium)
                }
            }
        })
    }

    /// A clip with its number of encoder rows.
    fn hear(&self, pcm: &Pcm) -> Result<(LogMel, usize), ProcessorError> {
        let rate = u32::try_from(self.media.audio.sampling_rate)
            .expect("checked when the config was read");
        let mel = self.mel.extract(&resample(pcm, rate)?)?;
        let tokens = audio_token_count(mel.frames);
        Ok((mel, tokens))
    }
}

/// The ids that the thinker's prompt is laid out with.
#[must_use]
pub fn special_tokens(config: &ThinkerConfig) -> SpecialTokens {
    SpecialTokens {
        audio: config.audio_token_id,
        image: config.image_token_id,
        video: config.video_token_id,
        audio_start: config.audio_start_token_id,
        audio_end: config.audio_end_token_id,
        vision_start: config.vision_start_token_id,
        vision_end: config.vision_end_token_id,
        position_id_per_seconds: config.position_id_per_seconds as f32,
        spatial_merge_size: config.vision_config.spatial_merge_size,
    }
}
