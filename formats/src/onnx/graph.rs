//! The graph of an ONNX model: nodes with their attributes, tensors, inputs and outputs, and graphs within
//! nodes.

use std::collections::BTreeSet;

use super::element::ElementType;
use super::external::ExternalFiles;
use super::tensor::{self, OnnxTensor};
use super::wire::{Field, Message};
use crate::error::{Error, FETCH_AGAIN, Result, quoted};

/// Limit of nested graphs: protobuf's own readers stop at 100 messages, and each graph takes three.
const MAX_DEPTH: usize = 32;

/// A `GraphProto`: the model's, or that of a node such as If or Loop.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// Its name.
    pub name: String,
    /// Its nodes, in the order in which they can run.
    pub nodes: Vec<Node>,
    /// Its tensors.
    pub initializers: Vec<OnnxTensor>,
    /// Its sparse tensors.
    pub sparse_initializers: Vec<SparseTensor>,
    /// Its inputs; in old models initializers too.
    pub inputs: Vec<ValueInfo>,
    /// Its outputs.
    pub outputs: Vec<ValueInfo>,
    /// Types of intermediate values, as far as they are given.
    pub value_info: Vec<ValueInfo>,
}

/// A tensor that stores only its nonzero values.
#[derive(Clone, Debug, PartialEq)]
pub struct SparseTensor {
    /// The values. Their name is that of the tensor.
    pub values: OnnxTensor,
    /// Their indices.
    pub indices: OnnxTensor,
    /// Lengths of the tensor, slowest first.
    pub dims: Vec<i64>,
}

/// One operation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// Its name, which may be empty. Exporters give the path of the module.
    pub name: String,
    /// The operator, such as `MatMul`.
    pub op_type: String,
    /// The operator's domain: empty for the standard one, or for example `com.microsoft`.
    pub domain: String,
    /// Names of its inputs; an empty name is an omitted optional input.
    pub inputs: Vec<String>,
    /// Names of its outputs.
    pub outputs: Vec<String>,
    /// Its attributes.
    pub attributes: Vec<Attribute>,
    /// The texts of its `metadata_props`. Exporters name the module there.
    pub metadata: Vec<(String, String)>,
}

/// A named attribute of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: AttributeValue,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum AttributeValue {
    Float(f32),
    Int(i64),
    /// Text, which need not be UTF-8.
    String(Vec<u8>),
    Tensor(OnnxTensor),
    Graph(Graph),
    SparseTensor(SparseTensor),
    Floats(Vec<f32>),
    Ints(Vec<i64>),
    Strings(Vec<Vec<u8>>),
    Tensors(Vec<OnnxTensor>),
    Graphs(Vec<Graph>),
    SparseTensors(Vec<SparseTensor>),
    /// In a function: the attribute of this name of the calling node.
    Reference(String),
    /// A type, which is not read further.
    Type,
}

/// A named value with its type.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueInfo {
    /// Its name.
    pub name: String,
    /// Its type, if it is given.
    pub value_type: Option<ValueType>,
}

/// The type of a value.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueType {
    /// A dense tensor.
    Tensor {
        /// The type of its elements.
        element: ElementType,
        /// Lengths, slowest first; `None` if even their number is unknown.
        shape: Option<Vec<Dimension>>,
    },
    /// Something else: a sequence, a map, an optional or sparse tensor.
    Other,
}

/// A length in the shape of a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Dimension {
    /// A fixed length.
    Fixed(u64),
    /// A symbolic length; equal names are equal lengths.
    Named(String),
    /// Any length.
    Unknown,
}

/// An operator that the model defines by a graph of nodes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Function {
    /// Its name, the `op_type` of nodes that call it.
    pub name: String,
    /// Its domain.
    pub domain: String,
    /// Names of its inputs.
    pub inputs: Vec<String>,
    /// Names of its outputs.
    pub outputs: Vec<String>,
    /// Its attributes that have a default value.
    pub defaults: Vec<Attribute>,
    /// Its nodes.
    pub nodes: Vec<Node>,
}

impl Node {
    /// The value of an attribute.
    pub fn attribute(&self, name: &str) -> Option<&AttributeValue> {
        self.attributes.iter().find(|attribute| attribute.name == name).map(|attribute| &attribute.value)
    }

    /// The value of an integer attribute.
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.attribute(name) {
            Some(AttributeValue::Int(value)) => Some(*value),
            _ => None,
        }
    }

    /// Whether it is this operator of the standard set.
    pub fn is_standard(&self, op_type: &str) -> bool {
        matches!(self.domain.as_str(), "" | "ai.onnx") && self.op_type == op_type
    }

    /// The graphs of the node's attributes.
    pub fn graphs(&self) -> impl Iterator<Item = &Graph> {
        self.attributes.iter().flat_map(|attribute| match &attribute.value {
            AttributeValue::Graph(graph) => std::slice::from_ref(graph),
            AttributeValue::Graphs(graphs) => graphs,
            _ => &[],
        })
    }
}

