//! Whether an output fits the disk, asked before it is begun. A full disk after an hour helps nobody.

use std::path::Path;

use super::target::Target;
use crate::error::{Error, Result};

/// Smaller outputs are begun without asking, in bytes. A failed write costs nothing there.
const SMALL: u64 = 1 << 20;

/// Refuses an output of this many bytes if the file system of its folder has less free space.
pub(super) fn check(target: &Target, bytes: u64) -> Result<()> {
    match free(&target.parent) {
        Some(free) if bytes > SMALL && bytes > free => {
            Err(Error::NoSpace { path: target.shown.clone(), bytes, free })
        }
        _ => Ok(()),
    }
}

/// Bytes that a user may still write there; `None` if the system does not say.
#[cfg(unix)]
fn free(folder: &Path) -> Option<u64> {
    let space = rustix::fs::statvfs(folder).ok()?;
    // Some network file systems report no blocks at all.
    (space.f_blocks > 0).then(|| space.f_bavail.saturating_mul(space.f_frsize))
}

#[cfg(not(unix))]
fn free(_folder: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn an_output_larger_than_the_disk_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let target = Target::find(&folder.path().join("out")).unwrap();
        check(&target, SMALL + 1).unwrap();
        let refused = check(&target, u64::MAX).unwrap_err().to_string();
        assert!(refused.contains("out: ") && refused.contains(" GB are free"), "{refused}");
    }
}
