//! The header of one safetensors file, checked in full before any tensor is handed out.
//!
//! The safetensors crate checks most of this too, but its messages name neither the file nor,
//! often, the tensor.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use safetensors::Dtype;
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::CheckpointError;

/// Bytes of the little-endian header length at the start of a file.
pub(super) const LENGTH_BYTES: usize = 8;

/// Longest header that the format allows, in bytes.
const MAX_HEADER: u64 = 100_000_000;

/// One tensor as its header describes it; every field is checked.
#[derive(Debug)]
pub(super) struct Entry {
    /// Name on disk.
    pub(super) name: String,
    /// Element type on disk.
    pub(super) dtype: Dtype,
    /// Row-major shape, in elements of `dtype`.
    pub(super) shape: Vec<usize>,
    /// Position of the values in the file.
    pub(super) bytes: Range<usize>,
}

/// Reads and checks the header of `file`, whose whole content is `content`.
pub(super) fn read(file: &Path, content: &[u8]) -> Result<Vec<Entry>, CheckpointError> {
    let (header, data_start) = split(file, content)?;
    let mut entries = parse(file, header)?;
    entries.sort_by_key(|entry| (entry.bytes.start, entry.bytes.end));
    check_cover(file, &entries, content.len() - data_start, data_start)?;
    for entry in &mut entries {
        // In range: `check_cover` has compared every end with the size of the file.
        entry.bytes = entry.bytes.start + data_start..entry.bytes.end + data_start;
    }
    Ok(entries)
}

/// The header's JSON and the position of the first value.
fn split<'a>(file: &Path, content: &'a [u8]) -> Result<(&'a [u8], usize), CheckpointError> {
    if content.starts_with(b"version https://git-lfs") {
        return Err(CheckpointError::LfsPointer { file: file.into() });
    }
    let Some((length, rest)) = content.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(CheckpointError::TooShort {
            file: file.into(),
            len: content.len() as u64,
        });
    };
    let header = u64::from_le_bytes(*length);
    let limit = MAX_HEADER.min(rest.len() as u64);
    usize::try_from(header)
        .ok()
        .filter(|_| header <= limit)
        .map(|length| (&rest[..length], LENGTH_BYTES + length))
        .ok_or_else(|| CheckpointError::HeaderTooLong {
            file: file.into(),
            header,
            limit,
        })
}

fn parse(file: &Path, header: &[u8]) -> Result<Vec<Entry>, CheckpointError> {
    let invalid = |detail: String| CheckpointError::InvalidHeader {
        file: file.into(),
        detail,
    };
    let mut json = serde_json::Deserializer::from_slice(header);
    let parsed = (&mut json)
        .deserialize_map(Entries { file })
        .map_err(|error| invalid(error.to_string()))?;
    json.end().map_err(|error| invalid(error.to_string()))?;
    let mut entries = parsed?;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(pair) = entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(CheckpointError::InvalidTensor {
            file: file.into(),
            tensor: pair[0].name.clone(),
            detail: "described twice in the header".into(),
        });
    }
    Ok(entries)
}

/// Visits the header's object in file order; a plain JSON map would hide repeated names.
struct Entries<'a> {
    file: &'a Path,
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = Result<Vec<Entry>, CheckpointError>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        let mut first_error = None;
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = map.next_value::<Value>()?;
            match entry(&name, &value) {
                Ok((dtype, shape, bytes)) => entries.push(Entry {
                    name,
                    dtype,
                    shape,
                    bytes,
                }),
                Err(detail) => {
                    first_error.get_or_insert(CheckpointError::InvalidTensor {
                        file: self.file.into(),
                        tensor: name,
                        detail,
                    });
                }
            }
        }
        Ok(first_error.map_or(Ok(entries), Err))
    }
}

type Described = (Dtype, Vec<usize>, Range<usize>);

/// Checks one header entry by itself; the error says what was expected and found.
fn entry(name: &str, value: &Value) -> Result<Described, String> {
    if name.is_empty() {
        return Err("expected a name, found none".into());
    }
    let field = |key: &str| value.get(key).ok_or_else(|| format!("`{key}` is missing"));
    let dtype_value = field("dtype")?;
    let dtype: Dtype = serde_json::from_value(dtype_value.clone())
        .map_err(|_| format!("expected a known dtype, found {dtype_value}"))?;
    let shape = sizes("shape", field("shape")?)?;
    let offsets = sizes("data_offsets", field("data_offsets")?)?;
    let &[start, end] = offsets.as_slice() else {
        return Err(format!("expected 2 data_offsets, found {}", offsets.len()));
    };
    let found = end
        .checked_sub(start)
        .ok_or_else(|| format!("data_offsets end at {end}, before their start at {start}"))?;
    let expected = byte_len(dtype, &shape)
        .ok_or_else(|| format!("shape {shape:?} of dtype {dtype} is no whole number of bytes"))?;
    if found != expected {
        return Err(format!(
            "shape {shape:?} of dtype {dtype} takes {expected} bytes, data_offsets give {found}"
        ));
    }
    Ok((dtype, shape, start..end))
}

fn sizes(key: &str, value: &Value) -> Result<Vec<usize>, String> {
    let wrong = || format!("expected `{key}` to be a list of sizes, found {value}");
    let list = value.as_array().ok_or_else(wrong)?;
    list.iter()
        .map(|size| {
            size.as_u64()
                .and_then(|size| usize::try_from(size).ok())
                .ok_or_else(wrong)
        })
        .collect()
}

/// Bytes of a tensor; `None` when that overflows or is no whole number.
fn byte_len(dtype: Dtype, shape: &[usize]) -> Option<usize> {
    let elements = shape
        .iter()
        .try_fold(1_usize, |product, &size| product.checked_mul(size))?;
    let bits = elements.checked_mul(dtype.bitsize())?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

/// Checks that the tensors, sorted by position, tile the data without overlap or gap.
fn check_cover(
    file: &Path,
    entries: &[Entry],
    data_len: usize,
    data_start: usize,
) -> Result<(), CheckpointError> {
    if let Some(last) = entries.iter().max_by_key(|entry| entry.bytes.end)
        && last.bytes.end > data_len
    {
        return Err(CheckpointError::Truncated {
            file: file.into(),
            tensor: last.name.clone(),
            expected: (last.bytes.end as u64).saturating_add(data_start as u64),
            found: (data_len + data_start) as u64,
        });
    }
    let gap = |from: usize, to: usize| CheckpointError::Gap {
        file: file.into(),
        from: from as u64,
        to: to as u64,
    };
    let mut covered = 0;
    let mut previous: Option<&Entry> = None;
    for entry in entries {
        let start = entry.bytes.start;
        if start > covered {
            return Err(gap(covered, start));
        }
        if let Some(previous) = previous.filter(|_| start < covered) {
            return Err(CheckpointError::Overlap {
                file: file.into(),
                tensor: entry.name.clone(),
                other: previous.name.clone(),
                at: start as u64,
            });
        }
        covered = entry.bytes.end;
        previous = Some(entry);
    }
    if covered < data_len {
        return Err(gap(covered, data_len));
    }
    Ok(())
}
