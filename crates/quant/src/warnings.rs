//! What was read although it is not as it should be: each kind is said once a model.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::formats::QuantConfig;

/// Collects what a load has to say; the same fact noted twice counts once.
#[derive(Debug, Default)]
pub struct Warnings {
    notes: RefCell<BTreeMap<Kind, BTreeMap<String, u64>>>,
    texts: RefCell<Vec<String>>,
    told: RefCell<Told>,
}

/// What a config says, beside what the tensors are.
#[derive(Debug, Default)]
struct Told {
    /// The config's file and the name of its format.
    config: Option<(String, String)>,
    /// Modules that it quantizes and that are not quantized.
    plain: BTreeSet<String>,
    /// Modules that it leaves as they are and that are quantized.
    quantized: BTreeSet<String>,
    /// Modules of which it says nothing: how many are not quantized, and how many are.
    unsaid: [usize; 2],
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Block scales that are NaN.
    NanScale,
    /// Block scales with a sign.
    NegativeScale,
    /// Powers of two that are NaN.
    NanPower,
    /// FP8 weights that are NaN.
    NanWeight,
    /// A tensor scale that is no factor, over codes that are all zero.
    ZeroTensor,
    /// No tensor scale, but the largest weight.
    DerivedScale,
    /// `weight_scale_2` and `weight_global_scale` on one module.
    TwoScales,
    /// Scales beside a weight that is not quantized.
    StrayScale,
    /// Blocks that cross rows.
    CrossingBlocks,
    /// A block size or group that the packed form has not.
    OddGroups,
    /// A table of values that is not the usual one.
    OtherTable,
    /// Columns whose groups are in another order.
    ActOrder,
    /// Parts of one matrix in several forms.
    MixedForms,
    /// Parts of one matrix with several factors on the input.
    MixedFactors,
    /// A low-rank correction.
    LowRank,
    /// Packed tensors that are used as tables or convolutions.
    DenseUse,
}

impl Warnings {
    /// Nothing to say yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that a tensor has `count` of something.
    pub(crate) fn note(&self, kind: Kind, tensor: &str, count: u64) {
        let mut notes = self.notes.borrow_mut();
        notes
            .entry(kind)
            .or_default()
            .insert(tensor.to_owned(), count);
    }

    /// Notes something in its own words.
    pub fn say(&self, text: String) {
        let mut texts = self.texts.borrow_mut();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }

    /// Compares what a config says of a module with what the module is.
    pub(crate) fn compare(&self, config: Option<&QuantConfig>, module: &str, quantized: bool) {
        let mut told = self.told.borrow_mut();
        if let Some(config) = config {
            let named = || {
                (
                    config.file().display().to_string(),
                    config.name().to_owned(),
                )
            };
            told.config.get_or_insert_with(named);
        }
        let said = match config {
            Some(config) => config.says_quantized(module),
            None => Some(false),
        };
        match said {
            Some(true) if !quantized => drop(told.plain.insert(module.to_owned())),
            Some(false) if quantized => drop(told.quantized.insert(module.to_owned())),
            None => told.unsaid[usize::from(quantized)] += 1,
            _ => {}
        }
    }

    /// Everything there is to say, one line each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let notes = self.notes.borrow();
        let noted = notes.iter().filter_map(|(kind, tensors)| {
            let (first, _) = tensors.first_key_value()?;
            let summary = Summary {
                first,
                tensors: tensors.len(),
                count: tensors.values().sum(),
            };
            Some(summary.line(*kind))
        });
        let texts = self.texts.borrow();
        let told = self.told.borrow().line();
        texts.iter().cloned().chain(told).chain(noted).collect()
    }
}

impl Told {
    /// How the config and the tensors disagree, if they do.
    fn line(&self) -> Option<String> {
        let Self {
            config,
            plain,
            quantized,
            unsaid,
        } = self;
        let listed = |names: &BTreeSet<String>, what: &str| {
            let first = names.first()?;
            let count = match names.len() {
                1 => format!("`{first}`"),
                more => format!("{more} modules, the first `{first}`,"),
            };
            let are = if names.len() == 1 { "is" } else { "are" };
            Some(format!("{count} {are} {what}"))
        };
        let Some((file, name)) = config else {
            let found = listed(quantized, "quantized")?;
            return Some(format!(
                "{found} though no config says so; the tensors decide"
            ));
        };
        let mut found: Vec<String> = [
            listed(plain, "not quantized"),
            listed(quantized, "quantized against its list"),
        ]
        .into_iter()
        .flatten()
        .collect();
        if unsaid[0] > 0 && unsaid[1] == 0 {
            found.push("no tensor is quantized".into());
        }
        let found = (!found.is_empty()).then(|| found.join(" and "))?;
        Some(format!(
            "{file} says {name}, but {found}; the tensors decide"
        ))
    }
}

/// The tensors of one kind.
struct Summary<'a> {
    first: &'a str,
    tensors: usize,
    count: u64,
}

impl Summary<'_> {
    fn line(&self, kind: Kind) -> String {
        let Self {
            first,
            tensors,
            count,
        } = self;
        let counted = |what| Counted(*count, what);
        let unpacked = |why: &str| format!("{why}, so they are not kept packed");
        let text = match kind {
            Kind::NanScale => format!("{} NaN, taken as 448", counted("scale byte")),
            Kind::NegativeScale => format!(
                "{} a sign, which was moved to the codes",
                counted("scale byte with")
            ),
            Kind::NanPower => format!("{} NaN, the blocks taken as 0", counted("scale byte")),
            Kind::NanWeight => format!("{} NaN, taken as 448", counted("FP8 weight")),
            Kind::ZeroTensor => "no tensor scale, taken as weights that are all 0".into(),
            Kind::DerivedScale => "no tensor scale, taken from the largest weight instead".into(),
            Kind::TwoScales => {
                "both weight_scale_2 and weight_global_scale, the first was taken".into()
            }
            Kind::StrayScale => "scales beside weights that are not quantized, left aside".into(),
            Kind::CrossingBlocks => unpacked("blocks cross rows"),
            Kind::OddGroups => unpacked("groups have an unusual size"),
            Kind::OtherTable => unpacked("the table of values is not the usual one"),
            Kind::ActOrder => unpacked("columns are grouped in another order"),
            Kind::MixedForms => unpacked("matrices that are read as one have several forms"),
            Kind::MixedFactors => {
                unpacked("matrices that are read as one have several pre_quant_scale")
            }
            Kind::LowRank => unpacked("a low-rank correction was added"),
            Kind::DenseUse => unpacked("tables and convolutions are quantized"),
        };
        match tensors {
            1 => format!("`{first}`: {text}"),
            _ => format!("{tensors} tensors, the first `{first}`: {text}"),
        }
    }
}

/// A number of things.
struct Counted(u64, &'static str);

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, what) = self;
        match (count, what.strip_suffix(" with")) {
            (1, Some(what)) => write!(f, "1 {what} with"),
            (count, Some(what)) => write!(f, "{count} {what}s with"),
            (1, None) => write!(f, "1 {what} is"),
            (count, None) => write!(f, "{count} {what}s are"),
        }
    }
}
