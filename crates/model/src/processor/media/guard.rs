//! A wall around decoders: their bugs are errors of the file at hand, not the end of the program.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::error::MediaError;

/// Runs `decode` and turns a panic inside of it into the error that the file `name`, a `kind`, is
/// damaged.
///
/// Property tests find inputs for which the decoders used here overflow in builds that check for
/// it. Nothing that a panicking decoder leaves behind is looked at again, which is what makes going
/// on safe.
pub(super) fn guarded<T>(
    name: &str,
    kind: &str,
    decode: impl FnOnce() -> Result<T, MediaError>,
) -> Result<T, MediaError> {
    catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err(MediaError::damaged(name, kind, "the decoder stopped at it")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_that_names_the_file() {
        let error = guarded::<()>("a.wav", "wav audio", || panic!("overflow")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`a.wav`: damaged wav audio: the decoder stopped at it"
        );
        assert!(guarded("a.wav", "wav audio", || Ok(1)).is_ok());
    }
}
