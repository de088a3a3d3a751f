//! Any text as a chat template: an error of one line, or a text of bounded length that is the same again.
#![no_main]

use curmerge::chat::{ChatTemplate, Message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|source: &str| {
    let template = ChatTemplate::new(source.to_owned(), "<s>".into(), "</s>".into());
    let messages =
        [Message::new("system", "be kind"), Message::new("user", "hi"), Message::new("assistant", "é")];
    match template.render(&messages, true) {
        Err(error) => assert!(!error.to_string().contains('\n')),
        Ok(text) => {
            assert!(text.len() < 1 << 28);
            // A template may ask for the time.
            if !source.contains("strftime_now") {
                assert_eq!(template.render(&messages, true).expect("what was rendered"), text);
            }
        }
    }
});