/// Collects every tensor of attributes, and of graphs within them.
fn tensors_of_attributes<'a>(
    attributes: impl Iterator<Item = &'a Attribute>,
    found: &mut Vec<&'a OnnxTensor>,
) {
    for attribute in attributes {
        match &attribute.value {
            AttributeValue::Tensor(tensor) => found.push(tensor),
            AttributeValue::Tensors(tensors) => found.extend(tensors),
            AttributeValue::SparseTensor(sparse) => found.extend([&sparse.values, &sparse.indices]),
            AttributeValue::SparseTensors(all) => {
                found.extend(all.iter().flat_map(|sparse| [&sparse.values, &sparse.indices]));
            }
            AttributeValue::Graph(graph) => tensors_of_graph(graph, found),
            AttributeValue::Graphs(graphs) => graphs.iter().for_each(|graph| tensors_of_graph(graph, found)),
            _ => {}
        }
    }
}

/// Collects every tensor of a graph.
pub(super) fn tensors_of_graph<'a>(graph: &'a Graph, found: &mut Vec<&'a OnnxTensor>) {
    found.extend(&graph.initializers);
    found.extend(graph.sparse_initializers.iter().flat_map(|sparse| [&sparse.values, &sparse.indices]));
    tensors_of_attributes(graph.nodes.iter().flat_map(|node| &node.attributes), found);
}

/// Collects every tensor of a function.
pub(super) fn tensors_of_function<'a>(function: &'a Function, found: &mut Vec<&'a OnnxTensor>) {
    let inner = function.nodes.iter().flat_map(|node| &node.attributes);
    tensors_of_attributes(function.defaults.iter().chain(inner), found);
}

/// Reads a `GraphProto` that is nested in `depth` graphs.
pub(super) fn read_graph(message: &Message, depth: usize, files: &mut ExternalFiles) -> Result<Graph> {
    if depth > MAX_DEPTH {
        return Err(message.malformed(format!("graphs lie more than {MAX_DEPTH} deep in one another")));
    }
    let (mut graph, mut name) = (Graph::default(), None);
    for field in message.fields() {
        let field = field?;
        match field.number {
            1 => graph.nodes.push(read_node(&message.message(&field, "NodeProto")?, depth, files)?),
            2 => message.once(&field, &mut name, message.text(&field)?.to_owned())?,
            5 => {
                graph.initializers.push(tensor::read(&message.message(&field, "TensorProto")?, files)?);
            }
            11 => graph.inputs.push(read_value_info(&message.message(&field, "ValueInfoProto")?)?),
            12 => graph.outputs.push(read_value_info(&message.message(&field, "ValueInfoProto")?)?),
            13 => graph.value_info.push(read_value_info(&message.message(&field, "ValueInfoProto")?)?),
            15 => graph.sparse_initializers.push(read_sparse(message, &field, files)?),
            _ => {}
        }
    }
    graph.name = name.unwrap_or_default();
    check_names(message, &graph)?;
    Ok(graph)
}

/// Checks that initializers have names and that every value has one producer.
fn check_names(message: &Message, graph: &Graph) -> Result<()> {
    let path = message.source.path;
    let twice = |name: &str, problem: &str| {
        Error::malformed(path, format!("value {}", quoted(name)), problem, FETCH_AGAIN)
    };
    let mut seen = BTreeSet::new();
    let sparse = graph.sparse_initializers.iter().map(|sparse| &sparse.values);
    for tensor in graph.initializers.iter().chain(sparse) {
        if tensor.name.is_empty() {
            let place = format!("TensorProto at byte {}", tensor.message.start);
            return Err(Error::malformed(path, place, "an initializer has no name", FETCH_AGAIN));
        }
        if !seen.insert(tensor.name.as_str()) {
            return Err(twice(&tensor.name, "two initializers have this name"));
        }
    }
    for output in graph.nodes.iter().flat_map(|node| &node.outputs).filter(|output| !output.is_empty()) {
        if !seen.insert(output) {
            return Err(twice(output, "two nodes give it, or a node and an initializer"));
        }
    }
    for (values, what) in [(&graph.inputs, "inputs"), (&graph.outputs, "outputs")] {
        let mut seen = BTreeSet::new();
        if let Some(value) = values.iter().find(|value| !seen.insert(value.name.as_str())) {
            return Err(twice(&value.name, &format!("two {what} of the graph have this name")));
        }
    }
    Ok(())
}

