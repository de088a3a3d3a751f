//! Canonical names from what exporters write: names of initializers, paths of nodes, scopes of modules.

use curmerge_formats::onnx::Node;

use crate::arch::{Architecture, BlockKind, Size, TensorNames, exporters, renamed};
use crate::base::config::Config;

/// The part of the architecture that a tensor is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Named {
    /// The matrix or vector, or the several matrices that the tensor concatenates, in order.
    pub(super) parts: Vec<Part>,
}

/// One matrix or vector.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Its canonical name.
    pub(super) canonical: String,
    /// Its line of the table; `None` if the architecture fuses it with others.
    pub(super) line: Option<&'static TensorNames>,
    /// Its outputs.
    pub(super) rows: Size,
}

impl PartialEq for Part {
    fn eq(&self, other: &Self) -> bool {
        self.canonical == other.canonical
    }
}

impl Named {
    /// Whether it is an embedding: looked up by token id or position.
    pub(super) fn is_lookup(&self) -> bool {
        matches!(self.parts.as_slice(), [part] if ["token_embd", "position_embd"].contains(&&*part.canonical))
    }

    /// Whether it is a matrix, or several, and not a vector.
    pub(super) fn is_matrix(&self) -> bool {
        self.parts.iter().all(|part| part.line.is_none_or(|line| line.shape.len() == 2))
    }

    /// The rows of all parts together.
    pub(super) fn rows(&self, config: &Config) -> u64 {
        self.parts.iter().map(|part| config.size(part.rows, None) as u64).sum()
    }
}

/// The module in the name of an initializer; `None` for a generated name.
pub(super) fn module_of_initializer(name: &str) -> Option<String> {
    (!is_number(name)).then(|| without_endings(name.split('.').collect()))
}

/// Whether an exporter generated the name: `onnx::MatMul_1234`, `val_12`, `1234`.
pub(super) fn is_number(name: &str) -> bool {
    let end = name.rsplit(['_', ':']).next().unwrap_or(name);
    let made_up = name.contains("::") || !name.contains('.');
    made_up && !end.is_empty() && end.chars().all(|c| c.is_ascii_digit())
}

/// The modules that a node may belong to: by its path (`/model/layers.0/self_attn/q_proj/MatMul`), and by the
/// scopes that PyTorch's newer exporter notes.
pub(super) fn modules_of_node(node: &Node) -> Vec<String> {
    const SCOPES: &str = "pkg.torch.onnx.name_scopes";
    let mut found = Vec::new();
    if let Some((path, _operator)) = node.name.rsplit_once('/') {
        let path = path.split('/').filter(|part| !part.is_empty());
        found.push(without_endings(path.flat_map(|part| part.split('.')).collect()));
    }
    // A list of strings as Python prints it: the modules from the outermost inwards, then the operation.
    let scopes = node.metadata.iter().filter(|(key, _)| key == SCOPES);
    found.extend(scopes.filter_map(|(_, list)| {
        let texts: Vec<&str> = list.split('\'').skip(1).step_by(2).collect();
        texts.len().checked_sub(2).map(|last| without_endings(texts[last].split('.').collect()))
    }));
    found
}

fn without_endings(mut parts: Vec<&str>) -> String {
    let is_ending = |part: &str| {
        exporters::ENDINGS.contains(&part)
            || exporters::ENDING_STARTS.iter().any(|start| part.starts_with(start))
    };
    while parts.len() > 1 && parts.last().is_some_and(|part| is_ending(part)) {
        parts.pop();
    }
    parts.join(".")
}

/// The number of trailing parts of a module's name that are examined.
const MAX_PARTS: usize = 32;

/// The suffixes of a name at separators, the longest first.
fn ends(name: &str, between: char) -> impl Iterator<Item = &str> {
    let starts = name.rmatch_indices(between).map(|(at, _)| at + 1);
    let mut starts: Vec<usize> = starts.chain(std::iter::once(0)).take(MAX_PARTS).collect();
    starts.reverse();
    starts.into_iter().map(|start| &name[start..])
}

/// The part of the architecture that a module is. An exporter may have nested it in further modules.
pub(super) fn canonical(architecture: &'static Architecture, module: &str) -> Option<Named> {
    ends(module, '.').find_map(|module| of_module(architecture, module))
}

/// The part of the architecture that a parameter is, by the name of early versions of PyTorch's newer
/// exporter: `p_model_layers_0_self_attn_q_proj_weight`.
pub(super) fn of_torch_parameter(architecture: &'static Architecture, name: &str) -> Option<Named> {
    let module = name.strip_prefix("p_")?;
    let module = module.strip_suffix("_weight").or_else(|| module.strip_suffix("_bias"))?;
    ends(module, '_').find_map(|module| {
        let dotted = architecture
            .names()
            .find_map(|line| renamed(module, &line.hugging_face.replace('.', "_"), line.hugging_face))?;
        of_module(architecture, &dotted)
    })
}

fn of_module(architecture: &'static Architecture, module: &str) -> Option<Named> {
    let alias = exporters::ALIASES.iter().find_map(|(theirs, ours)| renamed(module, theirs, ours));
    let module = alias.as_deref().unwrap_or(module);
    if let Some((canonical, line)) = architecture.of_hugging_face(module) {
        let rows = *line.shape.first()?;
        return Some(Named { parts: vec![Part { canonical, line: Some(line), rows }] });
    }
    let joined = exporters::JOINED.iter().find_map(|(pattern, roles)| {
        let parts = roles.iter().map(|role| of_role(architecture, module, pattern, role));
        parts.collect::<Option<Vec<_>>>()
    });
    let single = || {
        let mut all = exporters::SINGLE.iter();
        all.find_map(|(pattern, role)| Some(vec![of_role(architecture, module, pattern, role)?]))
    };
    let other = || {
        let ends = exporters::ENDS.iter().filter(|(name, _)| *name == module);
        let ends = ends.map(|(_, canonical)| canonical(&architecture.tensors).to_owned());
        let norms = exporters::NORMS.iter().filter_map(|(pattern, canonical)| {
            Some(renamed(module, pattern, "blk.{}.")? + canonical(&architecture.tensors))
        });
        let canonical = ends.chain(norms).next()?;
        let line = architecture.line(&canonical)?;
        Some(vec![Part { canonical, line: Some(line), rows: *line.shape.first()? }])
    };
    Some(Named { parts: joined.or_else(single).or_else(other)? })
}

