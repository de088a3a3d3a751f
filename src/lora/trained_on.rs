//! The base that an adapter says it was trained on.

use crate::base::Base;

/// Words of a model's name that say how it is stored, or who stored it so.
const STORAGE: &[&str] = &[
    "4bit", "8bit", "awq", "bf16", "bnb", "dynamic", "f16", "f32", "fp16", "fp8", "gguf", "gptq", "hf",
    "int4", "int8", "mlx", "nf4", "onnx", "unsloth",
];

/// The base that an adapter says it was trained on.
#[derive(Clone, Debug)]
pub(super) struct TrainedOn {
    /// Its name, repository or folder.
    pub(super) name: String,
    /// The commit, tag or branch of its repository.
    pub(super) revision: Option<String>,
}

impl TrainedOn {
    /// A line that says so, if the base seems to be another one, or if the revision of a repository is named,
    /// which no base tells. A base that does not know its own name is not compared.
    pub(super) fn differs_from(&self, base: &Base) -> Option<String> {
        let revision = self.revision.as_deref().filter(|revision| !["", "main", "master"].contains(revision));
        let of = revision.map(|revision| format!(" at revision '{}'", shown(revision))).unwrap_or_default();
        let repository = base.hugging_face_repository();
        let own = repository.or_else(|| (base.container() == "gguf").then(|| base.name()));
        let trained = format!("was trained on '{}'{of}", shown(&self.name));
        match own {
            Some(own) if !same_model(&own, &self.name) => {
                Some(format!("{trained}, and the base says that it is '{}'", shown(&own)))
            }
            _ if revision.is_some() => Some(format!("{trained}; see that the base is that one")),
            _ => None,
        }
    }
}

fn shown(name: &str) -> String {
    name.chars().take(80).collect::<String>().escape_debug().to_string()
}

/// Whether two names are of one model, whoever has stored it, and in whatever form.
fn same_model(one: &str, other: &str) -> bool {
    let words = |name: &str| {
        let own = name.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_lowercase();
        let own = own.strip_suffix(".gguf").unwrap_or(&own).to_owned();
        let words = own.split(|c: char| !c.is_alphanumeric() && c != '.');
        let is_type = |word: &str| {
            let rest = word.strip_prefix("iq").or_else(|| word.strip_prefix('q'));
            rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        let mut words: Vec<String> = words
            .filter(|word| !word.is_empty() && !STORAGE.contains(word) && !is_type(word))
            // What follows Q4 in Q4_K_M.
            .filter(|word| !["k", "s", "m", "l", "xl", "0", "1"].contains(word))
            .map(str::to_owned)
            .collect();
        words.sort();
        words
    };
    words(one) == words(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_model_compare() {
        for (one, other, same) in [
            ("HuggingFaceTB/SmolLM2-135M-Instruct", "SmolLM2 135M Instruct", true),
            ("unsloth/SmolLM2-135M-Instruct-bnb-4bit", "SmolLM2-135M-Instruct-Q4_K_M.gguf", true),
            ("/home/me/Llama-3.1-8B/", "meta-llama/Llama-3.1-8B", true),
            ("meta-llama/Llama-3.1-8B", "Llama 3.1 8B Instruct", false),
            ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B-Base", false),
        ] {
            assert_eq!(same_model(one, other), same, "{one} and {other}");
        }
    }
}
