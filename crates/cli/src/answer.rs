//! An answer on its way from the engine to where it is wanted.

use std::path::{Path, PathBuf};
use std::task::Poll;
use std::time::Duration;

use anyhow::anyhow;
use burn_omni::{Answer, Error, Event, Speech, Stream, WavWriter, to_i16};

use crate::failure::Failure;
use crate::interrupt::Watch;
use crate::output;

/// How long Ctrl-C may wait.
const GLANCE: Duration = Duration::from_millis(50);

/// Where the samples go.
pub(crate) enum AudioOut {
    /// Nowhere.
    None,
    /// To a file that appears when it is whole.
    Wav {
        /// The file in the making.
        writer: WavWriter,
        /// Its final place.
        path: PathBuf,
    },
    /// To stdout as s16le.
    Raw,
}

impl AudioOut {
    /// Opens a file in the making.
    pub(crate) fn wav(path: &Path) -> Result<Self, Failure> {
        let writer = WavWriter::create(path, Speech::SAMPLE_RATE)?;
        let path = path.into();
        Ok(Self::Wav { writer, path })
    }

    fn write(&mut self, samples: &[f32]) -> Result<(), Failure> {
        match self {
            Self::None => Ok(()),
            Self::Wav { writer, .. } => Ok(writer.write(samples)?),
            Self::Raw => {
                let bytes: Vec<u8> = samples
                    .iter()
                    .flat_map(|x| to_i16(*x).to_le_bytes())
                    .collect();
                Ok(output::bytes(&bytes)?)
            }
        }
    }

    /// Ends what an answer that was stopped has spoken: a file with samples in it is whole as far as it goes.
    fn stop(self) -> Result<(), Failure> {
        match self {
            Self::Wav { writer, .. } if writer.samples() > 0 => Ok(writer.finish()?),
            _ => Ok(()),
        }
    }

    /// Moves the file to its place and gives its path.
    fn finish(self) -> Result<Option<PathBuf>, Failure> {
        let Self::Wav { writer, path } = self else {
            return Ok(None);
        };
        writer.finish()?;
        Ok(Some(path))
    }
}

/// An answer that reached its end.
pub(crate) struct Finished {
    pub(crate) answer: Answer,
    /// The file of the speech.
    pub(crate) path: Option<PathBuf>,
}

/// What happens to the work of an answer that Ctrl-C ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterInterrupt {
    /// It is waited for: the model will be used again.
    Wait,
    /// It ends with the program.
    Leave,
}

/// Gives an answer out: text to `say`, samples to `audio`. Ctrl-C ends it; the file then has what was spoken until then.
pub(crate) fn give(
    ask: impl FnOnce() -> Result<Stream, Error>,
    mut audio: AudioOut,
    after: AfterInterrupt,
    mut say: impl FnMut(&str) -> Result<(), Failure>,
) -> Result<Finished, Failure> {
    let watch = Watch::start();
    let mut stream = ask()?;
    let mut answer = None;
    loop {
        if watch.was_requested() {
            if after == AfterInterrupt::Leave {
                // Dropping it would wait for the step at hand, which can be the whole prompt.
                std::mem::forget(stream);
            }
            audio.stop()?;
            return Err(Failure::Interrupted);
        }
        match stream.next_within(GLANCE) {
            Poll::Pending => {}
            Poll::Ready(None) => break,
            Poll::Ready(Some(event)) => match event? {
                Event::Text(text) => say(&text)?,
                Event::Audio(samples) => audio.write(&samples)?,
                Event::Done(done) => answer = Some(*done),
            },
        }
    }
    let answer = answer.ok_or_else(|| anyhow!("internal: the answer has no end"))?;
    let path = audio.finish()?;
    Ok(Finished { answer, path })
}

/// Seconds of speech.
pub(crate) fn seconds(speech: &Speech) -> f64 {
    speech.samples as f64 / f64::from(Speech::SAMPLE_RATE)
}

/// Seconds of work for a second of speech, from the request to the last sample; `None` without speech.
pub(crate) fn real_time_factor(answer: &Answer) -> Option<f64> {
    let seconds = seconds(answer.speech.as_ref()?);
    (seconds > 0.0).then(|| answer.timings.total.as_secs_f64() / seconds)
}

/// The line that says where the speech is.
pub(crate) fn describe_speech(finished: &Finished) -> Option<String> {
    let (path, speech) = (finished.path.as_ref()?, finished.answer.speech.as_ref()?);
    let factor = real_time_factor(&finished.answer);
    let factor = factor
        .map(|factor| format!(", real-time factor {factor:.2}"))
        .unwrap_or_default();
    Some(format!(
        "{}: {:.2} s of speech{factor}",
        path.display(),
        seconds(speech)
    ))
}
