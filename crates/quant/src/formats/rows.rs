//! Packed matrices whose rows are copied as they are: from the memory map to where they belong, on all cores. For a GPU that
//! is memory from which it copies them while the next ones come.

use std::ops::Range;

use burn::tensor::Device;
use burn_omni_ops::filling::{PIECE, PackedFilling};
use burn_omni_ops::{Packed, PackedBytes, PackedSpec};
use rayon::prelude::*;

use crate::{Warnings, buffer};

/// Bytes of codes that one task copies: large enough to hide the cost of a task, small enough to share out.
const TASK: usize = 1 << 20;

/// A packed matrix whose rows can be copied one by one.
pub(crate) trait PackedRows: Sync {
    /// What it is, as one matrix.
    fn spec(&self) -> PackedSpec;

    /// Where codes and scales lie in the memory map.
    fn stored(&self) -> [&[u8]; 2];

    /// One factor a row.
    fn gains(&self) -> Vec<f32>;

    /// Copies rows from number `from` on, as many as there is room for, and mends what is not as it should be.
    fn copy(&self, from: usize, room: Room<'_>) -> Mended;

    /// Says what was mended.
    fn note(&self, mended: Mended, warnings: &Warnings);
}

/// Where rows belong; all zero where they are longer than stored ones.
pub(crate) struct Room<'a> {
    /// Codes of some rows.
    pub(crate) codes: &'a mut [u8],
    /// Their scales.
    pub(crate) scales: &'a mut [u8],
}

/// How many block scales were mended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mended {
    /// Those that were NaN.
    pub(crate) nan: u64,
    /// Those that had a sign.
    pub(crate) negative: u64,
}

/// Some rows of a part, and where they belong.
struct Task<'a> {
    part: usize,
    from: usize,
    room: Room<'a>,
}

/// Matrices of one form as one of `spec`, whose rows are theirs.
pub(crate) struct Rows<'a> {
    parts: Vec<&'a dyn PackedRows>,
    spec: PackedSpec,
    /// One factor a row.
    pub(crate) gains: Vec<f32>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(parts: Vec<&'a dyn PackedRows>, spec: PackedSpec) -> Self {
        Self {
            gains: parts.iter().flat_map(|part| part.gains()).collect(),
            parts,
            spec,
        }
    }

    fn count(&self) -> usize {
        self.parts.iter().map(|part| part.spec().rows).sum()
    }

    /// All of it on the host.
    pub(crate) fn read(self, warnings: &Warnings) -> PackedBytes {
        self.read_ahead();
        let rows = self.count();
        let [row_codes, row_scales] = [self.spec.row_bytes(), self.spec.scale_bytes()];
        let mut codes = buffer::zeros(rows * row_codes);
        let mut scales = buffer::zeros(rows * row_scales);
        let mut mended = vec![Mended::default(); self.parts.len()];
        let room = Room {
            codes: &mut codes,
            scales: &mut scales,
        };
        self.copy(0..rows, room, &mut mended);
        self.note(&mended, warnings);
        PackedBytes {
            spec: self.spec,
            codes,
            scales,
            gains: self.gains,
        }
    }

    /// All of it on a device.
    pub(crate) fn upload(self, device: &Device, warnings: &Warnings) -> Packed {
        let Some(mut filling) = PackedFilling::new(self.spec, device) else {
            return Packed::upload(self.read(warnings), device);
        };
        let mut mended = vec![Mended::default(); self.parts.len()];
        for rows in pieces(self.count(), self.spec.row_bytes(), PIECE) {
            filling.next(rows.len(), |codes, scales| {
                // Not before: a device that records wants no byte.
                if rows.start == 0 {
                    self.read_ahead();
                }
                if !self.are_whole() {
                    codes.fill(0);
                    scales.fill(0);
                }
                self.copy(rows, Room { codes, scales }, &mut mended);
            });
        }
        self.note(&mended, warnings);
        filling.finish(self.gains)
    }

    fn read_ahead(&self) {
        let stored = self.parts.iter().flat_map(|part| part.stored());
        stored.for_each(buffer::read_ahead);
    }

    /// Whether stored rows are as long as those here.
    fn are_whole(&self) -> bool {
        let row = [self.spec.row_bytes(), self.spec.scale_bytes()];
        self.parts.iter().all(|part| {
            let rows = part.spec().rows;
            part.stored().map(<[u8]>::len) == row.map(|bytes| rows * bytes)
        })
    }

    /// Copies rows, counted over all parts.
    fn copy(&self, rows: Range<usize>, room: Room<'_>, mended: &mut [Mended]) {
        let [row_codes, row_scales] = [self.spec.row_bytes(), self.spec.scale_bytes()];
        let at_once = TASK.div_ceil(row_codes.max(1));
        let mut tasks = Vec::new();
        let (mut rest_codes, mut rest_scales) = (room.codes, room.scales);
        let mut first = 0;
        for (part, matrix) in self.parts.iter().enumerate() {
            let behind = first + matrix.spec().rows;
            let within = rows.start.max(first)..rows.end.min(behind);
            for from in within.clone().step_by(at_once) {
                let count = at_once.min(within.end - from);
                let (codes, scales);
                (codes, rest_codes) = rest_codes.split_at_mut(count * row_codes);
                (scales, rest_scales) = rest_scales.split_at_mut(count * row_scales);
                let room = Room { codes, scales };
                let from = from - first;
                tasks.push(Task { part, from, room });
            }
            first = behind;
        }
        let copied = tasks.into_par_iter();
        let copied =
            copied.map(|task| (task.part, self.parts[task.part].copy(task.from, task.room)));
        for (part, more) in copied.collect::<Vec<_>>() {
            mended[part].nan += more.nan;
            mended[part].negative += more.negative;
        }
    }

    fn note(&self, mended: &[Mended], warnings: &Warnings) {
        for (part, mended) in self.parts.iter().zip(mended) {
            part.note(*mended, warnings);
        }
    }
}

