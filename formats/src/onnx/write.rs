//! Lays out a new model before any weight is available: every byte except those of the large tensors, and the
//! place of each of these. The caller writes the weights there, in any order and in any parts.

use std::collections::BTreeSet;

use super::MAX_MODEL;
use super::element::ElementType;
use super::external::{MIN_EXTERNAL, check_location};
use super::graph::{Attribute, AttributeValue, Dimension, Node, ValueInfo, ValueType};
use super::tensor::elements;
use super::wire::{put_bytes, put_float, put_head, put_int};
use crate::error::{Error, Result, quoted};

/// onnxruntime maps tensors from this size on instead of reading them.
const MAPPED: u64 = 1 << 20;
/// Alignment of such tensors: the allocation granularity of Windows, and whole pages elsewhere.
const MAPPED_ALIGNMENT: u64 = 1 << 16;
/// Alignment of other tensors: a cache line.
const ALIGNMENT: u64 = 64;

/// A tensor of a model to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct NewOnnxTensor {
    /// Its name, unique in the graph.
    pub name: String,
    /// How its values are stored; not texts.
    pub element: ElementType,
    /// Lengths, slowest first.
    pub dims: Vec<u64>,
    /// Its values as raw little-endian data, to be stored in the model file; `None` if they are written
    /// later.
    pub values: Option<Vec<u8>>,
}

/// The graph of a model to be written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewGraph {
    /// Its name.
    pub name: String,
    /// Its nodes, in an order in which they can run.
    pub nodes: Vec<Node>,
    /// Its tensors.
    pub initializers: Vec<NewOnnxTensor>,
    /// Its inputs. An initializer that is also an input is its default value.
    pub inputs: Vec<ValueInfo>,
    /// Its outputs.
    pub outputs: Vec<ValueInfo>,
    /// Types of intermediate values.
    pub value_info: Vec<ValueInfo>,
}

/// A model to be written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewOnnx {
    /// The version of ONNX's file format.
    pub ir_version: i64,
    /// Name and version of the program that writes it.
    pub producer: (String, String),
    /// The sets of operators it uses: domain, empty for the standard ones, and version.
    pub opsets: Vec<(String, i64)>,
    /// Texts of `metadata_props`; keys are unique.
    pub metadata: Vec<(String, String)>,
    /// The graph.
    pub graph: NewGraph,
}

/// Where the values of a tensor go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnnxPlace {
    /// Whether that is in the external file.
    pub external: bool,
    /// The first byte, from the start of its file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// The bytes of a new model around the values of its tensors, and the places of these.
#[derive(Clone, Debug)]
pub struct OnnxLayout {
    frame: Vec<(u64, Vec<u8>)>,
    places: Vec<OnnxPlace>,
    model_bytes: u64,
    external_bytes: u64,
}

impl OnnxLayout {
    /// Lays out a model. `external` is the location of an external file, a path relative to the model's
    /// folder. Tensors of 1 KiB and more whose values come later go there, aligned so that onnxruntime maps
    /// them. Without it all tensors go into the model file.
    ///
    /// # Errors
    /// [`Error::Encode`] for a name used twice or empty, a shape that overflows, values that do not fit their
    /// shape, an attribute that is a tensor, a graph or a type, a location that leads out of the model's
    /// folder, and a model file beyond [`MAX_MODEL`].
    pub fn new(model: &NewOnnx, external: Option<&str>) -> Result<Self> {
        if let Some(location) = external {
            check_location(location).map_err(|problem| {
                let help = "name a file beside the model";
                Error::encode(format!("external file {}", quoted(location)), problem, help)
            })?;
        }
        check_names(model)?;
        let mut graph = Parts::default();
        for node in &model.graph.nodes {
            graph.put_bytes(1, &node_message(node)?);
        }
        graph.put_bytes(2, model.graph.name.as_bytes());
        let mut external_bytes = 0;
        let mut places = Vec::with_capacity(model.graph.initializers.len());
        for tensor in &model.graph.initializers {
            places.push(graph.put_tensor(tensor, external, &mut external_bytes)?);
        }
        let infos = [(11, &model.graph.inputs), (12, &model.graph.outputs), (13, &model.graph.value_info)];
        for (number, infos) in infos {
            for info in infos {
                graph.put_bytes(number, &info_message(info)?);
            }
        }

        let mut head = Vec::new();
        put_int(&mut head, 1, model.ir_version);
        put_bytes(&mut head, 2, model.producer.0.as_bytes());
        put_bytes(&mut head, 3, model.producer.1.as_bytes());
        put_head(&mut head, 7, graph.end);
        let mut tail = Vec::new();
        for (domain, version) in &model.opsets {
            let mut opset = Vec::new();
            put_bytes(&mut opset, 1, domain.as_bytes());
            put_int(&mut opset, 2, *version);
            put_bytes(&mut tail, 8, &opset);
        }
        for (key, value) in &model.metadata {
            put_bytes(&mut tail, 14, &entry(key, value));
        }
        let start = head.len() as u64;
        let mut frame = vec![(0, head)];
        frame.extend(graph.frame.into_iter().map(|(offset, bytes)| (start + offset, bytes)));
        places.iter_mut().filter(|place| !place.external).for_each(|place| place.offset += start);
        let end = start + graph.end;
        let model_bytes = end + tail.len() as u64;
        frame.push((end, tail));
        if model_bytes > MAX_MODEL {
            let problem = format!("it would have {model_bytes} bytes, but readers take {MAX_MODEL}");
            return Err(Error::encode("model file", problem, "store the weights as external data"));
        }
        Ok(OnnxLayout { frame, places, model_bytes, external_bytes })
    }

