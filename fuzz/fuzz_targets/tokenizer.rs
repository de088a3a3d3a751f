//! Any bytes as a tokenizer.json: an error of one line, or a tokenizer whose tokens are in its vocabulary. A
//! text gets the same tokens again.
#![no_main]

use curmerge::tokenizer::Tokenizer;
use libfuzzer_sys::fuzz_target;

const TEXTS: [&str; 4] = ["", "a", "a cat,  1234\n\té 東\u{200d}\0", "<s> <|end|>\n\n  x"];

fuzz_target!(|bytes: &[u8]| {
    curmerge_fuzz::with_file("tokenizer.json", bytes, |folder| match Tokenizer::from_hf_folder(folder) {
        Err(error) => assert!(!error.to_string().contains('\n')),
        Ok(tokenizer) => {
            for text in TEXTS {
                let Ok(ids) = tokenizer.encode(text, true) else { continue };
                assert!(ids.len() <= 4096 * (text.len() + 1));
                assert_eq!(tokenizer.encode(text, true).expect("what was encoded"), ids);
                let _ = tokenizer.encode_ordinary(text, false);
                let _ = tokenizer.decode(&ids);
            }
        }
    });
});