/// Rows in pieces of about so many bytes. All but the last are multiples of four rows, so that they begin at whole words.
fn pieces(rows: usize, row_bytes: usize, piece: usize) -> impl Iterator<Item = Range<usize>> {
    let at_once = (piece / row_bytes.max(1)).next_multiple_of(4).max(4);
    let starts = (0..rows).step_by(at_once);
    starts.map(move |from| from..rows.min(from + at_once))
}

#[cfg(test)]
mod tests {
    use burn_omni_ops::PackedFormat;

    use super::*;
    use crate::formats::bytes::{pad, spec};

    const WIDTH: usize = 48; // filled up to 64

    /// Rows of which every byte is another, and the first scale has to be mended.
    struct Part {
        codes: Vec<u8>,
        scales: Vec<u8>,
    }

    impl Part {
        fn new(rows: usize, seed: usize) -> Self {
            let bytes = |count| (0..count).map(|i| ((i * 7 + seed) % 251) as u8).collect();
            Self {
                codes: bytes(rows * WIDTH / 2),
                scales: bytes(rows * WIDTH / 16),
            }
        }
    }

    impl PackedRows for Part {
        fn spec(&self) -> PackedSpec {
            spec(PackedFormat::NVFP4, self.codes.len() / (WIDTH / 2), WIDTH)
        }

        fn stored(&self) -> [&[u8]; 2] {
            [&self.codes, &self.scales]
        }

        fn gains(&self) -> Vec<f32> {
            vec![1.0; self.spec().rows]
        }

        fn copy(&self, from: usize, Room { codes, scales }: Room<'_>) -> Mended {
            let spec = self.spec();
            let copy =
                |stored: &[u8], row: usize, room, to| pad(&stored[from * row..], row, (room, to));
            copy(&self.codes, WIDTH / 2, codes, spec.row_bytes());
            copy(&self.scales, WIDTH / 16, scales, spec.scale_bytes());
            Mended {
                nan: u64::from(from == 0),
                negative: 0,
            }
        }

        fn note(&self, _: Mended, _: &Warnings) {}
    }

    #[test]
    fn rows_in_pieces_are_all_rows() {
        let parts = [
            Part::new(5, 1),
            Part::new(0, 2),
            Part::new(70, 3),
            Part::new(2, 4),
        ];
        let spec = spec(PackedFormat::NVFP4, 77, WIDTH);
        let rows = || {
            Rows::new(
                parts.iter().map(|part| part as &dyn PackedRows).collect(),
                spec,
            )
        };
        let whole = rows().read(&Warnings::new());
        for piece in [1, 100, 1000, 100_000] {
            let (mut codes, mut scales) = (Vec::new(), Vec::new());
            let mut mended = vec![Mended::default(); parts.len()];
            for range in pieces(77, spec.row_bytes(), piece) {
                assert!(range.start.is_multiple_of(4), "words begin there");
                let mut more =
                    [spec.row_bytes(), spec.scale_bytes()].map(|row| vec![0; range.len() * row]);
                let [codes_of, scales_of] = &mut more;
                let room = Room {
                    codes: codes_of,
                    scales: scales_of,
                };
                rows().copy(range, room, &mut mended);
                codes.append(&mut more[0]);
                scales.append(&mut more[1]);
            }
            assert_eq!((&codes, &scales), (&whole.codes, &whole.scales), "{piece}");
            let starts: Vec<u64> = mended.iter().map(|mended| mended.nan).collect();
            assert_eq!(starts, [1, 0, 1, 1], "{piece}");
        }
    }

    #[test]
    fn shorter_rows_are_told_from_whole_ones() {
        let part = Part::new(4, 0);
        let whole = Rows::new(vec![&part], spec(PackedFormat::NVFP4, 4, WIDTH));
        assert!(!whole.are_whole(), "48 of 64 columns are stored");
    }
}
