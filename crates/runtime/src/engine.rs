//! A loaded model.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::StreamId;
use burn_omni_model::config::Config;
use burn_omni_model::processor::{Message, Processor, Prompt};
use burn_omni_model::thinker::Thinker;
use burn_omni_ops::decode::{MOST_SCORES, multiplies_bf16};
use burn_omni_quant::Warnings;

use crate::budget::Budget;
use crate::decoding::Captured;
use crate::kept::Kept;
pub(crate) use crate::loading::Loader;
use crate::loading::{Opened, close};
use crate::pipeline::{Job, Question};
use crate::progress::Progress;
use crate::rehearsal::compile_ahead;
use crate::request::Media;
use crate::speech::SpeechModel;
use crate::stages::{Stages, speaker, voices};
use crate::stream::{Sink, Stopped};
use crate::turns::Turns;
use crate::{
    Answer, Conversation, EngineConfig, Error, Event, MemoryPlan, Messages, Overflow, Request,
    Sampling, Stream,
};

/// A loaded model, shared by all its requests.
#[derive(Clone, Debug)]
pub struct Engine {
    model: Arc<Model>,
    turns: Arc<Turns>,
    budget: Arc<Budget>,
}

/// What an answer is made for.
pub(crate) struct Asking<'a> {
    pub(crate) sink: &'a Sink,
    /// When it was asked.
    pub(crate) started: Instant,
    pub(crate) progress: &'a Progress,
}

/// What every request reads.
#[derive(Debug)]
pub(crate) struct Model {
    dir: PathBuf,
    processor: Processor,
    pub(crate) stages: Stages,
    plan: MemoryPlan,
}

/// Captures the steps of all components; the thinker's first, so that the kernels of its step lie side by side: see
/// benches/NOTES.md.
pub(crate) fn capture(
    thinker: &Thinker,
    speech: Option<&mut SpeechModel>,
    context: usize,
) -> Option<Captured> {
    let captured = Captured::new(thinker, context);
    if let Some(speech) = speech {
        speech.capture();
    }
    captured
}

/// What to say where a device captures steps, but none that choose among as many tokens as the model has.
fn too_many(config: &Config) -> Option<String> {
    let tokens = config.thinker.text_config.vocab_size;
    (tokens > MOST_SCORES).then(|| {
        format!(
            "vocab_size {tokens}: kernels are launched one by one, which is slow: captured steps choose among at most \
             {MOST_SCORES} tokens"
        )
    })
}

impl Engine {
    /// Loads a checkpoint.
    ///
    /// On an NVIDIA GPU steps are captured at the end; a request to another engine on the same GPU may fail meanwhile.
    ///
    /// # Errors
    /// When the checkpoint, its config or its side files cannot be used; nothing was loaded then.
    pub fn load(engine: EngineConfig) -> Result<Self, Error> {
        let opened = Opened::read(&engine)?;
        let speech = engine.speech && opened.config.can_speak();
        let captures = multiplies_bf16(&engine.device);
        let plan = engine.plan(&opened, speech, captures)?;
        // All components are checked before any is read, so that the last one's fault costs no waiting.
        let warnings = Warnings::new();
        let dry = Loader::new(&opened.checkpoint, &engine, speech, &warnings).dry();
        opened.components(&dry, speech)?;
        if let Some(problem) = dry.into_problems().into_iter().next() {
            engine.tell(&warnings);
            return Err(problem);
        }
        compile_ahead(&engine, &opened, speech, plan.context);
        let loader = Loader::new(&opened.checkpoint, &engine, speech, &warnings);
        let stream = StreamId::allocate();
        let loaded = stream.executes(|| opened.components(&loader, speech));
        drop(loader);
        engine.tell(&warnings);
        let (mut thinker, mut speech) = loaded?;
        thinker.store_kv(engine.kv_dtype.format());
        let captured = stream.executes(|| capture(&thinker, speech.as_mut(), plan.context));
        let spoken = speech.as_ref().is_none_or(SpeechModel::is_captured);
        // Caches are then made for every answer, and larger.
        let plan = if captures && captured.is_none() {
            engine.plan(&opened, speech.is_some(), false)?
        } else {
            plan
        };
        engine.warn_of_cut(opened.context, plan.context);
        if captures && !(captured.is_some() && spoken) {
            let known = too_many(&opened.config);
            engine.warning(known.as_deref().unwrap_or(
                "kernels are launched one by one, which is slow: no captured step for these weights, or no memory",
            ));
        }
        let limit = engine.limit();
        let dir = opened.checkpoint.dir().to_owned();
        close(opened.checkpoint);
        let stages = Stages {
            config: opened.config,
            ids: opened.ids,
            captured,
            thinker,
            speech,
            context: plan.context,
            kv: engine.kv_dtype,
            device: engine.device,
            stream,
        };
        Ok(Self {
            turns: Arc::new(stages.turns()),
            budget: Arc::new(stages.budget(&plan, limit)),
            model: Arc::new(Model {
                dir,
                processor: opened.processor,
                stages,
                plan,
            }),
        })
    }

