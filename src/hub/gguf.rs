//! Names of GGUF files: splits of one model, and the quantization that a name tells.

/// A model in one file or in splits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Model {
    /// Its files, the first split first.
    pub(super) files: Vec<String>,
    /// How many there should be.
    count: usize,
}

/// What makes a GGUF file no model of its own, as llama.cpp tells it by the name.
const NO_MODELS: [&str; 6] = ["mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-"];

impl Model {
    /// The models among these files, in their order.
    pub(super) fn all<'a>(files: impl Iterator<Item = &'a str>) -> Vec<Self> {
        let mut models: Vec<(String, Self)> = Vec::new();
        for file in files.filter(|file| is_model(file)) {
            let (name, count) = split(file);
            match models.iter_mut().find(|(other, _)| *other == name) {
                Some((_, model)) => model.files.push(file.into()),
                None => models.push((name, Self { files: vec![file.into()], count })),
            }
        }
        models
            .into_iter()
            .map(|(_, mut model)| {
                model.files.sort();
                model
            })
            .collect()
    }

    /// Whether all splits are there.
    pub(super) fn is_whole(&self) -> bool {
        self.files.len() == self.count
    }

    /// Whether the name tells this quantization: the word ends before `.`, `-` or `/`, as for llama.cpp, and begins
    /// after something that is no letter or digit.
    pub(super) fn is_quantized_as(&self, word: &str) -> bool {
        let (path, word) = (self.files[0].to_ascii_lowercase(), word.to_ascii_lowercase());
        path.match_indices(&word).any(|(at, _)| {
            let before = path[..at].chars().next_back();
            let after = path[at + word.len()..].chars().next();
            before.is_none_or(|c| !c.is_alphanumeric()) && after.is_some_and(|c| matches!(c, '.' | '-' | '/'))
        })
    }
}

/// Whether this GGUF file is a model or a part of one.
pub(super) fn is_model(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or_default();
    is_gguf(name) && !NO_MODELS.iter().any(|word| name.to_ascii_lowercase().contains(word))
}

pub(super) fn is_gguf(file: &str) -> bool {
    file.to_ascii_lowercase().ends_with(".gguf")
}

/// What the splits of a model have in common, and their number: of `NAME-00002-of-00003.gguf`, `NAME-of-00003` and 3.
fn split(file: &str) -> (String, usize) {
    let parts = || {
        let stem = file.get(..file.len().checked_sub(".gguf".len())?)?;
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (name, number) = rest.rsplit_once('-')?;
        let is_number = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
        (is_number(count) && is_number(number)).then_some(())?;
        Some((format!("{name}-of-{count}"), count.parse().ok()?))
    };
    parts().unwrap_or_else(|| (file.to_owned(), 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn models(files: &[&str]) -> Vec<Model> {
        Model::all(files.iter().copied())
    }

    #[test]
    fn splits_are_one_model() {
        let files =
            ["b-00002-of-00002.gguf", "a.gguf", "b-00001-of-00002.gguf", "x/b-00001-of-00002.gguf", "c.bin"];
        let found = models(&files);
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].files, ["b-00001-of-00002.gguf", "b-00002-of-00002.gguf"]);
        let whole: Vec<bool> = found.iter().map(Model::is_whole).collect();
        assert_eq!(whole, [true, true, false]);
    }

    #[test]
    fn sidecars_are_no_models() {
        let files = ["mmproj-F16.gguf", "a.mmproj.gguf", "imatrix.gguf", "mtp-a.gguf", "a-MMPROJ.GGUF"];
        assert!(models(&files).is_empty());
    }

    #[test]
    fn names_tell_quantizations() {
        let is = |file: &str, word: &str| models(&[file])[0].is_quantized_as(word);
        for (file, word) in [
            ("m-Q4_K_M.gguf", "q4_k_m"),
            ("m.q4_k_m.gguf", "Q4_K_M"),
            ("m-Q4_K_M-00001-of-00002.gguf", "Q4_K_M"),
            ("Q4_K_M/m-00001-of-00002.gguf", "Q4_K_M"),
            ("m-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ] {
            assert!(is(file, word), "{file} {word}");
        }
        for (file, word) in [
            ("m-IQ4_K_M.gguf", "Q4_K_M"),
            ("m-Q4_K_M.gguf", "Q4_K"),
            ("m-TQ1_0.gguf", "Q1_0"),
            ("m-Q4_K_M.gguf", "gguf"),
        ] {
            assert!(!is(file, word), "{file} {word}");
        }
    }
}