fn read_node(message: &Message, depth: usize, files: &mut ExternalFiles) -> Result<Node> {
    let mut node = Node::default();
    let (mut name, mut op_type, mut domain) = (None, None, None);
    for field in message.fields() {
        let field = field?;
        let text = || message.text(&field).map(str::to_owned);
        match field.number {
            1 => node.inputs.push(text()?),
            2 => node.outputs.push(text()?),
            3 => message.once(&field, &mut name, text()?)?,
            4 => message.once(&field, &mut op_type, text()?)?,
            5 => {
                let attribute = message.message(&field, "AttributeProto")?;
                node.attributes.push(read_attribute(&attribute, depth, files)?);
            }
            7 => message.once(&field, &mut domain, text()?)?,
            9 => node.metadata.push(tensor::read_entry(&message.message(&field, "metadata_props")?)?),
            _ => {}
        }
    }
    node.name = name.unwrap_or_default();
    node.domain = domain.unwrap_or_default();
    node.op_type =
        op_type.filter(|op| !op.is_empty()).ok_or_else(|| message.malformed("it has no op_type"))?;
    let mut seen = BTreeSet::new();
    if let Some(twice) = node.attributes.iter().find(|attribute| !seen.insert(attribute.name.as_str())) {
        return Err(message.malformed(format!("attribute {} occurs twice", quoted(&twice.name))));
    }
    Ok(node)
}

fn read_attribute(message: &Message, depth: usize, files: &mut ExternalFiles) -> Result<Attribute> {
    let (mut name, mut kind, mut reference) = (None, None, None);
    let (mut float, mut int, mut string, mut tensor, mut graph, mut sparse) =
        (None, None, None, None, None, None);
    let (mut floats, mut ints, mut strings) = (Vec::new(), Vec::new(), Vec::new());
    let (mut tensors, mut graphs, mut sparses) = (Vec::new(), Vec::new(), Vec::new());
    for field in message.fields() {
        let field = field?;
        let bytes = || Ok::<_, Error>(message.source.bytes[message.bytes(&field)?].to_vec());
        let read_tensor = |files: &mut _| tensor::read(&message.message(&field, "TensorProto")?, files);
        let read_graph =
            |files: &mut _| read_graph(&message.message(&field, "GraphProto")?, depth + 1, files);
        match field.number {
            1 => message.once(&field, &mut name, message.text(&field)?.to_owned())?,
            2 => message.once(&field, &mut float, message.float(&field)?)?,
            3 => message.once(&field, &mut int, message.int(&field)?)?,
            4 => message.once(&field, &mut string, bytes()?)?,
            5 => message.once(&field, &mut tensor, read_tensor(files)?)?,
            6 => message.once(&field, &mut graph, read_graph(files)?)?,
            7 => message.push_floats(&field, &mut floats)?,
            8 => message.push_ints(&field, &mut ints)?,
            9 => strings.push(bytes()?),
            10 => tensors.push(read_tensor(files)?),
            11 => graphs.push(read_graph(files)?),
            20 => message.once(&field, &mut kind, message.int(&field)?)?,
            21 => message.once(&field, &mut reference, message.text(&field)?.to_owned())?,
            22 => message.once(&field, &mut sparse, read_sparse(message, &field, files)?)?,
            23 => sparses.push(read_sparse(message, &field, files)?),
            _ => {}
        }
    }
    let name =
        name.filter(|name| !name.is_empty()).ok_or_else(|| message.malformed("an attribute has no name"))?;
    let none = || message.malformed(format!("attribute {} has no value of its type", quoted(&name)));
    let value = match (reference.filter(|name| !name.is_empty()), kind.unwrap_or(0)) {
        (Some(reference), _) => AttributeValue::Reference(reference),
        // Some writers omit a zero number and an empty text.
        (None, 1) => AttributeValue::Float(float.unwrap_or(0.0)),
        (None, 2) => AttributeValue::Int(int.unwrap_or(0)),
        (None, 3) => AttributeValue::String(string.unwrap_or_default()),
        (None, 4) => AttributeValue::Tensor(tensor.ok_or_else(none)?),
        (None, 5) => AttributeValue::Graph(graph.ok_or_else(none)?),
        (None, 6) => AttributeValue::Floats(floats),
        (None, 7) => AttributeValue::Ints(ints),
        (None, 8) => AttributeValue::Strings(strings),
        (None, 9) => AttributeValue::Tensors(tensors),
        (None, 10) => AttributeValue::Graphs(graphs),
        (None, 11) => AttributeValue::SparseTensor(sparse.ok_or_else(none)?),
        (None, 12) => AttributeValue::SparseTensors(sparses),
        (None, 13 | 14) => AttributeValue::Type,
        (None, other) => {
            return Err(message.malformed(format!("attribute {} is of type {other}", quoted(&name))));
        }
    };
    Ok(Attribute { name, value })
}

