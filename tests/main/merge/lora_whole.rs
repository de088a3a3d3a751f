//! PEFT folders that hold whole weights beside their LoRA: right where these are the base's own.

use std::fs;

use curmerge::lora::{Lora, peft};
use serde_json::{Value as Json, json};

use super::lora::{Fixture, matrices, write};

/// Adds a whole weight, the embedding's of the base times `factor`, to a PEFT folder, and opens it.
fn opened(base: &str, tensor: &str, modules: Json, factor: f32) -> Result<Lora, String> {
    let fixture = Fixture::new();
    let (folder, base) = (fixture.peft(false), fixture.base(base));
    let embedding = base.weight("token_embd").unwrap();
    let values = embedding.vector().iter().map(|x| factor * x).collect();
    let mut tensors = matrices(&folder);
    tensors.push((tensor.into(), [embedding.rows() as u64, embedding.cols() as u64], values));
    write(&folder.join(peft::WEIGHTS), &tensors);
    let path = folder.join(peft::CONFIG);
    let mut config: Json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["modules_to_save"] = modules;
    fs::write(&path, config.to_string()).unwrap();
    Lora::open(&folder, &base).map_err(|e| e.to_string())
}

#[test]
fn whole_modules_must_be_the_bases_own() {
    let embedding = "base_model.model.model.embed_tokens.weight";
    for base in ["tiny.gguf", "tiny-hf"] {
        let modules = || json!(["embed_tokens"]);
        assert!(opened(base, embedding, modules(), 1.0).is_ok());
        let raw = "base_model.model.model.embed_tokens.modules_to_save.default.weight";
        assert!(opened(base, raw, modules(), 1.0).is_ok());
        let error = opened(base, embedding, modules(), 1.01).unwrap_err();
        assert!(error.contains("embed_tokens") && error.contains("was trained as a whole"), "{error}");
        // The tied head is the embedding.
        assert!(opened(base, "base_model.model.lm_head.weight", json!(["lm_head"]), 1.0).is_ok());
        let error = opened(base, embedding, json!(["embed_tokens", "lm_head"]), 1.0).unwrap_err();
        assert!(error.contains("modules_to_save") && error.contains("'lm_head'"), "{error}");
    }
}

#[test]
fn a_base_layer_must_be_the_bases_own() {
    let name = "base_model.model.model.embed_tokens.base_layer.weight";
    assert!(opened("tiny-hf", name, Json::Null, 1.0).is_ok());
    let error = opened("tiny-hf", name, Json::Null, 0.9).unwrap_err();
    assert!(error.contains("differs from the base"), "{error}");
    let error = opened("tiny-hf", "base_model.model.vision.base_layer.weight", Json::Null, 1.0).unwrap_err();
    assert!(error.contains("nothing that the base has"), "{error}");
}

#[test]
fn an_adapter_that_changes_nothing_is_noticed() {
    let fixture = Fixture::new();
    let (folder, base) = (fixture.peft(false), fixture.base("tiny-hf"));
    let notes = |folder| Lora::open(folder, &base).unwrap().notes(&base).unwrap();
    assert!(notes(&folder).is_empty(), "{:?}", notes(&folder));
    let zero = |(name, shape, values): (String, [u64; 2], Vec<f32>)| {
        let factor = if name.contains("lora_B") { 0.0 } else { 1.0 };
        (name, shape, values.iter().map(|x| factor * x).collect())
    };
    let tensors: Vec<_> = matrices(&folder).into_iter().map(zero).collect();
    write(&folder.join(peft::WEIGHTS), &tensors);
    assert!(notes(&folder)[0].contains("changes nothing"));
}
