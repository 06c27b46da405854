//! Rotary position embedding, in both spellings.

use std::fmt::Debug;

use serde::Serialize;
use serde_json::json;

use super::ConfigError;
use super::section::Section;

/// Rotary position embedding: half-split pairs, unscaled angles, interleaved sections.
///
/// Written as `rope_parameters`; read from there or from `rope_theta` with `rope_scaling`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RopeConfig {
    /// Base of the angles: pair `i` turns by `rope_theta^(-2i/head_dim)` a position.
    pub rope_theta: f64,
    /// Pairs that follow time, height and width; `None` for one-dimensional positions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mrope_section: Option<[usize; 3]>,
}

/// Whether the positions of a decoder have one dimension or three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Positions {
    /// One number a token.
    Plain,
    /// Time, height and width.
    Sections,
}

impl RopeConfig {
    pub(super) fn read(
        section: &Section<'_>,
        positions: Positions,
        head_dim: usize,
    ) -> Result<Self, ConfigError> {
        let scaling = section.optional_section("rope_scaling")?;
        let parameters = section.optional_section("rope_parameters")?;
        let nested: Vec<&Section<'_>> = scaling.iter().chain(&parameters).collect();
        for place in &nested {
            place.only("rope_type", &json!("default"))?;
            place.only("type", &json!("default"))?;
            place.only("interleaved", &json!(true))?;
            place.only("mrope_interleaved", &json!(true))?;
        }
        let mut places = vec![section];
        places.extend(&nested);
        let theta = agreed(&places, "rope_theta", Section::optional_positive)?;
        let (_, rope_theta) = section.required("rope_theta", theta)?;
        let mrope_section = match positions {
            Positions::Plain => None,
            Positions::Sections => {
                let found = agreed(&nested, "mrope_section", Section::optional_sizes3)?;
                let (place, sections) = section.required("rope_scaling.mrope_section", found)?;
                check_sections(place, sections, section, head_dim)?;
                Some(sections)
            }
        };
        Ok(Self {
            rope_theta,
            mrope_section,
        })
    }
}

/// The value of a key that may stand in several places, which then must agree.
fn agreed<'s, 'a, T: PartialEq + Debug>(
    places: &[&'s Section<'a>],
    key: &str,
    read: impl Fn(&Section<'a>, &str) -> Result<Option<T>, ConfigError>,
) -> Result<Option<(&'s Section<'a>, T)>, ConfigError> {
    let mut first: Option<(&'s Section<'a>, T)> = None;
    for place in places {
        let Some(value) = read(place, key)? else {
            continue;
        };
        match &first {
            Some((other, expected)) if *expected != value => {
                let expected = format!("the value of `{}`, {expected:?}", other.field(key));
                return Err(place.contradiction(key, format!("{value:?}"), expected));
            }
            Some(_) => {}
            None => first = Some((place, value)),
        }
    }
    Ok(first)
}

fn check_sections(
    place: &Section<'_>,
    sections: [usize; 3],
    decoder: &Section<'_>,
    head_dim: usize,
) -> Result<(), ConfigError> {
    let pairs = head_dim / 2;
    let wrong = |expected: String| {
        Err(place.contradiction("mrope_section", format!("{sections:?}"), expected))
    };
    let sum = sections.iter().sum::<usize>();
    if sum != pairs {
        let head_dim = decoder.reference("head_dim", head_dim);
        return wrong(format!(
            "a sum of {pairs}, half of {head_dim}; the sum is {sum}"
        ));
    }
    // Height takes pairs 1, 4, 7, … and width 2, 5, 8, …, so neither may run past the end.
    if sections[1..].iter().any(|&section| section * 3 > pairs) {
        return wrong(format!(
            "height and width of at most {} pairs each",
            pairs / 3
        ));
    }
    Ok(())
}
