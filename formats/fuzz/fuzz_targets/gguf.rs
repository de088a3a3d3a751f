//! Any bytes as a GGUF file: an error of one line, or a file whose tensors lie in it, decode, and give the
//! same header when written again.
#![no_main]

use curmerge_formats::{Gguf, GgufLayout, NewTensor, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    curmerge_formats_fuzz::with_file(bytes, |path| match Gguf::open(path) {
        Err(error) => assert!(!error.to_string().contains('\n')),
        Ok(file) => {
            for tensor in file.tensors() {
                let elements: u64 = tensor.dims.iter().product();
                let mut values = vec![0.0; elements as usize];
                let decoded = decode(tensor.dtype, file.data(tensor), &mut values);
                assert_eq!(decoded.is_ok(), tensor.dtype.can_decode());
            }
            let tensors = file
                .tensors()
                .iter()
                .map(|t| NewTensor { name: t.name.clone(), dtype: t.dtype, dims: t.dims.clone() })
                .collect();
            // Only names that llama.cpp would refuse are an error. Gaps between tensors and padding are not
            // kept.
            if let Ok(layout) = GgufLayout::new(file.version(), file.alignment(), file.metadata(), tensors) {
                let close =
                    file.tensors().iter().zip(layout.tensors()).all(|(old, new)| old.offset == new.offset);
                let padding = 2 * file.alignment() as usize;
                let end = layout.header().len().saturating_sub(padding).min(bytes.len());
                assert!(!close || layout.header()[..end] == bytes[..end]);
            }
        }
    });
});
