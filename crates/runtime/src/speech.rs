//! stub
use crate::engine::{Loader, Model};
use crate::pipeline::Thought;
use crate::stream::{Sink, Stopped};
use crate::{Answer, Error, SpeechRequest};
use burn_omni_model::config::{Config, SpecialIds};
use burn_omni_model::thinker::Thinker;
use std::time::Instant;
#[derive(Debug)]
pub(crate) struct SpeechModel;
impl SpeechModel {
    pub(crate) fn load(
        _: &Loader<'_>,
        _: &Config,
        _: &Thinker,
        _: &SpecialIds,
    ) -> Result<Self, Error> {
        Ok(Self)
    }
}
pub(crate) struct Speaker<'a>(&'a Model);
impl<'a> Speaker<'a> {
    pub(crate) fn new(model: &'a Model, _: &SpeechRequest, _: u64) -> Result<Self, Error> {
        Ok(Self(model))
    }
    pub(crate) fn speak(
        self,
        _: &Thought,
        _: &Sink,
        _: Instant,
        _: &mut Answer,
    ) -> Result<(), Stopped> {
        let _ = self.0;
        Ok(())
    }
}
