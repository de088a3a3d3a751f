//! Which files of a repository a name stands for.

use std::path::Path;

use super::gguf::{Model, is_gguf, is_model};
use super::name::Name;
use crate::Result;

/// What the files are for.
#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    /// A model: GGUF, a folder of safetensors, ONNX.
    Base,
    /// An adapter: a folder of PEFT or mlx-lm, a GGUF LoRA, curmerge's own.
    Adapter,
    /// Examples or text. Several files may be meant. Says of a name whether it is that of a data file.
    Data(fn(&Path) -> bool),
    /// An importance matrix.
    ImportanceMatrix,
}

/// The files of a name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Choice {
    /// What to open, by paths within the snapshot; the empty path is the snapshot itself.
    pub(super) opened: Vec<String>,
    /// What must be there, in the order of download. Weights come last: where they are whole, the rest is.
    pub(super) files: Vec<String>,
    /// The index of safetensors files, which names further files beside it.
    pub(super) index: Option<String>,
}

impl Choice {
    fn file(file: &str) -> Self {
        Self { opened: vec![file.into()], files: vec![file.into()], index: None }
    }
}

/// The quantizations that are taken where none is named, as llama.cpp does.
const USUAL: [&str; 2] = ["Q4_K_M", "Q8_0"];

const INDEX: &str = "model.safetensors.index.json";
const SAFETENSORS: &str = "model.safetensors";
const ADAPTER_CONFIG: &str = "adapter_config.json";
/// The weights beside it, of PEFT and of mlx-lm.
const ADAPTER_WEIGHTS: [&str; 2] = ["adapter_model.safetensors", "adapters.safetensors"];

/// Names in an error.
const MAX_LISTED: usize = 20;

/// A repository's files, and what is wanted of them.
pub(super) struct Chooser<'a> {
    pub(super) name: &'a Name,
    pub(super) files: &'a [String],
}

