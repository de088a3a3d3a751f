//! A base in an ONNX file: which tensors of the graph are the model's matrices and vectors.
//!
//! Exporters rename tensors (`onnx::MatMul_1234`), fold transposes into them, join matrices and quantize
//! them. So a tensor is identified by its use: [`uses`] finds what nodes do with constants, and [`names`]
//! derives the module from the path of the node or, if that says nothing, from the tensor's name.

mod experts;
mod genai;
mod model;
mod names;
mod uses;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use curmerge_formats::onnx::{Node, Onnx, OnnxTensor};

use super::config::Config;
use super::folder::{CONFIG, Folder};
use super::hugging_face;
use super::opened::Opened;
use super::row_order::RowOrder;
use super::tensor::{BaseTensor, NBitsTensors, Slice, StoredTensor};
use crate::arch::{self, Architecture, Blocks, Size, TensorNames};
use crate::{Error, Result};

use genai::GenaiConfig;
pub use model::OnnxModel;
pub(super) use model::file_in;
use names::{Named, Part};
use uses::{Role, Use};

/// Opens an ONNX file with the configuration beside it.
pub(super) fn open(path: &Path) -> Result<Opened<OnnxModel>> {
    let mut model = OnnxModel::open(path)?;
    let (folder, onnx) = (Folder::new(model.folder()), model.onnx());
    let uses = uses::all(onnx)?;
    let (mut architecture, mut name, mut made) = (arch::UNKNOWN, String::new(), Config::unknown());
    let mut uncomputed = None;
    let in_order = |architecture: &&'static Architecture| has_rows_in_order(architecture, &uses);
    if folder.has(CONFIG) {
        name = hugging_face::model_type(folder)?;
        if let Some(known) = hugging_face::of_model_type(folder, &name)?.filter(in_order) {
            (architecture, made) = (known, Config::from_folder(folder, known)?);
            uncomputed = genai::contradiction(onnx, &made);
        }
    } else if let Some(genai) = GenaiConfig::open(folder)? {
        name = genai.model_type().to_string();
        if let Some(known) = arch::by_genai_type(&name).filter(in_order) {
            (architecture, made) = (known, genai.config(onnx, known, feed_forward(&uses, known))?);
        }
    }
    if !architecture.name.is_empty() {
        name = architecture.name.to_string();
        check_rotation(onnx, architecture)?;
    }
    let found = match architecture.name {
        "" => unknown_tensors(path, &uses)?,
        _ => {
            let mut found = known_tensors(path, &uses, architecture, &made)?;
            found.extend(by_name(onnx, architecture, made.layers));
            found
        }
    };
    let tensors = found.into_iter().map(|(name, found)| Ok((name, found.tensor(&mut model)?)));
    let tensors = tensors.collect::<Result<_>>()?;
    Ok(Opened {
        files: model,
        architecture,
        architecture_name: name,
        config: made,
        tensors,
        uncomputed,
        notes: Vec::new(),
    })
}

/// Whether the graph stores the rows of the family's matrices in an order that is known here: none in groups, with rows of
/// several matrices in turn. Other graphs are merged into under their own names, as those of an unknown architecture are.
fn has_rows_in_order(architecture: &'static Architecture, uses: &[Use<'_>]) -> bool {
    let mut lines = architecture.names();
    if architecture.tensors.joined_rows.is_empty() && !lines.any(|line| line.groups.is_some()) {
        return architecture.gguf.linear_attention.is_none();
    }
    let in_groups = |used: &Use<'_>| {
        let by_line = named(architecture, used).is_some_and(|named| {
            named.parts.iter().any(|part| part.line.is_some_and(|l| l.groups.is_some()))
        });
        let mut modules = names::modules_of_node(used.node);
        modules.extend(names::module_of_initializer(used.name));
        by_line || modules.iter().any(|module| architecture.joined_rows(module).is_some())
    };
    architecture.gguf.linear_attention.is_none() && !uses.iter().any(in_groups)
}