/// The matrix of a role in the block whose module matches the pattern.
fn of_role(architecture: &'static Architecture, module: &str, pattern: &str, role: &str) -> Option<Part> {
    let own = architecture.target(role, BlockKind::USUAL)?;
    let canonical = renamed(module, pattern, "blk.{}.")? + own;
    if let Some(line) = architecture.line(&canonical) {
        return Some(Part { canonical, line: Some(line), rows: *line.shape.first()? });
    }
    let (whole, part) = own.strip_suffix(']')?.split_once('[')?;
    let (_, rows) = architecture.parts(whole).iter().find(|(name, _)| *name == part)?;
    Some(Part { canonical, line: None, rows: *rows })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::by_model_type;

    fn names(model_type: &str, module: &str) -> Vec<String> {
        let named = canonical(by_model_type(model_type, |_| false).unwrap(), module);
        named.map_or(Vec::new(), |named| named.parts.into_iter().map(|part| part.canonical).collect())
    }

    #[test]
    fn modules_of_every_exporter_are_found() {
        let whole = |name: &str| vec![name.to_string()];
        assert_eq!(names("llama", "model.layers.3.self_attn.q_proj"), whole("blk.3.attn_q"));
        assert_eq!(names("llama", "model.model.layers.3.mlp.up_proj"), whole("blk.3.ffn_up"));
        assert_eq!(names("llama", "model.layers.30.final_norm_layernorm"), whole("output_norm"));
        assert_eq!(
            names("llama", "model.layers.3.attn.qkv_proj"),
            ["blk.3.attn_q", "blk.3.attn_k", "blk.3.attn_v"]
        );
        assert_eq!(names("phi3", "model.layers.3.attn.qkv_proj"), whole("blk.3.attn_qkv"));
        assert_eq!(names("phi3", "model.layers.3.mlp.up_proj"), whole("blk.3.ffn_up[up]"));
        assert_eq!(names("phi3", "model.layers.3.attn.k_proj"), whole("blk.3.attn_qkv[k]"));
        assert_eq!(names("gpt2", "transformer.h.1.attn.c_attn"), whole("blk.1.attn_qkv"));
        // onnxruntime-genai's builder has one name for what families call otherwise.
        for (module, canonical) in [
            ("model.layers.3.attn.o_proj", "blk.3.attn_output"),
            ("model.layers.3.attn.q_proj", "blk.3.attn_q"),
            ("model.layers.3.mlp.down_proj", "blk.3.ffn_down"),
            ("model.layers.3.input_layernorm", "blk.3.attn_norm"),
            ("model.layers.3.post_attention_layernorm", "blk.3.ffn_norm"),
            ("model.layers.30.final_norm_layernorm", "output_norm"),
            ("model.embed_tokens", "token_embd"),
        ] {
            assert_eq!(names("internlm2", module), whole(canonical), "{module}");
        }
        assert_eq!(names("phi", "model.layers.3.attn.o_proj"), whole("blk.3.attn_output"));
        assert!(names("llama", "model.layers.3.self_attn.q_proj.lora_A").is_empty());
        let llama = by_model_type("llama", |_| false).unwrap();
        let parameter = of_torch_parameter(llama, "p_model_model_layers_12_self_attn_q_proj_weight").unwrap();
        assert_eq!(parameter.parts[0].canonical, "blk.12.attn_q");
        assert_eq!(of_torch_parameter(llama, "p_model_layers_12_self_attn_q_proj_lora_weight"), None);
    }

    /// A name may have five million suffixes; only a few are tried.
    #[test]
    fn a_long_name_is_read_in_moderate_time() {
        let name = "h.".repeat(5 << 20) + "q";
        assert!(canonical(by_model_type("gpt2", |_| false).unwrap(), &name).is_none());
        assert_eq!(names("llama", &("x.".repeat(3) + "model.layers.3.mlp.up_proj")), ["blk.3.ffn_up"]);
    }

    #[test]
    fn names_and_paths_give_modules() {
        let of = |name: &str| module_of_initializer(name).unwrap();
        assert_eq!(of("model.layers.0.attn.q_proj.MatMul.weight_Q4"), "model.layers.0.attn.q_proj");
        assert_eq!(of("model.layers.0.attn.q_norm.layernorm.weight"), "model.layers.0.attn.q_norm");
        for number in ["onnx::MatMul_1234", "val_12", "1234"] {
            assert_eq!(module_of_initializer(number), None, "{number}");
        }
        let scopes = "['', 'model', 'model.layers.0', 'model.layers.0.mlp.up_proj', 'linear_5']";
        let node = Node {
            name: "/model/layers.0/self_attn/q_proj/MatMul".into(),
            metadata: vec![("pkg.torch.onnx.name_scopes".into(), scopes.into())],
            ..Node::default()
        };
        assert_eq!(modules_of_node(&node), ["model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj"]);
        assert!(modules_of_node(&Node { name: "node_linear_5".into(), ..Node::default() }).is_empty());
    }
}