    /// Everything that would keep a checkpoint from being loaded, in the order in which it would be met: files, config,
    /// then the names, shapes and dtypes of every component's tensors. No weight is read.
    #[must_use]
    pub fn check(engine: EngineConfig) -> Vec<Error> {
        let checked = || -> Result<_, Error> {
            let opened = Opened::read(&engine)?;
            let speech = engine.speech && opened.config.can_speak();
            let warnings = Warnings::new();
            let loader = Loader::new(&opened.checkpoint, &engine, speech, &warnings).dry();
            let built = opened.components(&loader, speech);
            engine.tell(&warnings);
            let mut problems = loader.into_problems();
            problems.extend(built.err());
            let captures = multiplies_bf16(&engine.device);
            if let Some(warning) = too_many(&opened.config).filter(|_| captures) {
                engine.warning(&warning);
            }
            problems.extend(engine.plan(&opened, speech, captures).err());
            Ok(problems)
        };
        checked().unwrap_or_else(|error| vec![error])
    }

    /// Answers a request on threads of its own: one for text, and two more for speech.
    ///
    /// # Errors
    /// When the request asks for something that this model cannot do, or the system has no thread for it; what only its media
    /// show comes from the stream, and so does it when other answers leave no room for this one.
    pub fn generate(&self, mut request: Request) -> Result<Stream, Error> {
        self.accepts(&request)?;
        let engine = self.clone();
        let started = Instant::now();
        Stream::spawn(move |sink| {
            let (question, _) = engine.read(&mut request)?;
            let asking = Asking {
                sink,
                started,
                progress: &Progress::default(),
            };
            let answer = engine.answer(&request, asking, question, &mut Kept::default())?;
            Ok(sink.send(Event::Done(Box::new(answer)))?)
        })
    }

    /// A conversation whose turns know of one another.
    #[must_use]
    pub fn conversation(&self) -> Conversation {
        Conversation::new(self.clone())
    }

    /// Checks a request as far as that can be done before its media are read.
    pub(crate) fn accepts(&self, request: &Request) -> Result<(), Error> {
        request.check()?;
        match &request.speech {
            Some(speech) => self.check_voice(speech.voice.as_deref()),
            None => Ok(()),
        }
    }

    /// Reads the media and makes the prompt. The request's messages are taken, and come back with media that are prepared.
    pub(crate) fn read(
        &self,
        request: &mut Request,
    ) -> Result<(Question, Vec<Message<Media>>), Error> {
        let (prompt, messages) = self.model.read(request)?;
        let question = Question {
            prompt: Arc::new(prompt),
            text: Some(self.model.processor.tokenizer().stream(true)),
        };
        Ok((question, messages))
    }

    /// Answers.
    pub(crate) fn answer(
        &self,
        request: &Request,
        asking: Asking<'_>,
        question: Question,
        kept: &mut Kept,
    ) -> Result<Answer, Stopped> {
        let Asking {
            sink,
            started,
            progress,
        } = asking;
        let stages = &self.model.stages;
        let rows = stages.cache_rows(request, &question.prompt, kept);
        let some = stages.captures(request, rows);
        let lease = self.budget.lease(rows, some)?;
        let job = Job {
            stages,
            turns: &self.turns,
            request,
            sink,
            progress,
            started,
            captured: lease.captured(),
        };
        job.run(question, kept)
    }

    /// Room for the caches of answers and conversations.
    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// The text of tokens, as far as its characters are whole.
    pub(crate) fn text(&self, ids: &[u32]) -> String {
        let mut text = self.model.processor.tokenizer().stream(true);
        ids.iter().filter_map(|id| text.push(*id)).collect()
    }

