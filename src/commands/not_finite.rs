//! Why a result is NaN or infinite.

use crate::Error;
use crate::base::Base;

/// The error of a result that is not finite, with the tensor of the base that makes it so, if there is one.
pub(super) fn explained(error: Error, base: &Base) -> Error {
    match error {
        Error::NotFinite { .. } => base.must_be_finite().err().unwrap_or(error),
        _ => error,
    }
}
