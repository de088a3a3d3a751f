//! Opens an ONNX file: walks and checks all messages once, and leaves the tensors' bytes mapped.

use std::collections::BTreeMap;
use std::path::Path;

use super::MAX_MODEL;
use super::external::{ExternalFile, ExternalFiles};
use super::graph::{self, AttributeValue, Function, Graph, Node};
use super::tensor::{self, OnnxTensor};
use super::wire::{Message, Source};
use crate::error::{Error, FETCH_AGAIN, Result, quoted};
use crate::mmap::MappedFile;

/// An open ONNX model.
#[derive(Debug)]
pub struct Onnx {
    file: MappedFile,
    external: Vec<ExternalFile>,
    ir_version: i64,
    producer: [String; 2],
    opsets: Vec<(String, i64)>,
    metadata: Vec<(String, String)>,
    graph: Graph,
    functions: Vec<Function>,
    /// Graphs for training; only their tensors matter here.
    training: Vec<Graph>,
    /// Positions of initializers by name.
    initializers: BTreeMap<String, usize>,
    /// Positions of the node that produces each value.
    producers: BTreeMap<String, usize>,
    /// Positions of the nodes that use each value, themselves or in a nested graph.
    users: BTreeMap<String, Vec<usize>>,
}

impl Onnx {
    /// Maps and checks a model file and the files beside it that hold its tensors.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Malformed`] for anything against the format: lengths beyond their message or
    /// file, numbers that do not end, text that is not UTF-8, graphs nested too deep, names used twice,
    /// negative or overflowing dimensions, tensors whose bytes do not fit their shape, external files that
    /// are missing, too short or outside the model's folder; [`Error::Unsupported`] for a file beyond 2 GB,
    /// which no reader accepts, and for unknown element types.
    pub fn open(path: &Path) -> Result<Self> {
        let file = MappedFile::open(path)?;
        let size = file.bytes().len() as u64;
        if size > MAX_MODEL {
            let problem = format!("the model has {size} bytes, but protobuf's readers take {MAX_MODEL}");
            let help = "export it again with its weights as external data";
            return Err(Error::unsupported(path, "whole file", problem, help));
        }
        let mut files = ExternalFiles::new(path);
        let message = Source { path, bytes: file.bytes() }.message("ModelProto");
        let parts = Parts::read(&message, &mut files)?;
        let external = files.files;
        let graph = parts.graph.ok_or_else(|| message.malformed("it has no graph"))?;
        let ir_version = parts.ir_version.ok_or_else(|| message.malformed("it has no ir_version"))?;
        let initializers = graph.initializers.iter().enumerate();
        let initializers = initializers.map(|(position, tensor)| (tensor.name.clone(), position)).collect();
        let (mut producers, mut users) = (BTreeMap::new(), BTreeMap::new());
        for (position, node) in graph.nodes.iter().enumerate() {
            let outputs = node.outputs.iter().filter(|output| !output.is_empty());
            producers.extend(outputs.map(|output| (output.clone(), position)));
            note_users(node, position, &mut users);
        }
        Ok(Onnx {
            external,
            ir_version,
            producer: parts.producer.map(Option::unwrap_or_default),
            opsets: parts.opsets,
            metadata: parts.metadata,
            graph,
            functions: parts.functions,
            training: parts.training,
            initializers,
            producers,
            users,
            file,
        })
    }

    /// The path as it was given to [`Onnx::open`].
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The whole model file.
    pub fn bytes(&self) -> &[u8] {
        self.file.bytes()
    }

    /// The mapped model file itself, for [`crate::OutputFile::copy_from`].
    pub fn file(&self) -> &MappedFile {
        &self.file
    }

    /// The files beside the model that hold tensors, in the order in which the model first names them.
    pub fn external_files(&self) -> &[ExternalFile] {
        &self.external
    }

    /// The version of ONNX's file format.
    pub fn ir_version(&self) -> i64 {
        self.ir_version
    }

    /// Name and version of the program that wrote the model, each empty if not given.
    pub fn producer(&self) -> (&str, &str) {
        (&self.producer[0], &self.producer[1])
    }

    /// The sets of operators it uses: domain, empty for the standard ones, and version.
    pub fn opsets(&self) -> &[(String, i64)] {
        &self.opsets
    }

    /// The version of a domain's operators. `ai.onnx` is another name for the empty one.
    pub fn opset(&self, domain: &str) -> Option<i64> {
        let plain = |domain: &str| if domain == "ai.onnx" { "" } else { domain }.to_owned();
        self.opsets.iter().find(|(own, _)| plain(own) == plain(domain)).map(|(_, version)| *version)
    }

    /// The texts of `metadata_props`, in their order.
    pub fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Operators that the model defines itself.
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// The initializer of a name.
    pub fn initializer(&self, name: &str) -> Option<&OnnxTensor> {
        self.initializers.get(name).map(|&position| &self.graph.initializers[position])
    }

