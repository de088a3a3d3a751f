//! One table per architecture: what each container calls a tensor, and which rows are stored in another order.
//!
//! Canonical tensor names are GGUF's, without `.weight` (`blk.0.attn_q`). An architecture is data: to add one, add a
//! table, not code.

mod llama;

/// Whose head count divides the rows of a permuted matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heads {
    /// The query heads.
    Query,
    /// The key and value heads.
    KeyValue,
}

/// How one canonical tensor is stored by Hugging Face.
#[derive(Clone, Copy, Debug)]
pub struct TensorNames {
    /// Canonical name; `{}` stands for the layer's number.
    pub canonical: &'static str,
    /// Hugging Face's name, with the same `{}`.
    pub hugging_face: &'static str,
    /// Hugging Face keeps the two rotary halves of each head apart where GGUF interleaves them.
    pub rotary_halves: Option<Heads>,
}

/// The names and shapes of a model family.
#[derive(Debug)]
pub struct Architecture {
    /// `general.architecture` in GGUF, and the prefix of its keys.
    pub gguf: &'static str,
    /// `model_type` values in Hugging Face's config.json.
    pub hugging_face: &'static [&'static str],
    /// Every tensor the model reads.
    pub tensors: &'static [TensorNames],
    /// What `--targets` may name: the short word and the canonical name after `blk.N.`.
    pub targets: &'static [(&'static str, &'static str)],
}

impl Architecture {
    /// The canonical name of what Hugging Face calls so (without `.weight`), and its line of the table.
    pub fn of_hugging_face(&'static self, name: &str) -> Option<(String, &'static TensorNames)> {
        self.renamed(name, |names| (names.hugging_face, names.canonical))
    }

    /// Hugging Face's name (without `.weight`) of the canonical one, and its line of the table.
    pub fn to_hugging_face(&'static self, name: &str) -> Option<(String, &'static TensorNames)> {
        self.renamed(name, |names| (names.canonical, names.hugging_face))
    }

    fn renamed(
        &'static self,
        name: &str,
        from_to: impl Fn(&'static TensorNames) -> (&'static str, &'static str),
    ) -> Option<(String, &'static TensorNames)> {
        self.tensors.iter().find_map(|names| {
            let (from, to) = from_to(names);
            let Some((before, after)) = from.split_once("{}") else {
                return (from == name).then(|| (to.to_string(), names));
            };
            let layer = name.strip_prefix(before)?.strip_suffix(after)?;
            let number: usize = layer.parse().ok()?;
            (number.to_string() == layer).then(|| (to.replace("{}", layer), names))
        })
    }
}

/// All architectures that curmerge knows.
pub const ALL: &[&Architecture] = &[&llama::LLAMA];

/// The architecture that GGUF names so.
pub fn by_gguf_name(name: &str) -> Option<&'static Architecture> {
    ALL.iter().copied().find(|a| a.gguf == name)
}

/// The architecture that Hugging Face's `model_type` names so.
pub fn by_model_type(name: &str) -> Option<&'static Architecture> {
    ALL.iter().copied().find(|a| a.hugging_face.contains(&name))
}

/// The known names, for an error message.
pub fn known() -> String {
    ALL.iter().map(|a| a.gguf).collect::<Vec<_>>().join(", ")
}
