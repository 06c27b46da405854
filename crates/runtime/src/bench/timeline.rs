//! What the loops of an answer did when, as a picture.

use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::schedule::{FRAME, Stage};
use crate::turns::Span;

/// Points of the picture: its width, that of the names, and the height of a lane.
const WIDTH: f64 = 1000.0;
const NAMES: f64 = 80.0;
const LANE: f64 = 34.0;
/// Most marks of the axis.
const MARKS: f64 = 10.0;
/// The lanes with their colours.
const LANES: [(Stage, &str, &str); 3] = [
    (Stage::Thinker, "thinker", "#4269d0"),
    (Stage::Talker, "talker", "#e8851f"),
    (Stage::Code2Wav, "code2wav", "#3ca951"),
];
const PLAYED: (&str, &str) = ("player", "#9498a0");

/// Samples that were given out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    /// When, since the answer was asked for.
    pub(super) at: Duration,
    pub(super) samples: usize,
}

/// What the loops of a spoken answer did.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// Begin and end of every unit of work, in seconds since the answer was asked for.
    spans: Vec<(Stage, [f64; 2])>,
    packets: Vec<Packet>,
}

impl Timeline {
    pub(super) fn new(asked: Instant, spans: Vec<Span>, packets: Vec<Packet>) -> Self {
        let since = |time: Instant| time.saturating_duration_since(asked).as_secs_f64();
        let spans = spans.into_iter();
        Self {
            spans: spans
                .map(|span| (span.stage, [since(span.start), since(span.end)]))
                .collect(),
            packets,
        }
    }

    /// The picture as SVG: a lane a loop with a bar a unit of work, and below them what a player that begins with the
    /// first packet has to play.
    #[must_use]
    pub fn svg(&self) -> String {
        let ends = self.spans.iter().map(|(_, [_, end])| *end);
        let length = ends.fold(1e-3, f64::max);
        let x = |seconds: f64| NAMES + (WIDTH - NAMES - 10.0) * (seconds / length).clamp(0.0, 1.0);
        let bottom = LANE * (LANES.len() + 1) as f64 + 10.0;
        let height = bottom + 30.0;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
        );
        let mut bar = |[start, end]: [f64; 2], lane: usize, colour: &str| {
            let (left, top) = (x(start), LANE * lane as f64 + 8.0);
            let width = (x(end) - left).max(0.3);
            let tall = LANE - 10.0;
            line(
                &mut svg,
                format_args!(
                    "<rect x=\"{left:.2}\" y=\"{top}\" width=\"{width:.2}\" height=\"{tall}\" fill=\"{colour}\"/>"
                ),
            );
        };
        for (lane, (stage, _, colour)) in LANES.iter().enumerate() {
            for (_, span) in self.spans.iter().filter(|(of, _)| of == stage) {
                bar(*span, lane, colour);
            }
        }
        for span in self.played() {
            bar(span, LANES.len(), PLAYED.1);
        }
        let names = LANES.iter().map(|(_, name, _)| *name).chain([PLAYED.0]);
        for (lane, name) in names.enumerate() {
            let y = LANE * lane as f64 + 24.0;
            line(
                &mut svg,
                format_args!("<text x=\"6\" y=\"{y}\">{name}</text>"),
            );
        }
        self.axis(&mut svg, length, x, bottom);
        svg + "</svg>\n"
    }

    /// The time below, and a line where the first sound was.
    fn axis(&self, svg: &mut String, length: f64, x: impl Fn(f64) -> f64, bottom: f64) {
        let step = step(length * 1e3);
        let y = bottom + 14.0;
        for mark in (0..)
            .map(|i| f64::from(i) * step)
            .take_while(|ms| *ms <= length * 1e3)
        {
            let at = x(mark / 1e3);
            line(
                svg,
                format_args!(
                    "<path d=\"M{at:.2} {bottom}v-4\" stroke=\"black\"/>\
                 <text x=\"{at:.2}\" y=\"{y}\" text-anchor=\"middle\">{mark} ms</text>"
                ),
            );
        }
        if let Some(first) = self.packets.first() {
            let (at, ms) = (x(first.at.as_secs_f64()), first.at.as_secs_f64() * 1e3);
            let y = y + 13.0;
            line(
                svg,
                format_args!(
                    "<path d=\"M{at:.2} 4V{bottom}\" stroke=\"black\" stroke-dasharray=\"3 3\"/>\
                 <text x=\"{at:.2}\" y=\"{y}\" text-anchor=\"middle\">first sound {ms:.0} ms</text>"
                ),
            );
        }
    }

    /// When a player has sound to play.
    fn played(&self) -> Vec<[f64; 2]> {
        let rate = f64::from(crate::Speech::SAMPLE_RATE);
        let mut played: Vec<[f64; 2]> = Vec::new();
        for packet in &self.packets {
            let (at, sound) = (packet.at.as_secs_f64(), packet.samples as f64 / rate);
            match played.last_mut() {
                Some([_, end]) if *end >= at => *end += sound,
                _ => played.push([at, at + sound]),
            }
        }
        played
    }
}

/// A step between marks of the axis, in the unit of its length: 1, 2 or 5 times a power of ten.
fn step(length: f64) -> f64 {
    let least = length.max(FRAME.as_secs_f64()) / MARKS;
    let power = 10_f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    steps
        .into_iter()
        .find(|step| *step >= least)
        .unwrap_or(least)
}

fn line(svg: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(svg, "{line}").expect("a text takes all that is written");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_of_work_is_a_bar_and_gaps_of_the_player_are_seen() {
        let at = Duration::from_millis;
        let asked = Instant::now();
        let span = |stage, start, end| Span {
            stage,
            start: asked + at(start),
            end: asked + at(end),
        };
        let spans = vec![
            span(Stage::Thinker, 0, 10),
            span(Stage::Talker, 10, 15),
            span(Stage::Code2Wav, 15, 20),
            span(Stage::Code2Wav, 180, 200),
        ];
        let packet = |ms, samples| Packet {
            at: at(ms),
            samples,
        };
        let timeline = Timeline::new(asked, spans, vec![packet(20, 1920), packet(200, 2400)]);
        let played = timeline.played();
        assert_eq!(played.len(), 2, "the player ran dry once: {played:?}");
        assert!((played[0][1] - 0.1).abs() < 1e-9 && (played[1][0] - 0.2).abs() < 1e-9);
        let svg = timeline.svg();
        for (_, name, colour) in LANES {
            assert!(svg.contains(name) && svg.contains(colour), "{name}");
        }
        // The ground, four units of work and two times of sound.
        assert_eq!(svg.matches("<rect").count(), 7);
        assert!(svg.contains("first sound 20 ms") && svg.contains(">200 ms<"));
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn the_axis_has_a_few_round_marks() {
        for (length, expected) in [(9.0, 1.0), (100.0, 10.0), (101.0, 20.0), (430.0, 50.0)] {
            assert!((step(length) - expected).abs() < 1e-9, "{length}");
        }
    }
}
