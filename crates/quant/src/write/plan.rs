//! What is written, decided before anything is.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::checkpoint::{Checkpoint, Component};

use super::layout::{Shard, Unit};
use super::part::Part;
use super::{Drawn, WriteError, WriteOptions, config, select};

/// Everything about a checkpoint that is to be written.
#[derive(Debug)]
pub struct Plan<'a> {
    pub(super) source: Source<'a>,
    pub(super) options: WriteOptions,
    pub(super) shards: Vec<Shard<'a>>,
    pub(super) groups: Vec<Group<'a>>,
    warnings: Vec<String>,
    summary: Summary,
}

/// What is written from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'a> {
    /// A dense checkpoint.
    Checkpoint(&'a Checkpoint),
    /// Nothing: the weights are made up.
    Drawn(&'a Drawn),
}

impl<'a> Source<'a> {
    /// The checkpoint, where there is one.
    pub(super) fn checkpoint(self) -> Option<&'a Checkpoint> {
        match self {
            Self::Checkpoint(checkpoint) => Some(checkpoint),
            Self::Drawn(_) => None,
        }
    }

    /// Gives the memory back that what was read takes.
    pub(super) fn forget_pages(self) {
        if let Self::Checkpoint(checkpoint) = self {
            checkpoint.forget_pages();
        }
    }
}

/// How much is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Tensors of the source; a stack of experts counts as its matrices.
    pub tensors: usize,
    /// Those that are quantized.
    pub quantized: usize,
    /// Bytes of the source's tensors; of made-up ones, those that are written.
    pub bytes_in: u64,
    /// Bytes of the files with tensors that are written.
    pub bytes_out: u64,
}

/// The matrices that share a tensor scale.
#[derive(Debug, Default)]
pub(super) struct Group<'a> {
    members: Vec<Part<'a>>,
    amax: OnceCell<f32>,
}

impl Group<'_> {
    /// The largest magnitude of all members, looked for when it is first needed.
    pub(super) fn amax(&self) -> Result<f32, WriteError> {
        if let Some(amax) = self.amax.get() {
            return Ok(*amax);
        }
        let mut amax = 0.0_f32;
        for member in &self.members {
            amax = amax.max(member.amax()?);
        }
        Ok(*self.amax.get_or_init(|| amax))
    }
}

impl<'a> Plan<'a> {
    /// Decides what becomes of every tensor of a checkpoint; no value is read.
    ///
    /// # Errors
    /// When the checkpoint is quantized already, lacks its configs, or has nothing to quantize.
    pub fn new(checkpoint: &'a Checkpoint, options: WriteOptions) -> Result<Self, WriteError> {
        config::check(checkpoint)?;
        let mut parts = Vec::new();
        for set in checkpoint.components() {
            for (local, tensor) in set.iter() {
                parts.extend(Part::of(set.component(), local, tensor)?);
            }
        }
        let plan = Self::of_parts(Source::Checkpoint(checkpoint), parts, options);
        if plan.summary.quantized == 0 {
            return Err(WriteError::Nothing {
                dir: checkpoint.dir().into(),
            });
        }
        Ok(plan)
    }

    /// Deals parts out to files.
    pub(super) fn of_parts(
        source: Source<'a>,
        mut parts: Vec<Part<'a>>,
        options: WriteOptions,
    ) -> Self {
        // As if every expert had been stored by itself.
        parts.sort_by(|a, b| (a.component, &a.local).cmp(&(b.component, &b.local)));
        let mut warnings = unused(&options, &parts);
        let mut groups = Groups::default();
        let mut units: BTreeMap<Option<Component>, Vec<Unit<'a>>> = BTreeMap::new();
        for part in parts {
            let group = match choice(&part, &options) {
                Choice::Quantized => Some(groups.add(&part)),
                Choice::OddWidth(warning) => {
                    warnings.push(warning);
                    None
                }
                Choice::Same => None,
            };
            let (folder, name) = if options.form.is_split() {
                (Some(part.component), part.local.clone())
            } else {
                (None, format!("{}.{}", part.component, part.local))
            };
            let unit = Unit { part, group, name };
            units.entry(folder).or_default().push(unit);
        }
        let all = || units.values().flatten();
        let (tensors, quantized) = (
            all().count(),
            all().filter(|unit| unit.group.is_some()).count(),
        );
        let bytes_in = all().map(|unit| unit.work(options.form)).sum();
        let shards: Vec<Shard<'a>> = units
            .into_iter()
            .flat_map(|(folder, units)| shards(folder, units, &options))
            .collect();
        let bytes_out = shards.iter().map(|shard| shard.bytes).sum();
        let summary = Summary {
            tensors,
            quantized,
            bytes_in,
            bytes_out,
        };
        Self {
            source,
            options,
            shards,
            groups: groups.groups,
            warnings,
            summary,
        }
    }

