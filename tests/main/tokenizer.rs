//! The demo model's tokenizer against llama.cpp's tokens (`fixtures/tokenizer`).

use curmerge::chat::{ChatTemplate, Message};
use curmerge::tokenizer::Tokenizer;
use curmerge_formats::gguf::Gguf;

use crate::support::fixture;

fn demo() -> Gguf {
    Gguf::open(&fixture::demo("model.gguf")).unwrap()
}

#[test]
fn hard_strings_have_llama_cpps_tokens_and_decode_to_themselves() {
    let tokenizer = Tokenizer::from_gguf(&demo()).unwrap();
    let goldens = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/tokenizer/demo.jsonl"));
    for line in goldens.lines() {
        let golden: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = golden["text"].as_str().unwrap();
        let [ids, ordinary]: [Vec<u32>; 2] =
            ["ids", "ordinary"].map(|name| serde_json::from_value(golden[name].clone()).unwrap());
        assert_eq!(tokenizer.encode(text, false).unwrap(), ids, "{text:?}");
        assert_eq!(tokenizer.encode_ordinary(text, false).unwrap(), ordinary, "{text:?}");
        assert_eq!(tokenizer.decode(&ids), text);
        assert_eq!(tokenizer.decode(&ordinary), text);
    }
    assert!(goldens.lines().count() > 70);
}

#[test]
fn the_chat_template_renders_turns_and_end_tokens() {
    let demo = demo();
    let tokenizer = Tokenizer::from_gguf(&demo).unwrap();
    let template = ChatTemplate::from_gguf(&demo, &tokenizer).unwrap();
    let ids = template.encode(&tokenizer, &[Message::new("user", "hi")], true).unwrap();
    let text = tokenizer.decode(&ids);
    assert!(text.ends_with("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"), "{text}");
    assert!(ids.iter().any(|&id| tokenizer.is_end(id)));
}