fn read_sparse(parent: &Message, field: &Field, files: &mut ExternalFiles) -> Result<SparseTensor> {
    let message = parent.message(field, "SparseTensorProto")?;
    let (mut values, mut indices, mut dims) = (None, None, Vec::new());
    for field in message.fields() {
        let field = field?;
        let mut read = || tensor::read(&message.message(&field, "TensorProto")?, files);
        match field.number {
            1 => message.once(&field, &mut values, read()?)?,
            2 => message.once(&field, &mut indices, read()?)?,
            3 => message.push_ints(&field, &mut dims)?,
            _ => {}
        }
    }
    match (values, indices) {
        (Some(values), Some(indices)) => Ok(SparseTensor { values, indices, dims }),
        _ => Err(message.malformed("it has no values or no indices")),
    }
}

/// Reads a `FunctionProto`.
pub(super) fn read_function(message: &Message, files: &mut ExternalFiles) -> Result<Function> {
    let mut function = Function::default();
    let (mut name, mut domain) = (None, None);
    for field in message.fields() {
        let field = field?;
        let text = || message.text(&field).map(str::to_owned);
        match field.number {
            1 => message.once(&field, &mut name, text()?)?,
            4 => function.inputs.push(text()?),
            5 => function.outputs.push(text()?),
            7 => function.nodes.push(read_node(&message.message(&field, "NodeProto")?, 0, files)?),
            10 => message.once(&field, &mut domain, text()?)?,
            11 => {
                let attribute = message.message(&field, "AttributeProto")?;
                function.defaults.push(read_attribute(&attribute, 0, files)?);
            }
            _ => {}
        }
    }
    function.name = name.unwrap_or_default();
    function.domain = domain.unwrap_or_default();
    Ok(function)
}

fn read_value_info(message: &Message) -> Result<ValueInfo> {
    let (mut name, mut value_type) = (None, None);
    for field in message.fields() {
        let field = field?;
        match field.number {
            1 => message.once(&field, &mut name, message.text(&field)?.to_owned())?,
            2 => {
                let read = read_type(&message.message(&field, "TypeProto")?)?;
                message.once(&field, &mut value_type, read)?;
            }
            _ => {}
        }
    }
    let name = name.filter(|name| !name.is_empty()).ok_or_else(|| message.malformed("it has no name"))?;
    Ok(ValueInfo { name, value_type: value_type.flatten() })
}

/// Reads a `TypeProto`; `None` for an empty one.
fn read_type(message: &Message) -> Result<Option<ValueType>> {
    let mut value_type = None;
    for field in message.fields() {
        let field = field?;
        match field.number {
            1 => {
                let read = read_tensor_type(&message.message(&field, "TypeProto.Tensor")?)?;
                message.once(&field, &mut value_type, read)?;
            }
            4 | 5 | 7 | 8 | 9 => message.once(&field, &mut value_type, ValueType::Other)?,
            _ => {}
        }
    }
    Ok(value_type)
}

fn read_tensor_type(message: &Message) -> Result<ValueType> {
    let (mut element, mut shape) = (None, None);
    for field in message.fields() {
        let field = field?;
        match field.number {
            1 => message.once(&field, &mut element, message.int(&field)?)?,
            2 => {
                let read = read_shape(&message.message(&field, "TensorShapeProto")?)?;
                message.once(&field, &mut shape, read)?;
            }
            _ => {}
        }
    }
    // A type without an element type, as value_info may have, is of no use here.
    Ok(ElementType::from_id(element.unwrap_or(0))
        .map_or(ValueType::Other, |element| ValueType::Tensor { element, shape }))
}

fn read_shape(message: &Message) -> Result<Vec<Dimension>> {
    let mut shape = Vec::new();
    for field in message.fields() {
        let field = field?;
        if field.number != 1 {
            continue;
        }
        let dimension = message.message(&field, "TensorShapeProto.Dimension")?;
        let mut read = Dimension::Unknown;
        for field in dimension.fields() {
            let field = field?;
            match field.number {
                // Exporters write -1 for an unknown length.
                1 => {
                    read = u64::try_from(dimension.int(&field)?).map_or(Dimension::Unknown, Dimension::Fixed)
                }
                2 => read = Dimension::Named(dimension.text(&field)?.to_owned()),
                _ => {}
            }
        }
        shape.push(read);
    }
    Ok(shape)
}