impl Chooser<'_> {
    /// The choice.
    ///
    /// # Errors
    /// There is nothing of this kind, or several things that may be meant.
    pub(super) fn choose(&self, wanted: Wanted) -> Result<Choice> {
        let part = self.name.part();
        if let Some(file) = part.and_then(|part| self.file(part)) {
            return self.named(wanted, file);
        }
        let folder = part.map(|part| format!("{part}/"));
        let folder = folder.filter(|folder| self.files.iter().any(|file| file.starts_with(folder.as_str())));
        let word = if folder.is_some() { None } else { part };
        let folder = folder.as_deref().unwrap_or_default();
        match wanted {
            Wanted::Base => self.base(folder, word),
            Wanted::Adapter => self.adapter(folder, word),
            Wanted::Data(is_data) => self.data(folder, word, is_data),
            Wanted::ImportanceMatrix => self.importance_matrix(folder, word),
        }
    }

    /// The file of this path, in any case if only one has it.
    fn file(&self, path: &str) -> Option<&str> {
        let exact = self.files.iter().find(|file| *file == path);
        let mut alike = self.files.iter().filter(|file| file.eq_ignore_ascii_case(path));
        let only = alike.next().filter(|_| alike.next().is_none());
        exact.or(only).map(String::as_str)
    }

    fn has(&self, file: &str) -> bool {
        self.files.iter().any(|other| other == file)
    }

    /// What a file that is named stands for.
    fn named(&self, wanted: Wanted, file: &str) -> Result<Choice> {
        let (folder, own) = file.rsplit_once('/').map_or(("", file), |(folder, own)| (folder, own));
        let folder = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        match wanted {
            Wanted::Base if is_gguf(file) => {
                if !is_model(file) {
                    let help = "name another file";
                    return Err(self
                        .name
                        .error("this GGUF file belongs to a model and is none itself", help));
                }
                let model = Model::all(self.files.iter().map(String::as_str));
                let model = model.into_iter().find(|model| model.files.iter().any(|own| own == file));
                model.map_or_else(|| Ok(Choice::file(file)), |model| self.gguf(model))
            }
            Wanted::Base if own.ends_with(".onnx") => Ok(self.onnx(&folder, file)),
            Wanted::Base if own.ends_with(".safetensors") => Err(self.name.error(
                "a safetensors file alone has no configuration and no tokenizer",
                "leave it out: the whole folder is the model",
            )),
            Wanted::Adapter
                if ADAPTER_WEIGHTS.contains(&own) && self.has(&format!("{folder}{ADAPTER_CONFIG}")) =>
            {
                self.adapter(&folder, None)
            }
            _ => Ok(Choice::file(file)),
        }
    }

    fn base(&self, folder: &str, word: Option<&str>) -> Result<Choice> {
        let index = format!("{folder}{INDEX}");
        let single = format!("{folder}{SAFETENSORS}");
        let has_index = self.has(&index);
        if word.is_none() && self.has(&format!("{folder}config.json")) && (has_index || self.has(&single)) {
            let mut files = self.companions(folder);
            if !has_index {
                files.push(single);
            }
            return Ok(Choice { opened: vec![folder.into()], files, index: has_index.then_some(index) });
        }
        let below = self.files.iter().map(String::as_str).filter(|file| file.starts_with(folder));
        let models = Model::all(below.clone());
        if let Some(word) = word {
            let fitting: Vec<Model> =
                models.iter().filter(|model| model.is_quantized_as(word)).cloned().collect();
            return match fitting.as_slice() {
                [model] => self.gguf(model.clone()),
                [] => Err(self
                    .ask(&format!("the repository has no file, folder or quantization '{word}'"), &{
                        first_files(&models)
                    })),
                several => Err(self.ask(&format!("several models are '{word}'"), &first_files(several))),
            };
        }
        for usual in USUAL {
            let fitting: Vec<Model> =
                models.iter().filter(|model| model.is_quantized_as(usual)).cloned().collect();
            match fitting.as_slice() {
                [] => {}
                [model] => return self.gguf(model.clone()),
                several => {
                    return Err(self.ask(&format!("several models are {usual}"), &first_files(several)));
                }
            }
        }
        if let Some(model) = models.into_iter().next() {
            return self.gguf(model);
        }
        let at_top: Vec<&str> = below.filter(|file| file.ends_with(".onnx")).collect();
        match at_top.as_slice() {
            [] => {
                let all: Vec<&str> = self.files.iter().map(String::as_str).collect();
                Err(self.ask("there is no GGUF file, no folder of safetensors and no ONNX file", &all))
            }
            [file] => {
                let folder =
                    file.rsplit_once('/').map_or_else(String::new, |(folder, _)| format!("{folder}/"));
                Ok(self.onnx(&folder, file))
            }
            several => Err(self.ask("there are several ONNX files", several)),
        }
    }

    /// A GGUF model with all its splits.
    fn gguf(&self, model: Model) -> Result<Choice> {
        if !model.is_whole() {
            let listed: Vec<&str> = model.files.iter().map(String::as_str).collect();
            return Err(self.ask("splits of the model are missing", &listed));
        }
        Ok(Choice { opened: vec![model.files[0].clone()], files: model.files, index: None })
    }

    /// An ONNX file, its weights in further files, and the small files beside and above it.
    fn onnx(&self, folder: &str, file: &str) -> Choice {
        let mut files = self.companions(folder);
        if !folder.is_empty() {
            files.extend(self.companions(""));
        }
        let stem = file.trim_end_matches(".onnx");
        // model.onnx_data, model.onnx_data_1, model.onnx.data, model.data
        let is_data = |other: &&String| {
            let after =
                |start: &str| other.strip_prefix(start).map(|rest| rest.trim_start_matches(['.', '_']));
            let beginning = after(file).or_else(|| after(&format!("{stem}.")));
            beginning.is_some_and(|rest| rest.starts_with("data"))
        };
        files.extend(self.files.iter().filter(is_data).cloned());
        files.push(file.into());
        Choice { opened: vec![file.into()], files, index: None }
    }

    fn adapter(&self, folder: &str, word: Option<&str>) -> Result<Choice> {
        let own = |file: &&String| within(file, folder).is_some_and(|rest| !rest.contains('/'));
        if word.is_none() && self.has(&format!("{folder}{ADAPTER_CONFIG}")) {
            let weights: Vec<String> = ADAPTER_WEIGHTS
                .map(|name| format!("{folder}{name}"))
                .into_iter()
                .filter(|w| self.has(w))
                .collect();
            if weights.is_empty() {
                let all: Vec<&str> = self.files.iter().filter(own).map(String::as_str).collect();
                return Err(self.ask("the adapter's weights are not in a safetensors file", &all));
            }
            let files = self.companions(folder).into_iter().chain(weights).collect();
            return Ok(Choice { opened: vec![folder.into()], files, index: None });
        }
        let models = Model::all(self.files.iter().filter(own).map(String::as_str));
        let models = models.iter().filter(|model| word.is_none_or(|word| model.is_quantized_as(word)));
        let mut found: Vec<&str> = models.map(|model| model.files[0].as_str()).collect();
        if found.is_empty() && word.is_none() {
            let ending = |file: &&String| file.ends_with(".safetensors");
            found = self.files.iter().filter(own).filter(ending).map(String::as_str).collect();
        }
        match found.as_slice() {
            [file] => Ok(Choice::file(file)),
            [] => {
                let all: Vec<&str> = self.files.iter().map(String::as_str).collect();
                Err(self.ask(
                    "there is no such adapter: no adapter_config.json, no GGUF and no safetensors file",
                    &all,
                ))
            }
            several => Err(self.ask("there are several files that may be the adapter", several)),
        }
    }

    fn data(&self, folder: &str, word: Option<&str>, is_data: fn(&Path) -> bool) -> Result<Choice> {
        let all = self.files.iter().map(String::as_str).filter(|file| file.starts_with(folder));
        // What the Hub's own library writes beside data.
        let is_own =
            |file: &str| matches!(file.rsplit('/').next(), Some("dataset_infos.json" | "dataset_info.json"));
        let all: Vec<&str> = all.filter(|file| is_data(Path::new(file)) && !is_own(file)).collect();
        let found: Vec<&str> = match word {
            Some(word) => all.iter().copied().filter(|file| has_word(file, word)).collect(),
            None => all.clone(),
        };
        let named = word.is_some() || !folder.is_empty();
        match found.as_slice() {
            [] if all.is_empty() => {
                let all: Vec<&str> = self.files.iter().map(String::as_str).collect();
                Err(self.ask("there is no file of data", &all))
            }
            [] => Err(self.ask(&format!("there is no file or split '{}'", word.unwrap_or_default()), &all)),
            [_, _, ..] if !named => Err(self.ask("there are several files of data", &found)),
            found => {
                let files: Vec<String> = found.iter().map(|&file| file.to_owned()).collect();
                Ok(Choice { opened: files.clone(), files, index: None })
            }
        }
    }

    fn importance_matrix(&self, folder: &str, word: Option<&str>) -> Result<Choice> {
        let all = self.files.iter().map(String::as_str).filter(|file| file.starts_with(folder));
        let is_one = |file: &str| file.to_ascii_lowercase().contains("imatrix") && !file.ends_with(".txt");
        let found: Vec<&str> = all.clone().filter(|file| is_one(file) && word.is_none()).collect();
        match found.as_slice() {
            [file] => Ok(Choice::file(file)),
            [] => Err(self.ask("there is no such file", &all.collect::<Vec<_>>())),
            several => Err(self.ask("there are several importance matrices", several)),
        }
    }

    /// The small files of a model's folder that its readers may want.
    fn companions(&self, folder: &str) -> Vec<String> {
        let is_small = |name: &str| {
            let other_index = name.ends_with(".index.json") && name != INDEX;
            let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
            let templates = name.strip_prefix("additional_chat_templates/");
            match name.contains('/') {
                true => templates.is_some_and(|rest| !rest.contains('/') && rest.ends_with(".jinja")),
                false => {
                    matches!(ending, "json" | "jinja" | "txt") && !other_index
                        || name == "tokenizer.model"
                        || name == "README.md"
                        || name.starts_with("LICENSE")
                }
            }
        };
        self.files.iter().filter(|file| within(file, folder).is_some_and(is_small)).cloned().collect()
    }

    /// An error that asks for one of these files.
    fn ask(&self, problem: &str, files: &[&str]) -> crate::Error {
        let listed: Vec<String> =
            files.iter().take(MAX_LISTED).map(|file| file.escape_debug().to_string()).collect();
        let mut listed = listed.join(", ");
        if files.len() > MAX_LISTED {
            listed += &format!(" and {} more", files.len() - MAX_LISTED);
        }
        let help = match listed.is_empty() {
            true => "the repository has no files that could be meant".to_owned(),
            false => format!("name one after a colon; there are {listed}"),
        };
        self.name.error(problem, help)
    }
}

fn within<'f>(file: &'f str, folder: &str) -> Option<&'f str> {
    file.strip_prefix(folder)
}

fn first_files(models: &[Model]) -> Vec<&str> {
    models.iter().map(|model| model.files[0].as_str()).collect()
}

/// Whether a path has a word, such as the split `train` of `data/train-00000-of-00002.parquet`.
fn has_word(path: &str, word: &str) -> bool {
    path.match_indices(word).any(|(at, _)| {
        let is_letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        !is_letter(path[..at].chars().next_back()) && !is_letter(path[at + word.len()..].chars().next())
    })
}
