//! Whether the adapters of a merge belong to its base.

use super::Source;
use crate::Result;
use crate::base::Base;
use crate::cur::fingerprint::{self, Deviation};

/// Whether a merge checks that its adapters were made on the values of the base. C and R come out of the base,
/// so other values make another change than the one that was trained. Names and shapes must fit in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BaseCheck {
    /// Refuses an adapter that was made on other values, with
    /// [`Error::OtherValues`](crate::Error::OtherValues).
    #[default]
    SameValues,
    /// Merges all the same, and reports how far the values differ in
    /// [`MergeReport::deviations`](super::MergeReport::deviations).
    AllowOtherValues,
    /// Checks nothing, for a caller that has checked: the digests take a pass over every target.
    Skip,
}

/// How far the base is from that of each adapter that was made on other values.
///
/// # Errors
/// Those of [`fingerprint::check`].
pub(super) fn deviations(
    base: &Base,
    sources: &[(Source<'_>, f32)],
    check: BaseCheck,
) -> Result<Vec<Deviation>> {
    let allow_other_values = match check {
        BaseCheck::SameValues => false,
        BaseCheck::AllowOtherValues => true,
        BaseCheck::Skip => return Ok(Vec::new()),
    };
    let own = sources.iter().filter_map(|(source, _)| match source {
        Source::Cur(adapter) => fingerprint::check(base, adapter, allow_other_values).transpose(),
        Source::Lora(_) => None,
    });
    own.collect()
}
