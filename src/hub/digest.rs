//! The digests that name files on the Hub.

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// The digest of bytes that arrive in pieces, of the kind that an ETag is.
#[derive(Clone, Debug)]
pub(super) enum Digest {
    /// Of large files, in Git LFS or Xet.
    Sha256(Box<Sha256>),
    /// Of small files: Git's hash of the content with its length before it. Some mirrors have the hash of the
    /// content alone.
    Sha1 { git: Box<Sha1>, plain: Box<Sha1> },
    /// The ETag of another server.
    None,
}

impl Digest {
    /// Of a file with this ETag and size.
    pub(super) fn new(etag: &str, size: Option<u64>) -> Self {
        let is_hex = etag.bytes().all(|b| b.is_ascii_hexdigit());
        match (etag.len(), size) {
            (64, _) if is_hex => Digest::Sha256(Box::default()),
            (40, Some(size)) if is_hex => {
                let git = Sha1::new_with_prefix(format!("blob {size}\0"));
                Digest::Sha1 { git: Box::new(git), plain: Box::default() }
            }
            _ => Digest::None,
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Digest::Sha256(sha) => sha.update(bytes),
            Digest::Sha1 { git, plain } => {
                git.update(bytes);
                plain.update(bytes);
            }
            Digest::None => {}
        }
    }

    /// Whether the bytes are those that the ETag names. Bytes of an ETag that is no digest are.
    pub(super) fn is(self, etag: &str) -> bool {
        let is = |digest: &[u8]| hex(digest).eq_ignore_ascii_case(etag);
        match self {
            Digest::Sha256(sha) => is(&sha.finalize()),
            Digest::Sha1 { git, plain } => is(&git.finalize()) || is(&plain.finalize()),
            Digest::None => true,
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_name_contents() {
        // `printf 'hello\n' | git hash-object --stdin`, `sha1sum` and `sha256sum`.
        let etags = [
            "ce013625030ba8dba906f756967f9e9ca394464a",
            "f572d396fae9206628714fb2ce00f72e94f2258f",
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
        ];
        let digest = |etag: &str, bytes: &[&[u8]]| {
            let mut digest = Digest::new(etag, Some(bytes.iter().map(|b| b.len() as u64).sum()));
            bytes.iter().for_each(|bytes| digest.update(bytes));
            digest.is(etag)
        };
        for etag in etags {
            assert!(digest(etag, &[b"hel", b"lo\n"]), "{etag}");
            assert!(digest(&etag.to_uppercase(), &[b"hello\n"]), "{etag}");
            assert!(!digest(etag, &[b"Hello\n"]) && !digest(etag, &[]), "{etag}");
        }
        assert!(digest("abc", &[b"anything"]));
    }
}
