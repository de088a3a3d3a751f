//! Any bytes as a file of examples: an error of one line, or examples within the length asked for.
#![no_main]

use curmerge::chat::ChatTemplate;
use curmerge::train::data::{DataOptions, Dataset};
use libfuzzer_sys::fuzz_target;

const TEMPLATE: &str = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}";

fuzz_target!(|bytes: &[u8]| {
    let template = ChatTemplate::new(TEMPLATE.into(), String::new(), String::new());
    let options = DataOptions { max_seq_len: 64, append_eos: true, ..DataOptions::default() };
    curmerge_fuzz::with_file("data", bytes, |folder| {
        curmerge_fuzz::with_tokenizer(|tokenizer| {
            match Dataset::read(folder.join("data"), tokenizer, Some(&template), &options) {
                Err(error) => assert!(!error.to_string().contains('\n')),
                Ok(data) => {
                    assert!(!data.examples.is_empty());
                    for example in &data.examples {
                        assert!(
                            example.tokens.len() <= 64 && example.loss_mask.len() == example.tokens.len()
                        );
                        assert!(example.loss_mask.contains(&true) && !example.loss_mask[0]);
                    }
                }
            }
        });
    });
});
