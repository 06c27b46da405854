//! Which checkpoint is meant when none is named: the demo, where one finds it.

use std::env;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Name of the variable that names a checkpoint.
pub(crate) const VARIABLE: &str = "BURN_OMNI_MODEL";
/// The demo checkpoint in a clone, and beside a released executable.
const DEMO: &str = "assets/omni-demo";

/// The checkpoint that was named, else the demo.
pub(crate) fn resolve(named: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(dir) = named.filter(|dir| !dir.as_os_str().is_empty()) {
        return Ok(dir.into());
    }
    let places = places();
    if let Some(found) = places.iter().find(|dir| is_checkpoint(dir)) {
        return Ok(found.clone());
    }
    let places: Vec<_> = places.iter().map(|dir| dir.display().to_string()).collect();
    Err(Failure::advised(
        "no model was named, and the demo checkpoint was not found",
        format!(
            "pass -m DIR or set {VARIABLE}; looked for {}",
            places.join(", ")
        ),
    ))
}

/// Where the demo may lie, in the order in which it is looked for.
fn places() -> Vec<PathBuf> {
    let executable = env::current_exe().ok();
    let beside = executable
        .as_deref()
        .and_then(Path::parent)
        .map(|dir| dir.join(DEMO));
    let data = data_folder().map(|dir| dir.join("burn-omni/omni-demo"));
    [Some(PathBuf::from(".").join(DEMO)), beside, data]
        .into_iter()
        .flatten()
        .collect()
}

/// The user's data folder.
fn data_folder() -> Option<PathBuf> {
    let variable = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let home = || variable("HOME").map(|home| home.join(".local/share"));
    let folder = if cfg!(windows) {
        variable("LOCALAPPDATA")
    } else {
        variable("XDG_DATA_HOME")
    };
    folder.or_else(home)
}

fn is_checkpoint(dir: &Path) -> bool {
    dir.join("config.json").is_file() || dir.join("thinker/config.json").is_file()
}
