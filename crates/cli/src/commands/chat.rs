//! `burn-omni chat`: a conversation in the terminal.

mod line;

use std::io::{self, BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use burn_omni::{Conversation, Message, Messages, Request, Role, SpeechRequest};
use burn_omni_model::processor::{Content, MediaKind};

use self::line::{HELP, Line};
use super::load::{Loaded, Voice, load, sampling};
use crate::answer::{self, AfterInterrupt, AudioOut};
use crate::args::ChatArgs;
use crate::failure::Failure;
use crate::interrupt;
use crate::output::{self, Output};

/// A conversation and what the next message is made of.
struct Chat<'a> {
    args: &'a ChatArgs,
    output: &'a Output,
    loaded: Loaded,
    conversation: Conversation,
    /// What was said, with the names of its files.
    said: Messages,
    /// Media of the next message.
    attached: Vec<(MediaKind, String)>,
    voice: Option<String>,
    /// Number of the next file of speech.
    next_file: usize,
}

/// What happens after a line.
enum Next {
    Go,
    Quit,
}

/// Holds a conversation until the user leaves.
pub(crate) fn chat(args: ChatArgs, output: &Output) -> Result<(), Failure> {
    let voice = match &args.voice {
        Some(voice) => Voice::Wanted(Some(voice.clone())),
        None => Voice::Possible,
    };
    let loaded = load(&args.model, voice, output)?;
    interrupt::quits_at_prompt();
    let mut chat = Chat {
        args: &args,
        output,
        conversation: loaded.engine.conversation(),
        loaded,
        said: Messages::default(),
        attached: Vec::new(),
        voice: args.voice.clone(),
        next_file: 1,
    };
    chat.reset()?;
    let interactive = io::stdin().is_terminal();
    if interactive {
        output.note("Type a message, /help for commands, /quit to leave.");
    }
    for line in prompted_lines(interactive, output) {
        let line = line.context("stdin cannot be read")?;
        match chat.take(&line) {
            Ok(Next::Go) => {}
            Ok(Next::Quit) => return Ok(()),
            Err(failure) if failure.is_broken_pipe() => return Err(failure),
            // One turn failed or was stopped; the conversation goes on.
            Err(failure) => failure.print(),
        }
    }
    if interactive {
        output.note("");
    }
    Ok(())
}

/// The lines of stdin, each asked for with `> ` when somebody types them.
fn prompted_lines(interactive: bool, output: &Output) -> impl Iterator<Item = io::Result<String>> {
    let mut lines = io::stdin().lock().lines();
    std::iter::from_fn(move || {
        if interactive {
            output.note_part("> ");
        }
        lines.next()
    })
}

