//! The talker's prompt as rows.

use burn::tensor::{Int, Tensor, TensorData, s};

use super::Talker;
use super::turns::{Heard, Turns};

/// Rows of the thinker's prompt.
#[derive(Clone, Debug)]
pub struct ThinkerRows {
    /// Input embeddings `[rows, thinker_hidden]`.
    pub embeds: Tensor<2>,
    /// Hidden states of layer `accept_hidden_layer`, `[rows, thinker_hidden]`; read at media rows only.
    pub hidden: Tensor<2>,
}

/// The text rows of the three marks of speech, the same for all prompts: `[1, hidden]` each.
#[derive(Clone, Debug)]
pub struct SpeechMarks {
    /// `<tts_pad>`: there is no text left.
    pub pad: Tensor<2>,
    /// `<tts_text_bos>`: the text begins.
    pub bos: Tensor<2>,
    /// `<tts_text_eod>`: the text ends.
    pub eos: Tensor<2>,
}

/// What a prompt is made of.
#[derive(Clone, Debug)]
pub struct TalkerPrompt<'a> {
    /// The turns of the thinker's prompt.
    pub turns: &'a Turns,
    /// The rows of the thinker's prompt.
    pub thinker: ThinkerRows,
    /// How the reply begins.
    pub reply: ReplyStart<'a>,
}

/// How a reply begins.
#[derive(Clone, Debug)]
pub struct ReplyStart<'a> {
    /// Thinker embedding of the first spoken token, `[1, thinker_hidden]`.
    pub first: Tensor<2>,
    /// The marks of speech.
    pub marks: &'a SpeechMarks,
    /// Codec token of the voice.
    pub speaker: u32,
}

impl Talker {
    /// The rows of text tokens: those that are added to the feedback of a frame, one a frame.
    ///
    /// # Shapes
    /// - embeds: `[tokens, thinker_hidden]`, thinker embeddings
    /// - output: `[tokens, hidden]`
    #[must_use]
    pub fn text_rows(&self, embeds: Tensor<2>) -> Tensor<2> {
        self.text_projection.forward(embeds)
    }

    /// The marks of speech.
    ///
    /// # Shapes
    /// - embeds: `[3, thinker_hidden]`, thinker embeddings of `<tts_pad>`, `<tts_text_bos>`, `<tts_text_eod>`
    #[must_use]
    pub fn marks(&self, embeds: Tensor<2>) -> SpeechMarks {
        let rows = self.text_rows(embeds);
        let row = |i: usize| rows.clone().slice(s![i..=i, ..]);
        SpeechMarks {
            pad: row(0),
            bos: row(1),
            eos: row(2),
        }
    }

    /// The rows of the user's turns.
    ///
    /// # Shapes
    /// - output: `[turns.user().len(), hidden]`
    #[must_use]
    pub fn user_rows(&self, turns: &Turns, thinker: ThinkerRows) -> Tensor<2> {
        let device = thinker.embeds.device();
        let take = |rows: Tensor<2>, which: Vec<i64>| {
            let count = which.len();
            let which = Tensor::<1, Int>::from_data(TensorData::new(which, [count]), &device);
            rows.select(0, which)
        };
        let rows_of = |heard: Heard| -> Vec<i64> {
            let rows = turns.user().iter().filter(|(_, h)| *h == heard);
            rows.map(|(row, _)| *row as i64).collect()
        };
        let (text, media) = (rows_of(Heard::Text), rows_of(Heard::Media));
        let texts = text.len() as i64;
        if media.is_empty() {
            return self.text_rows(take(thinker.embeds, text));
        }
        let media_rows = self.hidden_projection.forward(take(thinker.hidden, media));
        if text.is_empty() {
            return media_rows;
        }
        let rows = Tensor::cat(
            vec![self.text_rows(take(thinker.embeds, text)), media_rows],
            0,
        );
        // [texts + media, hidden], all text first: back into the order of the prompt
        let (mut next_text, mut next_media) = (0..texts, texts..);
        let order = turns.user().iter().filter_map(|(_, heard)| match heard {
            Heard::Text => next_text.next(),
            Heard::Media => next_media.next(),
        });
        take(rows, order.collect())
    }

    /// The rows that begin the reply; all but the last depend on the voice alone.
    ///
    /// # Shapes
    /// - header: `[3, thinker_hidden]`, thinker embeddings of the rows [`Turns::header`]
    /// - output: `[9, hidden]`
    #[must_use]
    pub fn reply_rows(&self, header: Tensor<2>, start: ReplyStart<'_>) -> Tensor<2> {
        let config = &self.config;
        let codes = [
            config.codec_nothink_id,
            config.codec_think_bos_id,
            config.codec_think_eos_id,
            start.speaker,
            config.codec_pad_id,
            config.codec_bos_id,
        ];
        let text = [
            start.marks.pad.clone().repeat_dim(0, codes.len() - 2),
            start.marks.bos.clone(),
            self.text_rows(start.first),
        ];
        // [codes, hidden]
        let coded = Tensor::cat(text.into(), 0) + self.codec_embedding.forward(&codes);
        Tensor::cat(vec![self.text_rows(header), coded], 0)
    }

    /// The whole prompt: the user's turns, then the begin of the reply.
    ///
    /// # Shapes
    /// - output: `[turns.talker_rows(), hidden]`
    #[must_use]
    pub fn prompt_rows(&self, prompt: TalkerPrompt<'_>) -> Tensor<2> {
        let TalkerPrompt {
            turns,
            thinker,
            reply,
        } = prompt;
        let header = thinker.embeds.clone().slice(s![turns.header(), ..]);
        let reply = self.reply_rows(header, reply);
        if turns.user().is_empty() {
            return reply;
        }
        Tensor::cat(vec![self.user_rows(turns, thinker), reply], 0)
    }
}
