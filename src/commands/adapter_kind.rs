//! What a file is that was named as an adapter and is none of curmerge's own.

use std::io::Read;
use std::path::Path;

use curmerge_formats::adapter::Adapter;
use curmerge_formats::detect::{Container, detect};
use curmerge_formats::gguf::{Gguf, Value};
use curmerge_formats::input;

use super::arguments::AdapterPart;
use crate::base::Base;
use crate::base::folder::Folder;
use crate::chat::Templates;
use crate::commands::report::terminal;
use crate::lora::{Lora, peft};
use crate::{Error, Result};

/// Warns if a trainer saved another chat template beside a LoRA than the base has: the output keeps the base's.
pub(super) fn warn_of_templates(base: &Base, adapters: &[AdapterPart]) -> Result<()> {
    adapters.iter().try_for_each(|part| warn_of_template(base, &part.path))
}

fn warn_of_template(base: &Base, adapter: &Path) -> Result<()> {
    if !adapter.is_dir() || !Lora::is_lora(adapter) || base.given_chat().template.is_some() {
        return Ok(());
    }
    let own = Templates::of_folder(Folder::new(adapter))?;
    let same = own.used().is_none() || own.agrees_with(&base.chat_templates()?);
    if !same {
        terminal::warn(&format!(
            "{}: its chat template is not that of the base, which the output keeps; if the adapter was trained with its \
             own, give that with --chat-template",
            terminal::plain(&adapter.to_string_lossy())
        ));
    }
    Ok(())
}

/// Refuses what is known to be something else than curmerge's adapter, by what it is. A damaged adapter is
/// left to its reader.
pub(super) fn refuse_others(path: &Path) -> Result<()> {
    if Adapter::is_adapter(path) {
        return Ok(());
    }
    let refuse = |problem: &str, help: &str| Err(Error::file(path, problem, help));
    if Lora::is_lora(path) {
        let help = "use merge, run, eval, export or build --init, which take both";
        return refuse("is a LoRA of another program, and this command takes curmerge's own adapters", help);
    }
    if path.is_dir() {
        let help = "name an adapter file, or a folder with adapter_config.json";
        return refuse("is a folder without an adapter", help);
    }
    let beside = |name: &str| path.with_file_name(name).is_file();
    if path.file_name().is_some_and(|name| name == peft::WEIGHTS) && beside(peft::CONFIG) {
        return refuse("holds the matrices of an adapter without its settings", "name its folder instead");
    }
    let name_an_adapter = "name an adapter, such as one that build wrote";
    if matches!(detect(path), Ok(Container::Gguf)) {
        let kind = Gguf::open(path).ok();
        let kind = kind.as_ref().and_then(|gguf| gguf.get("general.architecture")).and_then(Value::as_str);
        return match kind {
            Some("controlvector") => {
                refuse("is a control vector, no adapter", "load it with llama.cpp instead")
            }
            _ => refuse("is a GGUF model, no adapter", name_an_adapter),
        };
    }
    // A zip archive, as torch.save writes; or a pickle of protocol 2 or later, as it wrote before.
    let mut start = [0; 4];
    let read = input::open(path).and_then(|mut file| file.read_exact(&mut start));
    if read.is_ok() && (start == *b"PK\x03\x04" || matches!(start, [0x80, 2..=5, ..])) {
        let problem = "is a pickled file, which can run any code and is not read";
        return refuse(problem, "save it as safetensors: PEFT's save_pretrained with safe_serialization");
    }
    Ok(())
}
