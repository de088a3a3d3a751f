//! Any bytes as an ONNX file: an error of one line, or a model whose tensors lie in it and that keeps its
//! bytes when written without changes.
#![no_main]

use curmerge_formats::onnx::{Onnx, RewriteOptions, rewrite};
use curmerge_formats::output::Piece;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    curmerge_formats_fuzz::with_file(bytes, |path| match Onnx::open(path) {
        Err(error) => assert!(!error.to_string().contains('\n')),
        Ok(model) => {
            for tensor in model.tensors() {
                if let Ok(data) = model.data(tensor) {
                    assert_eq!(data.len() as u64, tensor.bytes);
                }
                if let Ok(values) = model.decode(tensor) {
                    assert_eq!(values.len() as u64, tensor.elements());
                }
            }
            let files = rewrite(&model, &[], &RewriteOptions::new("new.data")).expect("no change to refuse");
            let same = |piece: &Piece| matches!(piece, Piece::Copy { offset: 0, .. });
            let last = files.last().expect("the model file");
            assert!(last.pieces.bytes() == bytes.len() as u64 && last.pieces.iter().all(same));
        }
    });
});