    /// The known bytes of the model file, by offset.
    pub fn frame(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.frame.iter().map(|(offset, bytes)| (*offset, bytes.as_slice()))
    }

    /// Where each of the model's initializers goes, in their order.
    pub fn places(&self) -> &[OnnxPlace] {
        &self.places
    }

    /// Length of the model file.
    pub fn model_bytes(&self) -> u64 {
        self.model_bytes
    }

    /// Length of the external file; 0 if there is none.
    pub fn external_bytes(&self) -> u64 {
        self.external_bytes
    }
}

/// Bytes of a message with gaps for values.
#[derive(Default)]
struct Parts {
    frame: Vec<(u64, Vec<u8>)>,
    /// Where the next byte goes.
    end: u64,
}

impl Parts {
    fn push(&mut self, bytes: &[u8]) {
        match self.frame.last_mut() {
            Some((offset, last)) if *offset + last.len() as u64 == self.end => last.extend_from_slice(bytes),
            _ => self.frame.push((self.end, bytes.to_vec())),
        }
        self.end += bytes.len() as u64;
    }

    fn put_bytes(&mut self, number: u32, bytes: &[u8]) {
        let mut field = Vec::with_capacity(bytes.len() + 8);
        put_bytes(&mut field, number, bytes);
        self.push(&field);
    }

    /// The field `initializer`, with a gap for values that come later.
    fn put_tensor(
        &mut self,
        tensor: &NewOnnxTensor,
        external: Option<&str>,
        external_end: &mut u64,
    ) -> Result<OnnxPlace> {
        let place = format!("tensor {}", quoted(&tensor.name));
        let count = elements(&tensor.dims);
        let bytes = count.and_then(|count| tensor.element.bytes_for(count)).ok_or_else(|| {
            let problem = format!("shape {:?} of {} is too large", tensor.dims, tensor.element);
            Error::encode(&place, problem, "choose another shape or type")
        })?;
        let mut message = Vec::new();
        tensor.dims.iter().for_each(|&dim| put_int(&mut message, 1, dim as i64));
        put_int(&mut message, 2, tensor.element.id());
        put_bytes(&mut message, 8, tensor.name.as_bytes());
        if let Some(location) = external.filter(|_| tensor.values.is_none() && bytes >= MIN_EXTERNAL) {
            let alignment = if bytes >= MAPPED { MAPPED_ALIGNMENT } else { ALIGNMENT };
            let offset = external_end.next_multiple_of(alignment);
            *external_end = offset.checked_add(bytes).ok_or_else(|| {
                Error::encode(&place, "the file would exceed 2^64 bytes", "write fewer tensors")
            })?;
            let entries =
                [("location", location), ("offset", &offset.to_string()), ("length", &bytes.to_string())];
            entries.iter().for_each(|(key, value)| put_bytes(&mut message, 13, &entry(key, value)));
            put_int(&mut message, 14, 1);
            self.put_bytes(5, &message);
            return Ok(OnnxPlace { external: true, offset, bytes });
        }
        put_head(&mut message, 9, bytes);
        let mut head = Vec::new();
        put_head(&mut head, 5, message.len() as u64 + bytes);
        self.push(&head);
        self.push(&message);
        let offset = self.end;
        match &tensor.values {
            None => self.end = self.end.saturating_add(bytes),
            Some(values) if values.len() as u64 == bytes => self.push(values),
            Some(values) => {
                let problem = format!("{} bytes, but its shape takes {bytes}", values.len());
                return Err(Error::encode(place, problem, "report this as a bug"));
            }
        }
        Ok(OnnxPlace { external: false, offset, bytes })
    }
}