    /// The tensor that is the constant value of this name: an initializer, or the tensor of a Constant node.
    /// Constants that are single numbers or texts are attributes of [`Onnx::producer_of`].
    pub fn constant(&self, name: &str) -> Option<&OnnxTensor> {
        let given = || {
            let node = self.producer_of(name)?;
            match node.attribute("value") {
                Some(AttributeValue::Tensor(tensor)) if node.is_standard("Constant") => Some(tensor),
                _ => None,
            }
        };
        self.initializer(name).or_else(given)
    }

    /// The node that produces a value.
    pub fn producer_of(&self, name: &str) -> Option<&Node> {
        self.producers.get(name).map(|&position| &self.graph.nodes[position])
    }

    /// The nodes that use a value, themselves or in a nested graph, in the graph's order.
    pub fn users_of(&self, name: &str) -> impl Iterator<Item = &Node> {
        self.users.get(name).into_iter().flatten().map(|&position| &self.graph.nodes[position])
    }

    /// Every tensor of the model: initializers, attributes, nested graphs, functions.
    pub fn tensors(&self) -> Vec<&OnnxTensor> {
        let mut found = Vec::new();
        graph::tensors_of_graph(&self.graph, &mut found);
        self.functions.iter().for_each(|function| graph::tensors_of_function(function, &mut found));
        self.training.iter().for_each(|graph| graph::tensors_of_graph(graph, &mut found));
        found
    }

    /// The model file as one message.
    pub(super) fn message(&self) -> Message<'_> {
        Source { path: self.path(), bytes: self.bytes() }.message("ModelProto")
    }
}

/// The fields of a `ModelProto` as they come.
#[derive(Default)]
struct Parts {
    ir_version: Option<i64>,
    producer: [Option<String>; 2],
    opsets: Vec<(String, i64)>,
    metadata: Vec<(String, String)>,
    graph: Option<Graph>,
    functions: Vec<Function>,
    training: Vec<Graph>,
}

impl Parts {
    fn read(message: &Message, files: &mut ExternalFiles) -> Result<Self> {
        let mut parts = Parts::default();
        for field in message.fields() {
            let field = field?;
            match field.number {
                1 => message.once(&field, &mut parts.ir_version, message.int(&field)?)?,
                2 | 3 => {
                    let slot = &mut parts.producer[field.number as usize - 2];
                    message.once(&field, slot, message.text(&field)?.to_owned())?;
                }
                7 => {
                    let graph = graph::read_graph(&message.message(&field, "GraphProto")?, 0, files)?;
                    message.once(&field, &mut parts.graph, graph)?;
                }
                8 => parts.opsets.push(read_opset(&message.message(&field, "OperatorSetIdProto")?)?),
                14 => {
                    let entry = message.message(&field, "metadata_props")?;
                    parts.metadata.push(tensor::read_entry(&entry)?);
                }
                20 => {
                    let training = message.message(&field, "TrainingInfoProto")?;
                    for field in training.fields() {
                        let field = field?;
                        if let 1 | 2 = field.number {
                            let graph = training.message(&field, "GraphProto")?;
                            parts.training.push(graph::read_graph(&graph, 0, files)?);
                        }
                    }
                }
                25 => {
                    let function = message.message(&field, "FunctionProto")?;
                    parts.functions.push(graph::read_function(&function, files)?);
                }
                _ => {}
            }
        }
        let mut keys = std::collections::BTreeSet::new();
        if let Some((key, _)) = parts.metadata.iter().find(|(key, _)| !keys.insert(key.as_str())) {
            let place = format!("metadata key {}", quoted(key));
            return Err(Error::malformed(message.source.path, place, "occurs twice", FETCH_AGAIN));
        }
        Ok(parts)
    }
}

fn read_opset(message: &Message) -> Result<(String, i64)> {
    let (mut domain, mut version) = (None, None);
    for field in message.fields() {
        let field = field?;
        match field.number {
            1 => message.once(&field, &mut domain, message.text(&field)?.to_owned())?,
            2 => message.once(&field, &mut version, message.int(&field)?)?,
            _ => {}
        }
    }
    Ok((domain.unwrap_or_default(), version.unwrap_or(0)))
}

/// Records the inputs of a node and of its nested graphs, each value once. A name that only a nested graph
/// defines may be recorded too.
fn note_users(node: &Node, position: usize, users: &mut BTreeMap<String, Vec<usize>>) {
    for input in node.inputs.iter().filter(|input| !input.is_empty()) {
        let of = users.entry(input.clone()).or_default();
        if of.last() != Some(&position) {
            of.push(position);
        }
    }
    for inner in node.graphs().flat_map(|graph| &graph.nodes) {
        note_users(inner, position, users);
    }
}
