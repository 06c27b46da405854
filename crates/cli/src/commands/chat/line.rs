//! What a line of the terminal means.

use burn_omni_model::processor::MediaKind;

/// The commands, for `/help`.
pub(super) const HELP: &str = "\
/audio FILE   attach something to hear to the next message
/image FILE   attach a picture
/video FILE   attach a film
/voice NAME   speak the answers in this voice; `off` for text only, nothing for the list of voices
/save FILE    write the conversation as JSON, for `burn-omni run --messages FILE`
/reset        start anew
/help         show this
/quit         leave, as do Ctrl-D and Ctrl-C
Everything else is said to the model; Ctrl-C stops its answer.";

/// A line of the terminal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    Say(&'a str),
    Attach(MediaKind, &'a str),
    /// `off` for none, empty for the list.
    Voice(&'a str),
    Save(&'a str),
    Reset,
    Help,
    Quit,
}

impl<'a> Line<'a> {
    /// Reads a line; the error says what is wrong with a command.
    pub(super) fn parse(line: &'a str) -> Result<Self, String> {
        let line = line.trim();
        if !line.starts_with('/') {
            return Ok(Self::Say(line));
        }
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        let media = MediaKind::ALL
            .into_iter()
            .find(|kind| command[1..] == *kind.name());
        match (command, media, rest) {
            (_, Some(_), "") | ("/save", _, "") => Err(format!("{command} needs a file")),
            (_, Some(kind), path) => Ok(Self::Attach(kind, path)),
            ("/save", _, path) => Ok(Self::Save(path)),
            ("/voice", _, name) => Ok(Self::Voice(name)),
            ("/reset", _, "") => Ok(Self::Reset),
            ("/help", _, "") => Ok(Self::Help),
            ("/quit" | "/exit", _, "") => Ok(Self::Quit),
            ("/reset" | "/help" | "/quit" | "/exit", ..) => {
                Err(format!("{command} takes nothing after it"))
            }
            _ => Err(format!("unknown command {command}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_messages() {
        assert_eq!(
            Line::parse(" What is 3 / 4? "),
            Ok(Line::Say("What is 3 / 4?"))
        );
        assert_eq!(Line::parse(""), Ok(Line::Say("")));
        assert_eq!(
            Line::parse("/audio my file.wav"),
            Ok(Line::Attach(MediaKind::Audio, "my file.wav"))
        );
        assert_eq!(Line::parse("/voice\tethan"), Ok(Line::Voice("ethan")));
        assert_eq!(Line::parse("/voice"), Ok(Line::Voice("")));
        assert_eq!(Line::parse("/quit"), Ok(Line::Quit));
        assert_eq!(Line::parse("/image"), Err("/image needs a file".into()));
        assert_eq!(
            Line::parse("/reset all"),
            Err("/reset takes nothing after it".into())
        );
        assert_eq!(
            Line::parse("/étrange"),
            Err("unknown command /étrange".into())
        );
        assert_eq!(Line::parse("/"), Err("unknown command /".into()));
    }
}
