//! Tests of the whole tokenizer on small made-up vocabularies, which other modules' tests share.

use super::gguf::Metadata;
use super::*;

/// A ChatML template, as of many chat models.
pub(crate) const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// The metadata of a byte-level vocabulary: three marks (0 `<|endoftext|>`, 1 `<|im_start|>`, 2 `<|im_end|>`), the 256
/// bytes from 3 on, then four merged tokens.
fn byte_level_metadata() -> Metadata {
    let mut tokens: Vec<String> = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(String::from).to_vec();
    let printable = (0x21..=0x7eu32).chain(0xa1..=0xac).chain(0xae..=0xff);
    tokens.extend(printable.chain(0x100..=0x143).filter_map(char::from_u32).map(String::from));
    tokens.extend(["he", "ll", "hell", "hello"].map(String::from));
    let mut types = vec![1; tokens.len()];
    types[..3].fill(3);
    Metadata {
        model: "gpt2".into(),
        pre: Some("gpt-2".into()),
        tokens,
        types,
        merges: Some(["h e", "l l", "he ll", "hell o", "no merge", "x"].map(String::from).to_vec()),
        token_ids: vec![("tokenizer.ggml.bos_token_id", 1), ("tokenizer.ggml.eos_token_id", 2)],
        ..Metadata::default()
    }
}

/// A byte-level tokenizer of 263 tokens with BOS 1, EOS 2 and a ChatML template; `adds_bos` as asked.
pub(crate) fn byte_level(adds_bos: bool, template: Option<&str>) -> Tokenizer {
    let metadata = Metadata { add_bos: Some(adds_bos), ..byte_level_metadata() };
    Tokenizer::from_metadata(metadata, template.map(String::from)).unwrap()
}

fn sentencepiece() -> Tokenizer {
    let mut tokens = ["<unk>", "<s>", "</s>", "▁", "h", "i", "hi", "▁hi"].map(String::from).to_vec();
    let mut types = vec![2, 3, 3, 1, 1, 1, 1, 1];
    tokens.extend((0..=255u8).map(|byte| format!("<0x{byte:02X}>")));
    types.resize(tokens.len(), 6);
    let mut scores = vec![0.0, 0.0, 0.0, -9.0, -8.0, -7.0, -2.0, -1.0];
    scores.resize(tokens.len(), 0.0);
    let metadata = Metadata { model: "llama".into(), tokens, types, scores, ..Metadata::default() };
    Tokenizer::from_metadata(metadata, None).unwrap()
}

fn error(change: impl FnOnce(&mut Metadata)) -> String {
    let mut metadata = byte_level_metadata();
    change(&mut metadata);
    Tokenizer::from_metadata(metadata, None).unwrap_err().to_string()
}

#[test]
fn byte_level_text_goes_round() {
    let tokenizer = byte_level(false, None);
    let size = tokenizer.vocab_size() as u32;
    assert_eq!(tokenizer.encode("hello", true).unwrap(), [size - 1]);
    for text in ["", "hello hell", "naïve 東京\n\n  x", "a<|im_end|>b", "\u{0}\u{85}😀"] {
        assert_eq!(tokenizer.decode(&tokenizer.encode(text, true).unwrap()), text);
    }
    assert_eq!(tokenizer.encode("<|im_start|>hello<|im_end|>", false).unwrap(), [1, size - 1, 2]);
}

#[test]
fn settings_follow_the_keys() {
    let tokenizer = byte_level(true, Some(CHATML));
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), Some(2)));
    assert!(tokenizer.adds_bos() && !tokenizer.adds_eos());
    assert!(tokenizer.is_end(0) && tokenizer.is_end(2) && !tokenizer.is_end(1));
    assert_eq!(tokenizer.encode("", true).unwrap(), [1]);
    assert!(tokenizer.encode("", false).unwrap().is_empty());
    let chat = tokenizer.encode_chat(&[Message::new("user", "hello")], true).unwrap();
    assert_eq!(tokenizer.decode(&chat), "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n");
    assert!(byte_level(false, None).encode_chat(&[], true).is_err());
}

#[test]
fn ids_out_of_range_are_nothing() {
    for tokenizer in [byte_level(false, None), sentencepiece()] {
        assert!(tokenizer.token_bytes(u32::MAX).is_empty());
        assert_eq!(tokenizer.decode(&[u32::MAX]), "");
        assert!(!tokenizer.is_end(u32::MAX));
    }
}

