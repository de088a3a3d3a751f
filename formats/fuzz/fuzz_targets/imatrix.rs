//! Any bytes as an importance matrix: an error of one line, or weights that an encoder accepts.
#![no_main]

use curmerge_formats::Imatrix;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    curmerge_formats_fuzz::with_file(bytes, |path| match Imatrix::open(path) {
        Err(error) => assert!(!error.to_string().contains('\n')),
        Ok(file) => {
            let weights = file.names().map(|name| file.weights(name).expect("weights of a name"));
            for weights in weights {
                assert!(!weights.is_empty() && 4 * weights.len() <= bytes.len());
                assert!(weights.iter().all(|weight| weight.is_finite() && *weight >= 0.0));
            }
        }
    });
});
