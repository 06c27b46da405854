//! Configs of the demo checkpoint, changed by hand: one test case for each message.

mod bad;
mod good;
mod properties;

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{Config, ConfigError};

/// The demo checkpoint of the repository.
const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/omni-demo");

fn demo_json() -> Value {
    let text = fs::read(Path::new(DEMO).join("config.json")).expect("the demo config");
    serde_json::from_slice(&text).expect("JSON")
}

fn read(json: &Value) -> Result<Config, ConfigError> {
    Config::from_json(Path::new("config.json"), json)
}

/// Sets or, with `None`, removes the field at a dotted path.
fn set(json: &mut Value, path: &str, value: Option<Value>) {
    let (parents, key) = path.rsplit_once('.').unwrap_or(("", path));
    let mut place = json;
    for parent in parents.split('.').filter(|parent| !parent.is_empty()) {
        place = &mut place[parent];
    }
    if let Some(value) = value {
        place[key] = value;
    } else {
        let removed = place.as_object_mut().expect("an object").shift_remove(key);
        assert!(removed.is_some(), "{path} is not in the demo");
    }
}

/// The demo config with some fields set.
fn changed(changes: &[(&str, Value)]) -> Value {
    let mut json = demo_json();
    for (path, value) in changes {
        set(&mut json, path, Some(value.clone()));
    }
    json
}
