//! The loop of code2wav: frames of codes become packets of samples.

use std::sync::mpsc::Receiver;
use std::time::Duration;

use burn_omni_model::code2wav::{Code2Wav, Code2WavState};

use crate::numbers::finite;
use crate::pipeline::{Job, Spoken};
use crate::schedule::Stage;
use crate::stream::Stopped;
use crate::turns::Seat;
use crate::{Error, Event, SpeechRequest};

/// Code2wav at work on one answer.
pub(crate) struct Sound<'a> {
    job: &'a Job<'a>,
    seat: &'a Seat<'a>,
    code2wav: &'a Code2Wav,
    state: Code2WavState,
    waiting: Vec<Vec<u32>>,
    /// Frames of the next packet, and of the largest.
    size: usize,
    largest: usize,
    sounded: Sounded,
}

/// What the loop leaves.
#[derive(Default)]
pub(crate) struct Sounded {
    /// Number of samples that were given out.
    pub(crate) samples: usize,
    /// When the first ones were.
    pub(crate) first: Option<Duration>,
    pub(crate) busy: Duration,
}

impl<'a> Sound<'a> {
    /// # Panics
    /// When the model has no code2wav, which is found out before.
    pub(crate) fn new(job: &'a Job<'a>, seat: &'a Seat<'a>, speech: &SpeechRequest) -> Self {
        let model = job.stages.speech.as_ref();
        let code2wav = &model.expect("the request was checked").code2wav;
        Self {
            job,
            seat,
            code2wav,
            state: code2wav.state(),
            waiting: Vec::new(),
            size: speech.first_chunk,
            largest: speech.chunk,
            sounded: Sounded::default(),
        }
    }

    /// Gives out packets until the last frame.
    pub(crate) fn sound(mut self, spoken: &Receiver<Spoken>) -> Result<Sounded, Stopped> {
        // A talker that says no more without an end was ended.
        while let Spoken::Frame(codes) = self.seat.receive(spoken)? {
            self.waiting.push(codes);
            if self.waiting.len() >= self.size {
                // Packets grow as the player's reserve does.
                self.size = (2 * self.size).min(self.largest);
                self.give()?;
            }
        }
        self.give()?;
        self.sounded.busy = self.seat.busy();
        Ok(self.sounded)
    }

    /// Decodes the frames that wait and gives their samples out.
    fn give(&mut self) -> Result<(), Stopped> {
        let frames = std::mem::take(&mut self.waiting);
        if frames.is_empty() {
            return Ok(());
        }
        let (code2wav, state) = (self.code2wav, &mut self.state);
        let samples = self
            .seat
            .turn_of(frames.len(), || code2wav.push(state, &frames))?;
        let stage = Stage::Code2Wav.name();
        let samples = samples.map_err(|error| Error::Stage {
            stage,
            cause: error.to_string(),
        })?;
        finite(stage, &samples)?;
        let started = self.job.started;
        self.sounded.first.get_or_insert_with(|| started.elapsed());
        let count = samples.len();
        self.sounded.samples += count;
        self.seat.give(Event::Audio(samples))?;
        let frame = self.code2wav.samples_per_frame();
        self.job.progress.spoke([frames.len(), count], frame);
        self.seat.gave(frames.len(), self.size);
        Ok(())
    }
}