    /// The same engine with turns of its own.
    #[cfg(test)]
    pub(crate) fn with_turns(&self, turns: Turns) -> Self {
        Self {
            model: self.model.clone(),
            turns: Arc::new(turns),
            budget: self.budget.clone(),
        }
    }

    /// The same engine with room of its own for caches that are not captured.
    #[cfg(test)]
    pub(crate) fn with_room(&self, bytes: u64) -> Self {
        let budget = Budget::new(self.model.stages.row_bytes(), bytes);
        Self {
            model: self.model.clone(),
            turns: self.turns.clone(),
            budget: Arc::new(budget),
        }
    }

    /// What every request reads.
    pub(crate) fn model(&self) -> &Model {
        &self.model
    }

    /// Whether tokens come from a captured step: see [`burn_omni_ops::decode::Decoder`].
    #[must_use]
    pub fn is_captured(&self) -> bool {
        self.model.stages.captured.is_some()
    }

    /// The model's config.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.model.stages.config
    }

    /// The voices, when the model can speak.
    #[must_use]
    pub fn voices(&self) -> Vec<String> {
        voices(self.config())
    }

    /// Checks that the model can speak in this voice, or in the checkpoint's own.
    ///
    /// # Errors
    /// When it cannot speak, or has no such voice.
    pub fn check_voice(&self, voice: Option<&str>) -> Result<(), Error> {
        self.model.speaker(voice).map(|_| ())
    }

    /// How tokens are chosen when a request does not say it: as the checkpoint says, else greedily.
    #[must_use]
    pub fn sampling(&self) -> Sampling {
        self.model.stages.sampling()
    }

    /// The memory that the model takes.
    #[must_use]
    pub fn memory(&self) -> &MemoryPlan {
        &self.model.plan
    }

    /// Whether the checkpoint has no chat template, so that the usual one stands in.
    #[must_use]
    pub fn template_is_fallback(&self) -> bool {
        self.model.processor.template_is_fallback()
    }
}

impl Model {
    /// Prepares the media that are new and makes the prompt, of as many messages as there is room for. The request's
    /// messages are taken, and come back with media that are prepared.
    fn read(&self, request: &mut Request) -> Result<(Prompt, Vec<Message<Media>>), Error> {
        let sound = request.use_audio_in_video;
        let messages = std::mem::take(&mut request.conversation.messages);
        let tools = std::mem::take(&mut request.conversation.tools);
        let prepared = Messages { messages, tools }.map_media(|kind, medium| match medium {
            Media::Prepared(features) => Ok(features),
            Media::Decoded(medium) => self.processor.features(&medium),
            Media::File(path) => {
                let medium = self.processor.read(kind, &path, sound)?;
                self.processor.features(&medium)
            }
        });
        let mut conversation = prepared?;
        let context = self.stages.context;
        let room = match request.on_overflow {
            Overflow::Error => 1,
            Overflow::DropOldest => self.stages.max_tokens(request).min(context / 4).max(1),
        };
        let prompt = loop {
            let media = conversation.media().map(|(_, features)| features);
            let prompt = self.processor.lay_out(&conversation, media)?;
            let length = prompt.ids.len();
            if length + room <= context {
                break prompt;
            }
            let drops = request.on_overflow == Overflow::DropOldest;
            if drops && conversation.drop_oldest() {
                continue;
            }
            if length < context {
                break prompt;
            }
            let prompt = length;
            return Err(Error::PromptTooLong { prompt, context });
        };
        let kept = |_, features| Ok::<_, Infallible>(Media::Prepared(features));
        let Ok(conversation) = conversation.map_media(kept);
        Ok((prompt, conversation.messages))
    }

    /// The codec id of a voice, or of the checkpoint's own choice.
    fn speaker(&self, voice: Option<&str>) -> Result<u32, Error> {
        let id = speaker(&self.dir, &self.stages.config, voice)?;
        match self.stages.speech {
            Some(_) => Ok(id),
            None => Err(Error::CannotSpeak {
                dir: self.dir.clone(),
                missing: "talker loaded",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vocabulary_of_which_no_step_chooses_is_named() {
        let mut config = Config::preset("qwen3-omni-30b-a3b").unwrap();
        config.thinker.text_config.vocab_size = MOST_SCORES;
        assert_eq!(too_many(&config), None);
        config.thinker.text_config.vocab_size += 1;
        let said = too_many(&config).unwrap();
        assert!(said.starts_with("vocab_size 262144: "), "{said}");
    }
}
