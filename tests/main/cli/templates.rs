//! `--chat-template` of commands that write a model.

use std::fs;
use std::path::Path;

use curmerge::Base;
use curmerge_formats::gguf::Gguf;

use super::folder;
use crate::support::adapter::{Recipe, random};
use crate::support::fixture;

/// The template that a model is used with.
fn template(model: &Path) -> Option<String> {
    Base::open(model).unwrap().chat_templates().unwrap().used().map(str::to_owned)
}

#[test]
fn merges_and_conversions_get_the_given_template() {
    let scratch = folder();
    let path = |name: &str| scratch.path().join(name);
    let hf = fixture::path("arch/qwen2/hf");
    let own = path("own");
    fs::create_dir(&own).unwrap();
    for entry in fs::read_dir(hf).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), own.join(entry.file_name())).unwrap();
    }
    // A folder with templates in two files, one of them with a name.
    let config = own.join("tokenizer_config.json");
    let text = fs::read_to_string(&config).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["chat_template"] = "old".into();
    fs::write(&config, json.to_string()).unwrap();
    fs::write(own.join("chat_template.jinja"), "old").unwrap();
    fs::create_dir(own.join("additional_chat_templates")).unwrap();
    fs::write(own.join("additional_chat_templates/tools.jinja"), "of tools").unwrap();
    let given = path("given.jinja");
    fs::write(&given, "given {{ messages }}").unwrap();

    let [adapter, gguf, folder] = ["a", "plain.gguf", "plain"].map(path);
    let base = Base::open(&own).unwrap();
    Recipe::default().adapter(&base, random(0.1, 1)).write(&adapter, &[]).unwrap();
    curmerge!("convert", &own, &gguf).done();
    curmerge!("convert", &gguf, &folder).done();
    assert_eq!((template(&gguf).as_deref(), template(&folder).as_deref()), (Some("old"), Some("old")));

    for (name, option) in [("of tools", "tools"), ("given {{ messages }}", given.to_str().unwrap())] {
        let wanted = Some(name.to_owned());
        let [a, b, c, d, e, f] = ["a.gguf", "b.gguf", "c", "d.gguf", "e.gguf", "f"]
            .map(|out| path(&format!("{option:.3}-{out}").replace('/', "_")));
        curmerge!("merge", &own, &adapter, "-o", &a, "--chat-template", option).done();
        curmerge!("merge", &gguf, &adapter, "-o", &b, "--chat-template", option).done();
        curmerge!("merge", &own, &adapter, "-o", &c, "--chat-template", option).done();
        curmerge!("convert", &own, &d, "--chat-template", option).done();
        curmerge!("convert", &gguf, &e, "--type", "q8_0", "--chat-template", option).done();
        curmerge!("convert", &gguf, &f, "--chat-template", option).done();
        for out in [&a, &b, &c, &d, &e, &f] {
            assert_eq!(template(out), wanted, "{}", out.display());
        }
        // Nothing of the folder disagrees, and the other templates and tensors stay.
        let base = Base::open(&c).unwrap();
        assert_eq!(base.chat_templates().unwrap().conflict(), None);
        assert_eq!(base.chat_templates().unwrap().get("tools"), Some("of tools"));
        let keys = |file: &Path| Gguf::open(file).unwrap().metadata().len();
        assert_eq!(keys(&b), keys(&gguf));
    }
    let refused = curmerge!("merge", &own, &adapter, "-o", path("x"), "--chat-template", "none");
    assert!(
        refused
            .refusal()
            .contains("the model has no chat template 'none'; name a file, or one of the model's own")
    );
    let refused = curmerge!("convert", &own, path("x.onnx"), "--chat-template", "tools");
    assert!(refused.refusal().contains("--chat-template is for GGUF files and Hugging Face folders"));
}