/// Refuses a rotation of other pairs than those of Hugging Face's order of the rows of q and k, which is expected.
fn check_rotation(onnx: &Onnx, architecture: &'static Architecture) -> Result<()> {
    let neighbours = architecture.has_rotary_neighbours();
    let other = |node: &&Node| {
        let flags = ["interleaved", "rotary_interleaved"];
        let flag = flags.iter().any(|name| node.int(name) == Some(1));
        let rotates = match node.op_type.as_str() {
            "RotaryEmbedding" => true,
            "GroupQueryAttention" => node.int("do_rotary") == Some(1),
            _ => false,
        };
        rotates && flag != neighbours
    };
    match onnx.graph().nodes.iter().find(other) {
        Some(node) => {
            let pairs =
                if neighbours { "halves of heads" } else { "adjacent entries of heads (interleaved)" };
            let problem =
                format!("it rotates {pairs}, which curmerge does not read of {}", architecture.name);
            let help = "export the model again from its Hugging Face folder";
            Err(uses::error(onnx.path(), node, problem, help))
        }
        None => Ok(()),
    }
}

/// The width of the first block's feed-forward part: the inputs of its `ffn_down`.
fn feed_forward(uses: &[Use<'_>], architecture: &'static Architecture) -> Option<usize> {
    let down = Part { canonical: "blk.0.ffn_down".into(), line: None, rows: Size::Model };
    let found = uses
        .iter()
        .filter(|used| used.role == Role::Matrix)
        .find(|used| named(architecture, used).is_some_and(|named| named.parts.contains(&down)))?;
    let draft = Draft::new(found);
    usize::try_from(*draft.shape.get(usize::from(!draft.transposed))?).ok()
}

/// A tensor whose bytes have not been located yet.
#[derive(Clone, Debug)]
struct Draft {
    name: String,
    tensor: OnnxTensor,
    /// Scales and zero points with their names.
    beside: Vec<(String, OnnxTensor)>,
    nbits: Option<(usize, usize)>,
    shape: Vec<u64>,
    transposed: bool,
    unit_offset: bool,
    rotary_halves: Option<usize>,
    /// Where its outputs are and how many it has, if the tensor joins several matrices.
    part: Option<(Slice, u64)>,
}

impl Draft {
    fn new(used: &Use<'_>) -> Self {
        let tensor = used.tensor.clone();
        let vector = matches!(used.role, Role::Factor { .. } | Role::Bias);
        let shape = match &used.nbits {
            Some(nbits) => nbits.shape.to_vec(),
            None if vector => vec![tensor.elements()],
            None if used.role == Role::Convolution && tensor.dims.len() == 3 => {
                vec![tensor.dims[0], tensor.dims[1].saturating_mul(tensor.dims[2])]
            }
            None => tensor.dims.clone(),
        };
        let owned = |(name, tensor): (&str, &OnnxTensor)| (name.to_string(), tensor.clone());
        let beside = used.nbits.iter().flat_map(|nbits| [Some(nbits.scales), nbits.zero_points]);
        Self {
            name: used.name.to_string(),
            beside: beside.flatten().map(owned).collect(),
            nbits: used.nbits.map(|nbits| (nbits.bits, nbits.block_size)),
            tensor,
            shape,
            transposed: used.transposed,
            unit_offset: used.role == Role::Factor { unit_offset: true },
            rotary_halves: None,
            part: None,
        }
    }

    /// A number or a vector as it is.
    fn of_vector(name: &str, tensor: &OnnxTensor) -> Self {
        Self {
            name: name.to_string(),
            tensor: tensor.clone(),
            beside: Vec::new(),
            nbits: None,
            shape: tensor.dims.clone(),
            transposed: false,
            unit_offset: false,
            rotary_halves: None,
            part: None,
        }
    }

    /// Outputs of the whole tensor.
    fn outputs(&self) -> u64 {
        self.shape.get(usize::from(self.transposed)).copied().unwrap_or(0)
    }

    /// Whether both are the same numbers in the file.
    fn is_same(&self, other: &Self) -> bool {
        (&self.name, self.transposed, &self.part) == (&other.name, other.transposed, &other.part)
    }

    /// Locate its bytes.
    fn tensor(self, model: &mut OnnxModel) -> Result<BaseTensor> {
        let StoredTensor { stored_name, dtype, file, offset, bytes } =
            model.place(&self.name, &self.tensor)?;
        let beside = self.beside.iter().map(|(name, tensor)| model.place(name, tensor));
        let mut beside = beside.collect::<Result<Vec<_>>>()?.into_iter();
        let nbits = self.nbits.zip(beside.next()).map(|((bits, block_size), scales)| NBitsTensors {
            bits,
            block_size,
            scales,
            zero_points: beside.next(),
        });
        let mut tensor = BaseTensor {
            stored_name,
            dtype,
            shape: self.shape,
            file,
            offset,
            bytes,
            rotary_halves: self.rotary_halves,
            orders: [RowOrder::CANONICAL; 2],
            transposed: self.transposed,
            unit_offset: self.unit_offset,
            log_of_negative: false,
            nbits,
            quantized: None,
            slice: None,
        };
        let Some((slice, rows)) = self.part else { return Ok(tensor) };
        tensor.shape[usize::from(self.transposed)] = rows;
        match tensor.shape.len() {
            // The entries of a part of a vector are contiguous.
            1 if slice.step == 1 => {
                let entry = tensor.bytes / slice.of.max(1);
                (tensor.offset, tensor.bytes) = (tensor.offset + slice.start * entry, rows * entry);
            }
            _ => tensor.slice = Some(slice),
        }
        Ok(tensor)
    }
}

type Drafts = BTreeMap<String, Draft>;

/// The matrices of an unknown architecture, under their own names or, if those are generated numbers, under
/// the module of the node that uses them.
fn unknown_tensors(path: &Path, uses: &[Use<'_>]) -> Result<Drafts> {
    if let Some(used) = uses.iter().find(|used| matches!(used.role, Role::Experts(_))) {
        let problem = "curmerge reads experts of known architectures alone";
        return Err(uses::error(path, used.node, problem, "put the model's config.json beside it"));
    }
    let (mut found, mut seen) = (Drafts::new(), BTreeSet::new());
    for used in uses.iter().filter(|used| used.role == Role::Matrix && seen.insert(used.name)) {
        let draft = Draft::new(used);
        let own = names::module_of_initializer(used.name).map(|_| {
            let stem = used.name.strip_suffix(".weight").unwrap_or(used.name);
            stem.to_string()
        });
        let by_node = || names::modules_of_node(used.node).into_iter().find(|module| !module.is_empty());
        let name = own.or_else(by_node).filter(|name| !found.contains_key(name));
        let mut name = name.unwrap_or_else(|| used.name.to_string());
        while found.contains_key(&name) {
            name.push('_');
        }
        found.insert(name, draft);
    }
    Ok(found)
}

/// The matrices or vectors of the architecture that a use is.
fn named(architecture: &'static Architecture, used: &Use<'_>) -> Option<Named> {
    let fits = |named: &Named| match used.role {
        Role::Lookup => named.is_lookup(),
        Role::Matrix | Role::Convolution => named.is_matrix() && !named.is_lookup(),
        Role::Factor { .. } => !named.is_matrix(),
        // A bias that is a line of its own is found by its name.
        Role::Bias => named.parts.iter().all(|part| !part.canonical.ends_with(".bias")),
        Role::Experts(_) | Role::ExpertBiases(_) => false,
    };
    let known = |module: String| names::canonical(architecture, &module).filter(fits);
    let parameter = || names::of_torch_parameter(architecture, used.name).filter(fits);
    // Exporters give tensors of equal values one name, but each node its own.
    let by_node = names::modules_of_node(used.node).into_iter().find_map(known);
    by_node.or_else(|| names::module_of_initializer(used.name).and_then(known)).or_else(parameter)
}

/// The tensors of a known architecture.
fn known_tensors(
    path: &Path,
    uses: &[Use<'_>],
    architecture: &'static Architecture,
    config: &Config,
) -> Result<Drafts> {
    let mut found = Drafts::new();
    let products: BTreeMap<&str, &Use<'_>> = uses
        .iter()
        .filter(|used| used.role == Role::Matrix)
        .filter_map(|used| Some((used.node.outputs.first()?.as_str(), used)))
        .collect();
    for used in uses {
        if let Role::Experts(side) | Role::ExpertBiases(side) = used.role {
            experts::put(path, used, side, (architecture, config), &mut found)?;
            continue;
        }
        // A vector added to a product is its bias, whatever its name.
        let product = || {
            let inputs = used.node.inputs.iter().filter(|_| used.role == Role::Bias);
            inputs
                .filter_map(|input| products.get(input.as_str()))
                .find_map(|product| named(architecture, product))
        };
        match named(architecture, used).or_else(product) {
            Some(named) => put(path, used, &named, (architecture, config), &mut found)?,
            None if used.role == Role::Matrix => unknown_matrix(path, used, architecture, &mut found)?,
            None => {}
        }
    }
    // A head that is the embedding is not a tensor of its own.
    if let (Some(head), Some(embedding)) = (found.get("output"), found.get("token_embd"))
        && head.is_same(embedding)
    {
        found.remove("output");
    }
    Ok(found)
}

/// What nodes compute with in many ways, by Hugging Face's names: numbers that folders have as tensors of one value, and
/// those of each head or expert.
fn by_name(onnx: &Onnx, architecture: &'static Architecture, layers: usize) -> Drafts {
    let vector = |line: &TensorNames| match line.shape {
        [Size::Heads] => line.blocks == Blocks::All,
        [Size::Experts] => line.blocks == Blocks::SelectionBias,
        _ => false,
    };
    let lines = architecture.names().filter(|line| line.in_metadata || vector(line));
    let numbers = lines.flat_map(|line| (0..layers).map(move |layer| (line, layer.to_string())));
    let found = numbers.filter_map(|(line, layer)| {
        let name = line.hugging_face.replacen("{}", &layer, 1);
        let tensor = onnx.initializer(&name).filter(|tensor| tensor.elements() == 1 || vector(line))?;
        let mut draft = Draft::of_vector(&name, tensor);
        if vector(line) {
            draft.shape = vec![tensor.elements()];
        }
        Some((line.canonical.replacen("{}", &layer, 1), draft))
    });
    found.collect()
}

/// A matrix that the table does not name may only be the embedding, used as the head.
fn unknown_matrix(
    path: &Path,
    used: &Use<'_>,
    architecture: &Architecture,
    found: &mut Drafts,
) -> Result<()> {
    let draft = Draft::new(used);
    if found.get("token_embd").is_some_and(|embedding| draft.is_same(embedding)) {
        return Ok(());
    }
    let problem = format!(
        "it multiplies by '{}', but curmerge knows no such matrix of '{}' models",
        used.name.escape_debug(),
        architecture.name
    );
    Err(uses::error(path, used.node, problem, "this variant of the architecture is not supported yet"))
}

/// Records a tensor under its canonical names.
fn put(
    path: &Path,
    used: &Use<'_>,
    named: &Named,
    (architecture, config): (&'static Architecture, &Config),
    found: &mut Drafts,
) -> Result<()> {
    let draft = Draft::new(used);
    let single = named.parts.len() == 1;
    let rows = named.rows(config);
    if !single && draft.outputs() != rows {
        let place = format!("tensor '{}'", used.name.escape_debug());
        let problem = format!("{} outputs where the configuration says {rows}", draft.outputs());
        let help = "the configuration beside it is of another model, or the file is damaged";
        return Err(Error::input(path, place, problem, help));
    }
    let mut start = 0;
    for Part { canonical, line, rows } in &named.parts {
        let rows = config.size(*rows, None) as u64;
        let mut draft = draft.clone();
        if !single {
            draft.part = Some((Slice { start, of: draft.outputs(), step: 1 }, rows));
        }
        start += rows;
        draft.rotary_halves = config.onnx_rotary_heads(architecture, canonical);
        let mut name = canonical.clone();
        if used.role == Role::Bias {
            name += ".bias";
            let whole = || architecture.line(canonical.split_once('[').map_or(canonical, |(whole, _)| whole));
            if line.or_else(whole).is_none_or(|line| line.bias.is_none()) {
                let problem = format!("it adds a bias to {canonical}, which curmerge expects to have none");
                let help = "this variant of the architecture is not supported yet";
                return Err(uses::error(path, used.node, problem, help));
            }
        }
        if let Some(other) = found.get(&name).filter(|other| !other.is_same(&draft)) {
            let problem = format!(
                "both '{}' and '{}' are this tensor",
                other.name.escape_debug(),
                draft.name.escape_debug()
            );
            let help = "this variant of the architecture is not supported yet";
            return Err(Error::input(path, format!("tensor '{name}'"), problem, help));
        }
        found.insert(name, draft);
    }
    Ok(())
}