    /// What will not be as one might expect, a line each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// How much is written.
    #[must_use]
    pub fn summary(&self) -> Summary {
        self.summary
    }

    /// All that is written.
    pub(super) fn units(&self) -> impl Iterator<Item = &Unit<'a>> {
        self.shards.iter().flat_map(|shard| &shard.units)
    }

    /// The files of the source that tensors are read from.
    pub(super) fn files(&self) -> BTreeSet<&Path> {
        self.units().filter_map(|unit| unit.part.file()).collect()
    }
}

/// What becomes of a part.
enum Choice {
    Quantized,
    Same,
    /// It would be quantized, but cannot be: why, in one line.
    OddWidth(String),
}

fn choice(part: &Part<'_>, options: &WriteOptions) -> Choice {
    let (Some(module), &[_, width]) = (part.module(), part.shape.as_slice()) else {
        return Choice::Same;
    };
    let full = format!("{}.{module}", part.component);
    let ignored = |name: &str| options.ignore.iter().any(|glob| glob.covers(name));
    if !select::is_wanted(part.component, module, options) || ignored(module) || ignored(&full) {
        return Choice::Same;
    }
    let block = options.form.format().block;
    if width == 0 || !width.is_multiple_of(block) {
        return Choice::OddWidth(format!(
            "{full} stays {}: its width {width} is no multiple of {block}",
            part.dtype
        ));
    }
    Choice::Quantized
}

/// A warning for every pattern that no module has.
fn unused(options: &WriteOptions, parts: &[Part<'_>]) -> Vec<String> {
    let modules: BTreeSet<(Component, &str)> = parts
        .iter()
        .filter_map(|part| Some((part.component, part.module()?)))
        .collect();
    let unused = options.ignore.iter().filter(|glob| {
        !modules.iter().any(|(component, module)| {
            glob.covers(module) || glob.covers(&format!("{component}.{module}"))
        })
    });
    unused
        .map(|glob| format!("--ignore '{glob}' is the name of no module"))
        .collect()
}

/// Groups by their names.
#[derive(Default)]
struct Groups<'a> {
    numbers: BTreeMap<(Component, String), usize>,
    groups: Vec<Group<'a>>,
}

impl<'a> Groups<'a> {
    /// Adds a quantized part to its group and gives the group's number.
    fn add(&mut self, part: &Part<'a>) -> usize {
        let name = select::group(part.module().unwrap_or(&part.local));
        let next = self.groups.len();
        let number = *self.numbers.entry((part.component, name)).or_insert(next);
        if number == next {
            self.groups.push(Group::default());
        }
        self.groups[number].members.push(part.clone());
        number
    }
}

/// Deals the units of one folder out to files.
fn shards<'a>(
    folder: Option<Component>,
    units: Vec<Unit<'a>>,
    options: &WriteOptions,
) -> Vec<Shard<'a>> {
    let mut files: Vec<Vec<Unit<'a>>> = Vec::new();
    let mut bytes = 0;
    for unit in units {
        let more = unit.bytes(options.form);
        match files.last_mut() {
            Some(file) if bytes + more <= options.shard_bytes => {
                bytes += more;
                file.push(unit);
            }
            _ => {
                bytes = more;
                files.push(vec![unit]);
            }
        }
    }
    let folder = folder.map_or_else(PathBuf::new, |component| component.name().into());
    let count = files.len();
    let name = |number: usize| match count {
        1 => "model.safetensors".to_owned(),
        count => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
    };
    files
        .into_iter()
        .enumerate()
        .map(|(number, units)| Shard::new(folder.join(name(number)), units, options))
        .collect()
}
