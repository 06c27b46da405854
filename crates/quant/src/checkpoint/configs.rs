//! The raw `config.json` documents and which part of them describes which component.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{CheckpointError, Component, index};

/// The configs of a checkpoint, as JSON.
///
/// A component's config is that of its sub-folder, else its part of the root `config.json`.
#[derive(Debug, Default)]
pub struct Configs {
    documents: Vec<Document>,
    root: Option<usize>,
    /// For each component of [`Component::ALL`]: the document, and the key of the component in it.
    components: [Option<(usize, Option<&'static str>)>; 3],
}

#[derive(Debug)]
struct Document {
    file: PathBuf,
    json: Value,
}

/// One config: the JSON object and where it was found.
#[derive(Clone, Copy, Debug)]
pub struct ComponentConfig<'a> {
    /// The file it was read from.
    pub file: &'a Path,
    /// Path of `json` inside the file, such as `thinker_config`; empty when it is the whole file.
    pub path: &'static str,
    /// The object that describes the component.
    pub json: &'a Value,
    /// The whole file, for fields beside the component such as `quantization_config`.
    pub document: &'a Value,
}

impl Configs {
    /// Reads `config.json` of the folder and of its component sub-folders; all of them may be
    /// absent.
    pub(super) fn read(dir: &Path) -> Result<Self, CheckpointError> {
        let mut configs = Self::default();
        for (slot, component) in Component::ALL.into_iter().enumerate() {
            let file = dir.join(component.name()).join("config.json");
            let Some(document) = configs.push(file)? else {
                continue;
            };
            configs.components[slot] = configs.place_in_folder(document, component);
        }
        if let Some(document) = configs.push(dir.join("config.json"))? {
            configs.place_root(document);
        }
        Ok(configs)
    }

    /// The fields beside the components: a root `config.json`, or a full copy of one in a
    /// sub-folder.
    #[must_use]
    pub fn root(&self) -> Option<ComponentConfig<'_>> {
        self.root.map(|document| self.view(document, None))
    }

    /// The config of a component, or `None` when no file describes it.
    #[must_use]
    pub fn component(&self, component: Component) -> Option<ComponentConfig<'_>> {
        let (document, key) = self.components[slot(component)]?;
        Some(self.view(document, key))
    }

    fn view(&self, document: usize, key: Option<&'static str>) -> ComponentConfig<'_> {
        let Document { file, json } = &self.documents[document];
        let part = key.and_then(|key| json.get(key)).unwrap_or(json);
        ComponentConfig {
            file,
            path: key.unwrap_or_default(),
            json: part,
            document: json,
        }
    }

    fn push(&mut self, file: PathBuf) -> Result<Option<usize>, CheckpointError> {
        if !file.exists() {
            return Ok(None);
        }
        let json = index::read_json(&file)?;
        if !json.is_object() {
            return Err(CheckpointError::InvalidJson {
                file,
                detail: "expected a JSON object, found another value".into(),
            });
        }
        self.documents.push(Document { file, json });
        Ok(Some(self.documents.len() - 1))
    }

    /// The config in a component's folder: its own object, or a copy of the whole model's.
    fn place_in_folder(
        &mut self,
        document: usize,
        component: Component,
    ) -> Option<(usize, Option<&'static str>)> {
        let json = &self.documents[document].json;
        if !is_whole_model(json) {
            return Some((document, None));
        }
        let key = component.config_key();
        let found = json.get(key).is_some_and(Value::is_object);
        self.root.get_or_insert(document);
        found.then_some((document, Some(key)))
    }

    /// The `config.json` beside the sub-folders: the whole model's, or that of a lone component.
    fn place_root(&mut self, document: usize) {
        let json = &self.documents[document].json;
        let lone = json
            .get("model_type")
            .and_then(Value::as_str)
            .and_then(Component::of_model_type);
        if let Some(component) = lone.filter(|_| !is_whole_model(json)) {
            self.components[slot(component)].get_or_insert((document, None));
            return;
        }
        self.root = Some(document);
        for (slot, component) in Component::ALL.into_iter().enumerate() {
            let key = component.config_key();
            if json.get(key).is_some_and(Value::is_object) {
                self.components[slot].get_or_insert((document, Some(key)));
            }
        }
    }
}

/// Position of a component in [`Component::ALL`].
fn slot(component: Component) -> usize {
    component as usize
}

fn is_whole_model(json: &Value) -> bool {
    Component::ALL
        .into_iter()
        .any(|component| json.get(component.config_key()).is_some())
}