#[test]
fn sentencepiece_puts_a_space_at_the_start_and_behind_special_tokens() {
    let tokenizer = sentencepiece();
    assert_eq!(tokenizer.encode("hi", true).unwrap(), [1, 7]);
    assert_eq!(tokenizer.encode("hi</s>hi", false).unwrap(), [7, 2, 7]);
    assert_eq!(tokenizer.encode_after(&[7], "hi").unwrap(), [6]);
    assert_eq!(tokenizer.encode_after(&[7], " hi").unwrap(), [7]);
    assert_eq!(tokenizer.encode_after(&[1], "hi").unwrap(), [7]);
    let text = "hi é\n  hi";
    assert_eq!(tokenizer.decode(&tokenizer.encode(text, false).unwrap()), text);
}

#[test]
fn bad_metadata_is_an_error_that_names_the_key() {
    assert!(error(|m| m.model = "bert".into()).contains("\"llama\""));
    assert!(error(|m| m.pre = Some("nonsense".into())).contains("\"nonsense\""));
    assert!(error(|m| m.tokens.clear()).contains("tokenizer.ggml.tokens"));
    assert!(error(|m| m.types.truncate(5)).contains("tokenizer.ggml.token_type"));
    assert!(error(|m| m.merges = None).contains("tokenizer.ggml.merges"));
    assert!(error(|m| m.token_ids[0].1 = 1 << 40).contains("tokenizer.ggml.bos_token_id"));
    assert!(error(|m| m.token_ids[1].1 = 9999).contains("tokenizer.ggml.eos_token_id"));
    let no_bos = error(|m| {
        m.token_ids.remove(0);
        m.add_bos = Some(true);
    });
    assert!(no_bos.contains("tokenizer.ggml.add_bos_token"), "{no_bos}");
}

#[test]
fn a_vocabulary_with_holes_encodes_what_it_can() {
    let metadata = Metadata {
        tokens: ["a", "b"].map(String::from).to_vec(),
        types: Vec::new(),
        token_ids: Vec::new(),
        ..byte_level_metadata()
    };
    let tokenizer = Tokenizer::from_metadata(metadata, None).unwrap();
    assert_eq!(tokenizer.encode("a é b hell", true).unwrap(), [0, 1]);
}

#[test]
fn a_hugging_face_folder_gives_the_same_tokens() {
    let metadata = byte_level_metadata();
    let vocabulary: serde_json::Map<String, serde_json::Value> =
        metadata.tokens.iter().zip(0..).map(|(token, id)| (token.clone(), u32::into(id))).collect();
    let added: Vec<_> = metadata.tokens[..3]
        .iter()
        .zip(0u32..)
        .map(|(content, id)| {
            serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let step = serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let json = serde_json::json!({
        "version": "1.0", "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": null, "added_tokens": added, "normalizer": null, "pre_tokenizer": step, "post_processor": null,
        "decoder": step,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary,
            "merges": ["h e", "l l", "he ll", "hell o"]},
    });
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    write("tokenizer.json", json.to_string());
    write(
        "tokenizer_config.json",
        r#"{"bos_token": "<|im_start|>", "eos_token": {"content": "<|im_end|>"}, "add_bos_token": true}"#
            .into(),
    );
    write("generation_config.json", r#"{"eos_token_id": [2, 5, 99999]}"#.into());
    write("chat_template.jinja", CHATML.into());
    let ours = byte_level(true, Some(CHATML));
    let theirs = Tokenizer::from_hf_folder(folder.path()).unwrap();
    for text in ["", "hello hell", "naïve 東京\n\n  x  don't 123", "a<|im_end|>b", "\u{0}😀"] {
        assert_eq!(theirs.encode(text, true).unwrap(), ours.encode(text, true).unwrap(), "{text}");
        assert_eq!(theirs.decode(&theirs.encode(text, false).unwrap()), text);
    }
    assert_eq!(
        (theirs.bos(), theirs.eos(), theirs.vocab_size()),
        (ours.bos(), ours.eos(), ours.vocab_size())
    );
    assert!(theirs.is_end(0) && theirs.is_end(2) && theirs.is_end(5) && theirs.adds_bos());
    let talk = [Message::new("user", "hello")];
    assert_eq!(theirs.encode_chat(&talk, true).unwrap(), ours.encode_chat(&talk, true).unwrap());

    write("tokenizer_config.json", r#"{"bos_token": "<none>"}"#.into());
    let error = Tokenizer::from_hf_folder(folder.path()).unwrap_err().to_string();
    assert!(error.contains("tokenizer_config.json: bos_token"), "{error}");
    write("tokenizer.json", "{\"version\": ".into());
    let error = Tokenizer::from_hf_folder(folder.path()).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json: ") && !error.contains('\n'), "{error}");
    let error = Tokenizer::from_hf_folder(&folder.path().join("none")).unwrap_err().to_string();
    assert!(error.contains("save_pretrained"), "{error}");
}
