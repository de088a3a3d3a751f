//! Whether the adapters of a merge belong to its base.

use super::Source;
use crate::Result;
use crate::base::Base;
use crate::cur::fingerprint::{self, BaseCheck, Deviation};

/// How far the base is from that of each adapter that was made on other values.
///
/// # Errors
/// Those of [`fingerprint::check`].
pub(super) fn deviations(
    base: &Base,
    sources: &[(Source<'_>, f32)],
    check: BaseCheck,
) -> Result<Vec<Deviation>> {
    let own = sources.iter().filter_map(|(source, _)| match source {
        Source::Cur(adapter) => fingerprint::check(base, adapter, check).transpose(),
        Source::Lora(_) | Source::Trained(_) => None,
    });
    own.collect()
}
