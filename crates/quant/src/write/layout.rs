//! What one shard holds, and where.

use std::collections::HashMap;
use std::path::PathBuf;

use burn_omni_ops::packed::Scale;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::part::{Part, Values};
use super::{Form, WriteOptions};

/// One part of the source in the form in which it is written.
#[derive(Debug)]
pub(super) struct Unit<'a> {
    pub(super) part: Part<'a>,
    /// Number of the group whose tensor scale it has; `None` when it stays as it is.
    pub(super) group: Option<usize>,
    /// Name as written.
    pub(super) name: String,
}

/// One tensor that is written.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) name: String,
    pub(super) content: Content,
    /// Number of its unit in the shard.
    pub(super) unit: usize,
    dtype: Dtype,
    shape: Vec<usize>,
}

/// What of a unit a tensor holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// The part as it is.
    Same,
    TensorScale,
    Codes,
    /// Always the next after the codes of the same unit.
    Scales,
}

/// One file.
#[derive(Debug)]
pub(super) struct Shard<'a> {
    /// Path in the destination.
    pub(super) path: PathBuf,
    pub(super) units: Vec<Unit<'a>>,
    /// In the order in which they are written.
    pub(super) stored: Vec<Stored>,
    /// What stands before the tensors: the length of the header and the header.
    pub(super) head: Vec<u8>,
    /// Bytes of the whole file.
    pub(super) bytes: u64,
}

impl Unit<'_> {
    /// The tensors that are written of it.
    fn stored(&self, unit: usize, form: Form) -> Vec<Stored> {
        let stored = |suffix: &str, content, dtype, shape| Stored {
            name: match suffix {
                "" => self.name.clone(),
                suffix => format!(
                    "{}.{suffix}",
                    self.name.strip_suffix(".weight").unwrap_or(&self.name)
                ),
            },
            content,
            unit,
            dtype,
            shape,
        };
        let (dtype, shape) = (self.part.dtype, &self.part.shape);
        let (Some(_), &[rows, width]) = (self.group, shape.as_slice()) else {
            return vec![stored("", Content::Same, dtype, shape.clone())];
        };
        let format = form.format();
        let codes = vec![rows, width / 2];
        let scales = vec![rows, width / format.block];
        let scale_dtype = match format.scale {
            Scale::E4m3 => Dtype::F8_E4M3,
            _ => Dtype::U8,
        };
        let packed = match form {
            Form::ModelOpt => "weight",
            Form::CompressedTensors | Form::Mxfp4 => "weight_packed",
        };
        let tensor_scale = match form {
            Form::ModelOpt => Some(("weight_scale_2", vec![])),
            Form::CompressedTensors => Some(("weight_global_scale", vec![1])),
            Form::Mxfp4 => None,
        };
        let tensor_scale =
            tensor_scale.map(|(name, shape)| stored(name, Content::TensorScale, Dtype::F32, shape));
        tensor_scale
            .into_iter()
            .chain([
                stored(packed, Content::Codes, Dtype::U8, codes),
                stored("weight_scale", Content::Scales, scale_dtype, scales),
            ])
            .collect()
    }

    /// Bytes of the source that are done when it is written; of made-up values those that are written.
    pub(super) fn work(&self, form: Form) -> u64 {
        match self.part.values {
            Values::Read(read) => read.bytes.len() as u64,
            Values::Drawn(_) => self.bytes(form),
        }
    }

    /// Bytes of the tensors that are written of it.
    pub(super) fn bytes(&self, form: Form) -> u64 {
        let stored = self.stored(0, form);
        stored.iter().map(|stored| stored.bytes() as u64).sum()
    }
}

impl Stored {
    pub(super) fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

impl<'a> Shard<'a> {
    pub(super) fn new(path: PathBuf, units: Vec<Unit<'a>>, options: &WriteOptions) -> Self {
        let mut ordered: Vec<(Order, Stored)> = units
            .iter()
            .enumerate()
            .flat_map(|(number, unit)| in_order(unit.stored(number, options.form)))
            .collect();
        // Stable: units stay in their order.
        ordered.sort_by_key(|(order, _)| *order);
        let stored: Vec<Stored> = ordered.into_iter().map(|(_, stored)| stored).collect();
        let head = head(&stored);
        let bytes = head.len() as u64 + stored.iter().map(|s| s.bytes() as u64).sum::<u64>();
        Self {
            path,
            units,
            stored,
            head,
            bytes,
        }
    }
}

/// Place of a tensor in a file. Readers want elements at multiples of their size, and the format knows no gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    Eight,
    Four,
    /// A quantized matrix whose bytes are a multiple of four, all its tensors in a row.
    Matrix,
    Two,
    One,
}

/// The tensors of a unit with their places.
fn in_order(stored: Vec<Stored>) -> Vec<(Order, Stored)> {
    let whole = stored.iter().map(Stored::bytes).sum::<usize>();
    let is_matrix = stored.len() > 1 && whole.is_multiple_of(4);
    let order = |stored: &Stored| match stored.dtype.bitsize() {
        _ if is_matrix => Order::Matrix,
        64.. => Order::Eight,
        32.. => Order::Four,
        16.. => Order::Two,
        _ => Order::One,
    };
    stored
        .into_iter()
        .map(|stored| (order(&stored), stored))
        .collect()
}

/// The beginning of a file with these tensors.
fn head(stored: &[Stored]) -> Vec<u8> {
    /// The tensors begin at a multiple of this.
    const ALIGNMENT: usize = 8;
    let mut end = 0;
    let tensors = stored.iter().map(|stored| {
        let start = end;
        end += stored.bytes();
        let info = TensorInfo {
            dtype: stored.dtype,
            shape: stored.shape.clone(),
            data_offsets: (start, end),
        };
        (stored.name.clone(), info)
    });
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata = Metadata::new(Some(format), tensors.collect())
        .expect("the tensors follow one another without gaps");
    let mut header = serde_json::to_vec(&metadata).expect("names and numbers are JSON");
    header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');
    let mut head = (header.len() as u64).to_le_bytes().to_vec();
    head.append(&mut header);
    head
}
