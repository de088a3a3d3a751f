//! Any bytes as an adapter, with corrected digests so that the checks after them are reached. The result is
//! an error of one line, or an adapter that survives being written and read again.
#![no_main]

use curmerge_formats::{Adapter, SafeTensors, sha256_hex};
use libfuzzer_sys::fuzz_target;

const DIGITS: usize = 64;

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.to_vec();
    curmerge_formats_fuzz::with_file(&bytes.clone(), |path| correct_tensor_digests(&mut bytes, path));
    correct_file_digest(&mut bytes);
    curmerge_formats_fuzz::with_file(&bytes, |path| match Adapter::read(path) {
        Err(error) => assert!(!error.to_string().contains('\n')),
        Ok(adapter) => {
            let again = adapter.to_bytes().expect("what was read can be written");
            std::fs::write(path, &again).expect("a write");
            assert_eq!(Adapter::read(path).expect("what was written can be read"), adapter);
        }
    });
});

/// Puts the digest of each tensor into the header, after the key of its record.
fn correct_tensor_digests(bytes: &mut [u8], path: &std::path::Path) {
    let Ok(file) = SafeTensors::open(path) else { return };
    for tensor in file.tensors() {
        let Some((name, part)) = tensor.name.rsplit_once('.') else { continue };
        let digest = sha256_hex(file.data(tensor));
        let Some(record) = find(bytes, format!("\\\"{name}\\\":").as_bytes(), 0) else { continue };
        if let Some(at) = find(bytes, format!("{part}_sha256\\\":\\\"").as_bytes(), record) {
            let start = at + part.len() + "_sha256\\\":\\\"".len();
            if let Some(place) = bytes.get_mut(start..start + DIGITS) {
                place.copy_from_slice(digest.as_bytes());
            }
        }
    }
}

/// Puts the digest of the whole file into the header.
fn correct_file_digest(bytes: &mut [u8]) {
    let before = b"\"sha256\":\"";
    let Some(start) = find(bytes, before, 0).map(|at| at + before.len()) else { return };
    if bytes.len() < start + DIGITS {
        return;
    }
    bytes[start..start + DIGITS].fill(b'0');
    let digest = sha256_hex(bytes);
    bytes[start..start + DIGITS].copy_from_slice(digest.as_bytes());
}

fn find(bytes: &[u8], words: &[u8], from: usize) -> Option<usize> {
    bytes[from..].windows(words.len()).position(|window| window == words).map(|at| from + at)
}
