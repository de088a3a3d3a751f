//! Any bytes as a safetensors file: an error of one line, or a file that its tensors cover and that can be
//! written and read again.
#![no_main]

use curmerge_formats::{NewSafeTensor, SafeTensors, SafeTensorsLayout};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    curmerge_formats_fuzz::with_file(bytes, |path| match SafeTensors::open(path) {
        Err(error) => assert!(!error.to_string().contains('\n')),
        Ok(file) => {
            let total: usize = file.tensors().iter().map(|tensor| file.data(tensor).len()).sum();
            assert!(total < bytes.len());
            let tensors = file
                .tensors()
                .iter()
                .map(|t| NewSafeTensor { name: t.name.clone(), dtype: t.dtype, shape: t.shape.clone() })
                .collect();
            let layout =
                SafeTensorsLayout::new(file.metadata(), tensors).expect("what was read can be written");
            let mut again = layout.header().to_vec();
            again.resize(layout.file_bytes() as usize, 0);
            std::fs::write(path, again).expect("a write");
            let back = SafeTensors::open(path).expect("what was written can be read");
            assert_eq!(back.metadata(), file.metadata());
            layout.tensors().iter().for_each(|tensor| assert_eq!(back.tensor(&tensor.name), Some(tensor)));
        }
    });
});
