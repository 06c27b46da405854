//! `--audio`, `--image` and `--video`, in the order in which they were typed.

use std::path::PathBuf;

use burn_omni_model::processor::MediaKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};

/// A medium of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Medium {
    pub(crate) kind: MediaKind,
    pub(crate) path: PathBuf,
}

/// The media of the command line, in order across the three kinds.
///
/// By hand because the derived form keeps the order within a flag only.
#[derive(Clone, Debug, Default)]
pub(crate) struct MediaArgs(pub(crate) Vec<Medium>);

const FLAGS: [(MediaKind, &str, &str); 3] = [
    (
        MediaKind::Audio,
        "Something to hear: wav, flac, mp3, ogg or m4a; may be repeated",
        "Media come in the order in which they are typed, across all kinds, and before the prompt.",
    ),
    (
        MediaKind::Image,
        "Something to see: png, jpeg, webp or gif; may be repeated",
        "The content decides the format, not the extension. Order: see --audio.",
    ),
    (
        MediaKind::Video,
        "A film: a folder of frames, a gif, or any file that FFmpeg reads; may be repeated",
        "Files other than gifs need the programs ffmpeg and ffprobe. Order: see --audio.",
    ),
];

impl Args for MediaArgs {
    fn augment_args(command: Command) -> Command {
        command.args(FLAGS.map(|(kind, help, more)| {
            Arg::new(kind.name())
                .long(kind.name())
                .value_name("FILE")
                .help(help)
                .long_help(format!("{help}\n\n{more}"))
                .help_heading("Request")
                .action(ArgAction::Append)
                .value_parser(value_parser!(PathBuf))
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for MediaArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut found = Vec::new();
        for kind in MediaKind::ALL {
            let name = kind.name();
            let places = matches.indices_of(name).into_iter().flatten();
            let paths = matches.get_many::<PathBuf>(name).into_iter().flatten();
            found.extend(places.zip(paths).map(|(place, path)| {
                let path = path.clone();
                (place, Medium { kind, path })
            }));
        }
        found.sort_by_key(|(place, _)| *place);
        Ok(Self(found.into_iter().map(|(_, medium)| medium).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command as Verb};

    #[test]
    fn media_keep_their_order_across_kinds() {
        let line = [
            "burn-omni",
            "run",
            "--image",
            "1",
            "-p",
            "x",
            "--audio",
            "2",
            "--image=3",
            "--video",
            "4",
        ];
        let Verb::Run(args) = Cli::parse_from(line).command else {
            panic!("`run` was typed");
        };
        let typed: Vec<_> = args
            .media
            .0
            .iter()
            .map(|medium| (medium.kind, medium.path.to_str().unwrap()))
            .collect();
        let expected = [
            (MediaKind::Image, "1"),
            (MediaKind::Audio, "2"),
            (MediaKind::Image, "3"),
            (MediaKind::Video, "4"),
        ];
        assert_eq!(typed, expected);
    }
}