/// Checks that names are unique: values, nodes, metadata keys.
fn check_names(model: &NewOnnx) -> Result<()> {
    let graph = &model.graph;
    let given = graph.nodes.iter().flat_map(|node| &node.outputs).filter(|name| !name.is_empty());
    let initializers: BTreeSet<&str> = graph.initializers.iter().map(|tensor| tensor.name.as_str()).collect();
    let inputs = graph.inputs.iter().map(|info| &info.name);
    // An input may have a default value.
    let inputs = inputs.filter(|name| !initializers.contains(name.as_str()));
    unique("value", given.chain(inputs).chain(graph.initializers.iter().map(|tensor| &tensor.name)))?;
    unique("node", graph.nodes.iter().map(|node| &node.name))?;
    unique("metadata key", model.metadata.iter().map(|(key, _)| key))
}

fn unique<'a>(what: &str, names: impl Iterator<Item = &'a String>) -> Result<()> {
    let mut seen = BTreeSet::new();
    for name in names {
        if name.is_empty() || !seen.insert(name) {
            let problem = if name.is_empty() { "has no name" } else { "the name is taken" };
            return Err(Error::encode(format!("{what} {}", quoted(name)), problem, "report this as a bug"));
        }
    }
    Ok(())
}

/// A `StringStringEntryProto`.
fn entry(key: &str, value: &str) -> Vec<u8> {
    let mut entry = Vec::new();
    put_bytes(&mut entry, 1, key.as_bytes());
    put_bytes(&mut entry, 2, value.as_bytes());
    entry
}

fn node_message(node: &Node) -> Result<Vec<u8>> {
    let mut message = Vec::new();
    node.inputs.iter().for_each(|input| put_bytes(&mut message, 1, input.as_bytes()));
    node.outputs.iter().for_each(|output| put_bytes(&mut message, 2, output.as_bytes()));
    put_bytes(&mut message, 3, node.name.as_bytes());
    put_bytes(&mut message, 4, node.op_type.as_bytes());
    for attribute in &node.attributes {
        put_bytes(&mut message, 5, &attribute_message(node, attribute)?);
    }
    if !node.domain.is_empty() {
        put_bytes(&mut message, 7, node.domain.as_bytes());
    }
    node.metadata.iter().for_each(|(key, value)| put_bytes(&mut message, 9, &entry(key, value)));
    Ok(message)
}

fn attribute_message(node: &Node, attribute: &Attribute) -> Result<Vec<u8>> {
    let mut message = Vec::new();
    put_bytes(&mut message, 1, attribute.name.as_bytes());
    let kind = match &attribute.value {
        AttributeValue::Float(value) => {
            put_float(&mut message, 2, *value);
            1
        }
        AttributeValue::Int(value) => {
            put_int(&mut message, 3, *value);
            2
        }
        AttributeValue::String(value) => {
            put_bytes(&mut message, 4, value);
            3
        }
        AttributeValue::Floats(values) => {
            values.iter().for_each(|&value| put_float(&mut message, 7, value));
            6
        }
        AttributeValue::Ints(values) => {
            values.iter().for_each(|&value| put_int(&mut message, 8, value));
            7
        }
        AttributeValue::Strings(values) => {
            values.iter().for_each(|value| put_bytes(&mut message, 9, value));
            8
        }
        _ => {
            let place = format!("node {}, attribute {}", quoted(&node.name), quoted(&attribute.name));
            let problem = "it is not a number, a text or a list of these";
            return Err(Error::encode(place, problem, "give it as an input of the node"));
        }
    };
    put_int(&mut message, 20, kind);
    Ok(message)
}

/// A `ValueInfoProto`.
fn info_message(info: &ValueInfo) -> Result<Vec<u8>> {
    let Some(ValueType::Tensor { element, shape }) = &info.value_type else {
        let place = format!("value {}", quoted(&info.name));
        return Err(Error::encode(place, "its type is not that of a tensor", "give it one"));
    };
    let mut tensor = Vec::new();
    put_int(&mut tensor, 1, element.id());
    if let Some(dimensions) = shape {
        let mut shape = Vec::new();
        for dimension in dimensions {
            let mut message = Vec::new();
            match dimension {
                Dimension::Fixed(length) => put_int(&mut message, 1, *length as i64),
                Dimension::Named(name) => put_bytes(&mut message, 2, name.as_bytes()),
                Dimension::Unknown => {}
            }
            put_bytes(&mut shape, 1, &message);
        }
        put_bytes(&mut tensor, 2, &shape);
    }
    let (mut kind, mut message) = (Vec::new(), Vec::new());
    put_bytes(&mut kind, 1, &tensor);
    put_bytes(&mut message, 1, info.name.as_bytes());
    put_bytes(&mut message, 2, &kind);
    Ok(message)
}
