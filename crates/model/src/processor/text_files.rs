//! The small text files of a checkpoint.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::processor::TextError;

/// Sub-folder that holds the thinker's files where a checkpoint is split by stage.
const THINKER_FOLDER: &str = "thinker";

/// Reads files of a checkpoint folder in either layout: the folder itself, then its `thinker/`.
pub(crate) struct TextFiles<'a> {
    dir: &'a Path,
}

impl<'a> TextFiles<'a> {
    /// Looks in `dir`; nothing is opened yet.
    pub(crate) fn new(dir: &'a Path) -> Self {
        Self { dir }
    }

    /// The text of file `name`, or `None` where the checkpoint has no such file.
    pub(crate) fn read(&self, name: &str) -> Result<Option<String>, TextError> {
        for path in [
            self.dir.join(name),
            self.dir.join(THINKER_FOLDER).join(name),
        ] {
            match fs::read_to_string(&path) {
                Ok(text) => return Ok(Some(text)),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(source) => return Err(TextError::Read { path, source }),
            }
        }
        Ok(None)
    }

    /// The checkpoint folder, for messages.
    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.to_path_buf()
    }
}
