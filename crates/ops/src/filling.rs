//! Tensors of a GPU that are filled from the host piece by piece, each made where the device copies it from.

use burn::tensor::{DType, Device, Int, Tensor};

#[cfg(feature = "cube")]
use crate::cube::filling::Room;
use crate::{Packed, PackedSpec};
#[cfg(not(feature = "cube"))]
use no_room::Room;

/// Bytes of a piece: long enough for a bus, and few enough that two or three of them are little memory of the host.
pub const PIECE: usize = 32 << 20;

/// Whether there is such memory on a device: on GPUs.
#[must_use]
pub fn runs_on(device: &Device) -> bool {
    Room::is_on(device)
}

/// Numbers of a GPU that are filled from the first to the last.
pub struct Filling {
    numbers: Tensor<1>,
    room: Room,
}

impl Filling {
    /// Room for `count` numbers of `dtype`; `None` where the device is no GPU, or the numbers are no whole words.
    #[must_use]
    pub fn new(count: usize, (device, dtype): (&Device, DType)) -> Option<Self> {
        let bytes = whole_words(count * dtype.size())?;
        Room::is_on(device).then_some(())?;
        // As one row, for tensors of more would have gaps.
        let numbers = Tensor::empty([count], (device, dtype));
        let room = Room::of_floats(numbers.clone(), bytes)?;
        Some(Self { numbers, room })
    }

    /// The next `bytes` bytes, little-endian: `make` writes all of them. All but the last ones are whole words; more than
    /// [`PIECE`] at a time are slow.
    ///
    /// # Panics
    /// When there is no room for so many.
    pub fn next(&mut self, bytes: usize, make: impl FnOnce(&mut [u8])) {
        self.room.next(bytes, make);
    }

    /// The numbers.
    ///
    /// # Panics
    /// When not every byte was filled.
    #[must_use]
    pub fn finish(self) -> Tensor<1> {
        assert!(self.room.is_full(), "every byte was filled");
        self.numbers
    }
}

/// A packed matrix on a GPU, whose rows are filled from the first to the last.
pub struct PackedFilling {
    spec: PackedSpec,
    codes: Tensor<1, Int>,
    scales: Tensor<1, Int>,
    rooms: [Room; 2],
}

impl PackedFilling {
    /// Room for all rows; `None` where the device is no GPU, or what a row has is no whole words.
    #[must_use]
    pub fn new(spec: PackedSpec, device: &Device) -> Option<Self> {
        let rows = spec.matrices * spec.rows;
        let bytes = [spec.row_bytes(), spec.scale_bytes()].map(|row| whole_words(rows * row));
        let [codes, scales] = [bytes[0]?, bytes[1]?];
        Room::is_on(device).then_some(())?;
        let empty = |bytes: usize| Tensor::empty([bytes / WORD], (device, DType::U32));
        let words = [empty(codes), empty(scales)];
        let rooms = [
            Room::of_words(words[0].clone(), codes)?,
            Room::of_words(words[1].clone(), scales)?,
        ];
        let [codes, scales] = words;
        Some(Self {
            spec,
            codes,
            scales,
            rooms,
        })
    }

    /// The next rows: `make` writes all codes and all scales of them, in checkpoint order. All but the last ones are whole
    /// words of both.
    ///
    /// # Panics
    /// When there is no room for so many.
    pub fn next(&mut self, rows: usize, make: impl FnOnce(&mut [u8], &mut [u8])) {
        let [codes, scales] = [self.spec.row_bytes(), self.spec.scale_bytes()];
        let [code_room, scale_room] = &mut self.rooms;
        if code_room.skip(rows * codes) && scale_room.skip(rows * scales) {
            return;
        }
        code_room.next(rows * codes, |codes| {
            scale_room.next(rows * scales, |scales| make(codes, scales));
        });
    }

    /// The matrix; `gains` has one factor a row.
    ///
    /// # Panics
    /// When not every row was filled.
    #[must_use]
    pub fn finish(self, gains: Vec<f32>) -> Packed {
        assert!(self.rooms.iter().all(Room::is_full), "every row was filled");
        let gains = crate::packed::gains(gains, &self.codes.device());
        let parts = (self.codes.into_dispatch(), self.scales.into_dispatch());
        Packed::stored(parts, gains, self.spec)
    }
}

/// Whether all that makes these numbers was queued on their device, which is known without waiting for it.
///
/// # Errors
/// What the device said otherwise.
pub fn check(numbers: &Tensor<1>) -> Result<(), String> {
    let room = Room::of_floats(numbers.clone(), 0);
    room.map_or(Ok(()), |room| room.check())
}

/// The same for a packed matrix.
///
/// # Errors
/// As [`check`].
pub fn check_packed(packed: &Packed) -> Result<(), String> {
    let (codes, scales, _) = packed.parts();
    for words in [codes, scales] {
        let room = Room::of_words(words, 0);
        room.map_or(Ok(()), |room| room.check())?;
    }
    Ok(())
}

const WORD: usize = size_of::<u32>();

/// So many bytes, if they are words and there are any.
fn whole_words(bytes: usize) -> Option<usize> {
    (bytes > 0 && bytes.is_multiple_of(WORD)).then_some(bytes)
}

/// Without GPUs there is nothing to fill.
#[cfg(not(feature = "cube"))]
mod no_room {
    use burn::tensor::{Device, Int, Tensor};

    pub(super) enum Room {}

    impl Room {
        pub(super) fn is_on(_: &Device) -> bool {
            false
        }

        pub(super) fn of_floats(_: Tensor<1>, _: usize) -> Option<Self> {
            None
        }

        pub(super) fn of_words(_: Tensor<1, Int>, _: usize) -> Option<Self> {
            None
        }

        pub(super) fn is_full(&self) -> bool {
            match *self {}
        }

        pub(super) fn next(&mut self, _: usize, _: impl FnOnce(&mut [u8])) {
            match *self {}
        }

        pub(super) fn skip(&mut self, _: usize) -> bool {
            match *self {}
        }

        pub(super) fn check(&self) -> Result<(), String> {
            match *self {}
        }
    }
}
