//! What is asked: the conversation of a file, the media and the prompt of the command line or of stdin.

use std::fs;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use burn_omni::{Content, Error, Messages, Request};
use burn_omni_model::processor::media::{MediaError, MediaProblem};
use burn_omni_model::processor::{MediaKind, ProcessorError, TextError};

use crate::args::{Medium, RunArgs};
use crate::failure::Failure;

/// What is asked.
#[derive(Debug)]
pub(super) struct Question {
    system: Option<String>,
    /// Earlier messages and the folder that their paths start from.
    conversation: Option<(Messages, PathBuf)>,
    media: Vec<Medium>,
    prompt: Option<String>,
}

impl Question {
    /// Collects the question and looks whether its files are there, before a model is loaded for it.
    pub(super) fn read(args: &RunArgs) -> Result<Self, Failure> {
        let conversation = args
            .messages
            .as_deref()
            .map(read_conversation)
            .transpose()?;
        let question = Self {
            system: args.system.clone(),
            prompt: read_prompt(args)?,
            media: args.media.0.clone(),
            conversation,
        };
        let asked = question
            .conversation
            .as_ref()
            .is_some_and(|(c, _)| !c.messages.is_empty());
        if !asked && question.media.is_empty() && question.prompt.is_none() {
            return Err(Failure::usage(
                "nothing is asked: no prompt, no media, no messages",
                "say it with -p TEXT, pipe it in, or pass --messages, --audio, --image or --video",
            ));
        }
        question.check_files()?;
        Ok(question)
    }

    pub(super) fn into_request(self) -> Request {
        let mut request = Request::new();
        if let Some(system) = self.system {
            request = request.system(system);
        }
        if let Some((conversation, folder)) = self.conversation {
            request = request.conversation(conversation, &folder);
        }
        let media = self
            .media
            .into_iter()
            .map(|Medium { kind, path }| match kind {
                MediaKind::Audio => Content::audio_file(path),
                MediaKind::Image => Content::image_file(path),
                MediaKind::Video => Content::video_file(path),
            });
        let parts: Vec<Content> = media.chain(self.prompt.map(Content::text)).collect();
        if parts.is_empty() {
            request
        } else {
            request.user(parts)
        }
    }

    fn check_files(&self) -> Result<(), Failure> {
        let typed = self.media.iter().map(|medium| medium.path.clone());
        let said = self.conversation.iter().flat_map(|(conversation, folder)| {
            conversation.media().map(|(_, path)| folder.join(path))
        });
        for path in typed.chain(said) {
            if let Err(cause) = fs::metadata(&path) {
                let error = MediaError::new(path.display().to_string(), MediaProblem::Read(cause));
                return Err(Error::from(ProcessorError::from(error)).into());
            }
        }
        Ok(())
    }
}

/// The prompt of the command line, else of a stdin that nobody types into.
fn read_prompt(args: &RunArgs) -> Result<Option<String>, Failure> {
    if let Some(prompt) = &args.prompt {
        return Ok(Some(prompt.clone()).filter(|prompt| !prompt.is_empty()));
    }
    if args.messages.is_some() || io::stdin().is_terminal() {
        return Ok(None);
    }
    let text = read_stdin("the prompt")?;
    let text = text.trim_end_matches(['\n', '\r']);
    Ok((!text.trim().is_empty()).then(|| text.to_owned()))
}

fn read_stdin(what: &str) -> Result<String, Failure> {
    let mut text = String::new();
    io::stdin()
        .read_to_string(&mut text)
        .with_context(|| format!("stdin: cannot read {what}"))?;
    Ok(text)
}

fn read_conversation(file: &Path) -> Result<(Messages, PathBuf), Failure> {
    let from_stdin = file == Path::new("-");
    let (name, text) = if from_stdin {
        ("stdin".into(), read_stdin("the messages")?)
    } else {
        let text = fs::read_to_string(file);
        let text = text.with_context(|| format!("{}: cannot be read", file.display()))?;
        (file.display().to_string(), text)
    };
    let conversation = Messages::from_json(&text).map_err(|error| in_file(&name, &error))?;
    let folder = if from_stdin { None } else { file.parent() };
    Ok((conversation, folder.unwrap_or(Path::new("")).into()))
}

fn in_file(name: &str, error: &TextError) -> Failure {
    let message = format!("{name}: {error}");
    match error.hint() {
        Some(hint) => Failure::advised(message, hint),
        None => anyhow::anyhow!(message).into(),
    }
}
