//! What a device that failed says.

use std::fmt;

/// What kept a device from doing its work, where its words are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It has no memory for so many bytes more.
    OutOfMemory {
        /// What was asked for.
        bytes: u64,
    },
    /// It does nothing any more for this process.
    Lost {
        /// What it said, in short.
        cause: String,
    },
}

impl Fault {
    /// The fault in a message of CubeCL.
    #[must_use]
    pub fn of(message: &str) -> Option<Self> {
        const NO_MEMORY: &str = "out of device memory allocating ";
        const LOST: [&str; 3] = ["device is poisoned", "device is lost", "device lost"];
        // Whatever else is said follows from it.
        let small = message.to_ascii_lowercase();
        if LOST.iter().any(|words| small.contains(words)) {
            let cause = status(message).unwrap_or_else(|| "the device is lost".into());
            return Some(Self::Lost { cause });
        }
        let (_, behind) = message.split_once(NO_MEMORY)?;
        let bytes = behind.split(|c: char| !c.is_ascii_digit()).next()?;
        Some(Self::OutOfMemory {
            bytes: bytes.parse().ok()?,
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory { bytes } => write!(f, "no memory for {bytes} bytes"),
            Self::Lost { cause } => f.write_str(cause),
        }
    }
}

/// The call of CUDA that failed, with what its number means.
fn status(message: &str) -> Option<String> {
    let (before, behind) = message.split_once(" failed with status ")?;
    let call = before.rsplit(char::is_whitespace).next()?;
    let number = behind.split(|c: char| !c.is_ascii_digit()).next()?;
    let meaning = match number {
        "214" => ", memory errors that cannot be corrected",
        "700" => ", an illegal address",
        "702" => ", a kernel took too long",
        "715" => ", an illegal instruction",
        "716" => ", a misaligned address",
        "719" => ", a kernel failed",
        _ => "",
    };
    Some(format!("{call}: CUDA error {number}{meaning}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_found_in_messages() {
        let full = "An IO error happened Caused by: out of device memory allocating 8388608 bytes No backtrace";
        let bytes = 8_388_608;
        assert_eq!(Fault::of(full), Some(Fault::OutOfMemory { bytes }));
        let lost = "The device is poisoned Caused by: cuEventSynchronize failed with status 719 Backtrace: none";
        let cause = "cuEventSynchronize: CUDA error 719, a kernel failed".into();
        assert_eq!(Fault::of(lost), Some(Fault::Lost { cause }));
        let both = Fault::of(&format!("{full} {lost}"));
        assert!(matches!(both, Some(Fault::Lost { .. })), "{both:?}");
        assert_eq!(Fault::of("index out of bounds"), None);
        assert_eq!(Fault::of("out of device memory allocating"), None);
    }
}