impl Chat<'_> {
    fn take(&mut self, line: &str) -> Result<Next, Failure> {
        match Line::parse(line)
            .map_err(|message| Failure::advised(message, "/help lists the commands"))?
        {
            Line::Say(text) if text.is_empty() && self.attached.is_empty() => {}
            Line::Say(text) => self.answer(text)?,
            Line::Attach(kind, path) => self.attach(kind, path)?,
            Line::Voice(name) => self.choose_voice(name)?,
            Line::Save(path) => self.save(path)?,
            Line::Reset => {
                self.reset()?;
                self.output.note("The conversation starts anew.");
            }
            Line::Help => self.output.note(HELP),
            Line::Quit => return Ok(Next::Quit),
        }
        Ok(Next::Go)
    }

    /// Says the attached media and `text` to the model and shows its answer.
    fn answer(&mut self, text: &str) -> Result<(), Failure> {
        let media = std::mem::take(&mut self.attached);
        let mut parts: Vec<Content> = media
            .into_iter()
            .map(|(kind, path)| Content::from_medium(kind, path))
            .collect();
        let message = if parts.is_empty() {
            Message::text(Role::User, text)
        } else {
            parts.extend((!text.is_empty()).then(|| Content::Text(text.into())));
            Message::parts(Role::User, parts)
        };
        let mut written = false;
        let outcome = self.generate(&message, &mut written);
        if written {
            output::data("\n")?;
        }
        // Without an answer the question was not asked either.
        let answer = self.conversation.last_answer()?;
        if written && !answer.is_empty() {
            let answer = Message::text(Role::Assistant, answer);
            self.said.messages.extend([message, answer]);
        }
        match outcome {
            Err(Failure::Interrupted) => {
                self.output.note("(stopped)");
                Ok(())
            }
            outcome => outcome,
        }
    }

    fn generate(&mut self, message: &Message, written: &mut bool) -> Result<(), Failure> {
        let audio = if self.voice.is_some() {
            AudioOut::wav(&self.next_path())?
        } else {
            AudioOut::None
        };
        let say = |text: &str| {
            *written = true;
            Ok(output::data(text)?)
        };
        let request = self.request(message);
        let ask = || self.conversation.send(request);
        let finished = answer::give(ask, audio, AfterInterrupt::Wait, say)?;
        if let Some(line) = answer::describe_speech(&finished) {
            self.output.note(format!("({line})"));
        }
        Ok(())
    }

    fn request(&self, message: &Message) -> Request {
        // The first question brings the instructions.
        let said = &self.said.messages;
        let begun = said.iter().any(|message| message.role != Role::System);
        let mut messages = if begun { Vec::new() } else { said.clone() };
        messages.push(message.clone());
        let tools = Vec::new();
        let mut request = Request::new()
            .conversation(Messages { messages, tools }, Path::new(""))
            .seed(self.args.model.seed)
            .on_overflow(self.args.model.on_overflow.into());
        if let Some(sampling) = sampling(&self.args.text, &self.loaded.engine) {
            request = request.sampling(sampling);
        }
        if let Some(tokens) = self.args.text.max_tokens {
            request = request.max_tokens(tokens);
        }
        if let Some(voice) = &self.voice {
            request = request.speech(SpeechRequest {
                voice: Some(voice.clone()),
                ..SpeechRequest::default()
            });
        }
        request
    }

    /// The next `answer-NNN.wav` that does not exist.
    fn next_path(&mut self) -> PathBuf {
        loop {
            let path = PathBuf::from(format!("answer-{:03}.wav", self.next_file));
            if !path.exists() {
                return path;
            }
            self.next_file += 1;
        }
    }

    fn attach(&mut self, kind: MediaKind, path: &str) -> Result<(), Failure> {
        // Absolute, so that a saved conversation can be read from anywhere.
        let whole = std::path::absolute(path).with_context(|| format!("`{path}` is no path"))?;
        std::fs::metadata(&whole).with_context(|| format!("`{path}` cannot be read"))?;
        let whole = whole.into_os_string().into_string();
        let whole =
            whole.map_err(|_| anyhow!("`{path}` lies in a folder whose name is no text"))?;
        self.attached.push((kind, whole));
        self.output.note(format!(
            "{kind} attached; say something about it, or send it alone with an empty line"
        ));
        Ok(())
    }

    fn choose_voice(&mut self, name: &str) -> Result<(), Failure> {
        let voices = self.loaded.engine.voices();
        if name == "off" {
            self.voice = None;
            self.output.note("Answers are text only.");
            return Ok(());
        }
        // The same errors as those of `--voice`.
        self.loaded
            .engine
            .check_voice((!name.is_empty()).then_some(name))?;
        if name.is_empty() {
            self.output
                .note(format!("voices: {}, off", voices.join(", ")));
            return Ok(());
        }
        self.voice = Some(name.into());
        self.output.note(format!(
            "Answers are spoken by {name}, into answer-001.wav and so on."
        ));
        Ok(())
    }

    fn save(&self, path: &str) -> Result<(), Failure> {
        let json = serde_json::to_string_pretty(&self.said.to_value()).context("internal")?;
        std::fs::write(path, json + "\n").with_context(|| format!("{path}: cannot be written"))?;
        let messages = self.said.messages.len();
        self.output.note(format!(
            "{path}: {messages} messages; continue with `burn-omni run --messages {path}`"
        ));
        Ok(())
    }

    fn reset(&mut self) -> Result<(), Failure> {
        self.attached.clear();
        self.conversation.reset()?;
        let system = self
            .args
            .system
            .iter()
            .map(|text| Message::text(Role::System, text));
        self.said.messages = system.collect();
        Ok(())
    }
}
