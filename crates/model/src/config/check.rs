//! Contradictions between the components.

use super::{Code2WavConfig, Config, ConfigError, Sources, TalkerConfig, ThinkerConfig};

/// Compares what the components say about each other.
pub(super) fn across(config: &Config, sources: &Sources<'_>) -> Result<(), ConfigError> {
    if let Some(talker) = &config.talker {
        talker_with_thinker(config, talker, sources)?;
        if let Some(code2wav) = &config.code2wav {
            talker_with_code2wav(talker, code2wav, sources)?;
        }
    }
    Ok(())
}

fn talker_with_thinker(
    config: &Config,
    talker: &TalkerConfig,
    sources: &Sources<'_>,
) -> Result<(), ConfigError> {
    let Some(section) = &sources.talker else {
        return Ok(());
    };
    let thinker = &config.thinker;
    let text = sources.thinker.section("text_config")?;
    let (key, width) = ("thinker_hidden_size", talker.thinker_hidden_size);
    let hidden = thinker.text_config.hidden_size;
    if width != hidden {
        return Err(section.contradiction(key, width, text.reference("hidden_size", hidden)));
    }
    let (key, layer) = ("accept_hidden_layer", talker.accept_hidden_layer);
    let layers = thinker.text_config.num_hidden_layers;
    if layer > layers {
        let expected = format!("at most {}", text.reference("num_hidden_layers", layers));
        return Err(section.contradiction(key, layer, expected));
    }
    let (key, merge) = (
        "spatial_merge_size",
        thinker.vision_config.spatial_merge_size,
    );
    if talker.spatial_merge_size != merge {
        let expected = sources
            .thinker
            .section("vision_config")?
            .reference(key, merge);
        return Err(section.contradiction(key, talker.spatial_merge_size, expected));
    }
    media_ids(thinker, talker, sources)
}

/// The talker finds media rows in the thinker's tokens, so both must call them the same.
fn media_ids(
    thinker: &ThinkerConfig,
    talker: &TalkerConfig,
    sources: &Sources<'_>,
) -> Result<(), ConfigError> {
    let Some(section) = &sources.talker else {
        return Ok(());
    };
    let ids = [
        (
            "audio_token_id",
            talker.audio_token_id,
            thinker.audio_token_id,
        ),
        (
            "image_token_id",
            talker.image_token_id,
            thinker.image_token_id,
        ),
        (
            "video_token_id",
            talker.video_token_id,
            thinker.video_token_id,
        ),
        (
            "audio_start_token_id",
            talker.audio_start_token_id,
            thinker.audio_start_token_id,
        ),
        (
            "vision_start_token_id",
            talker.vision_start_token_id,
            thinker.vision_start_token_id,
        ),
    ];
    match ids
        .into_iter()
        .find(|(_, found, expected)| found != expected)
    {
        Some((key, found, expected)) => {
            Err(section.contradiction(key, found, sources.thinker.reference(key, expected)))
        }
        None => Ok(()),
    }
}

fn talker_with_code2wav(
    talker: &TalkerConfig,
    code2wav: &Code2WavConfig,
    sources: &Sources<'_>,
) -> Result<(), ConfigError> {
    let (Some(section), Some(other)) = (&sources.code2wav, &sources.talker) else {
        return Ok(());
    };
    if code2wav.num_quantizers != talker.num_code_groups {
        let expected = other.reference("num_code_groups", talker.num_code_groups);
        return Err(section.contradiction("num_quantizers", code2wav.num_quantizers, expected));
    }
    let codes = talker.code_predictor_config.vocab_size;
    if code2wav.codebook_size != codes {
        let predictor = other.section("code_predictor_config")?;
        let expected = predictor.reference("vocab_size", codes);
        return Err(section.contradiction("codebook_size", code2wav.codebook_size, expected));
    }
    Ok(())
}
