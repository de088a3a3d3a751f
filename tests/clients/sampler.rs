//! What is left to draw from, by our sampler and by llama.cpp's.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use curmerge::base::Base;
use curmerge::model::{Sampler, SamplingOptions, Sequence, Transformer};
use serde_json::json;

use crate::support::fixture::demo;
use crate::support::venv;

#[test]
fn llama_cpp_draws_from_the_same_tokens() {
    let scratch = tempfile::tempdir().unwrap();
    let model = scratch.path().join("f32.gguf");
    curmerge!("convert", demo("model.gguf"), model, "--type", "f32").done();
    let base = Base::open(&model).unwrap();
    let text = "a bird of the family of birds that live in the water or near the water, and a bird of";
    let tokens = base.tokenizer().unwrap().encode_with_bos(text).unwrap();
    let plain = SamplingOptions::llama_cpp();
    let all = SamplingOptions { top_k: 0, top_p: 1.0, min_p: 0.0, temperature: 1.0, ..plain };
    let cases = [
        plain,
        all,
        SamplingOptions { temperature: 1.7, top_k: 7, ..all },
        SamplingOptions { top_p: 0.6, temperature: 0.5, ..all },
        SamplingOptions { min_p: 0.1, temperature: 2.0, ..all },
        SamplingOptions { top_k: 20, top_p: 0.8, min_p: 0.2, temperature: 1.3, ..all },
        SamplingOptions { repeat_penalty: 1.5, ..all },
        SamplingOptions { repeat_penalty: 1.2, repeat_last_n: 5, presence_penalty: 0.3, ..all },
        SamplingOptions { frequency_penalty: 0.4, presence_penalty: -0.2, ..plain },
    ];
    let names = |o: &SamplingOptions| {
        json!({
            "temperature": o.temperature, "top_k": o.top_k, "top_p": o.top_p, "min_p": o.min_p,
            "repeat_penalty": o.repeat_penalty, "repeat_last_n": o.repeat_last_n,
            "presence_penalty": o.presence_penalty, "frequency_penalty": o.frequency_penalty,
        })
    };
    let asked = json!({ "tokens": tokens, "options": cases.iter().map(names).collect::<Vec<_>>() });
    let words = [model.as_os_str(), OsStr::new("OUT")];
    let answer = venv::answer("sampled.py", &words, asked.to_string().as_bytes());
    let theirs: Vec<BTreeMap<String, f64>> = serde_json::from_value(answer).unwrap();
    let transformer = Transformer::<f32>::new(&base).unwrap();
    let logits = Sequence::new(&transformer).read(&transformer, &tokens).unwrap().to_vec();
    let mut sizes = Vec::new();
    for (options, theirs) in cases.into_iter().zip(theirs) {
        let mut sampler = Sampler::new(options, 0);
        tokens.iter().for_each(|&token| sampler.accept(token));
        let ours = sampler.probabilities(&logits);
        for (token, probability) in &ours {
            let right = theirs.get(&token.to_string()).copied().unwrap_or(0.0);
            // The server leaves tokens of probability 0 out.
            assert!((right - probability).abs() < 2e-5, "{options:?}: {token}: {probability}, not {right}");
        }
        let known = ours.iter().filter(|(token, _)| theirs.contains_key(&token.to_string())).count();
        assert_eq!(known, theirs.len(), "{options:?}: {} tokens are ours", ours.len());
        sizes.push(ours.len());
    }
    println!("tokens left: {sizes:?}");
    assert!(sizes[0] > 1 && sizes[1] > 2000 && sizes[2] == 7 && sizes[3] < 500);
}
