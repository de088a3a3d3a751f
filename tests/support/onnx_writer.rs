//! Writes ONNX models field by field, valid or not.

/// The value of an attribute.
#[derive(Clone, Debug)]
pub enum Value {
    Int(i64),
    Float(f32),
    Ints(Vec<i64>),
    Graph(Graph),
}

/// A graph under construction.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    nodes: Vec<Vec<u8>>,
    tensors: Vec<(String, Vec<u8>)>,
    outputs: usize,
}

// Element types of onnx.proto.
pub const FLOAT: u64 = 1;
pub const UINT8: u64 = 2;
pub const INT8: u64 = 3;
pub const INT32: u64 = 6;
pub const FLOAT16: u64 = 10;

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn int(field: u64, value: u64, out: &mut Vec<u8>) {
    varint(field << 3, out);
    varint(value, out);
}

fn bytes(field: u64, value: &[u8], out: &mut Vec<u8>) {
    varint(field << 3 | 2, out);
    varint(value.len() as u64, out);
    out.extend(value);
}

impl Graph {
    /// Adds a node, in the domain `com.microsoft` if that has the operator. Returns the name of its output.
    pub fn node(&mut self, op: &str, name: &str, inputs: &[&str], attributes: &[(&str, Value)]) -> String {
        self.outputs += 1;
        let output = format!("value_{}", self.outputs);
        self.node_to(op, name, inputs, &output, attributes, &[]);
        output
    }

    /// Adds a node whose output has this name, with `metadata_props`.
    pub fn node_to(
        &mut self,
        op: &str,
        name: &str,
        inputs: &[&str],
        output: &str,
        attributes: &[(&str, Value)],
        metadata: &[(&str, &str)],
    ) {
        const MICROSOFT: &[&str] =
            &["MatMulNBits", "GatherBlockQuantized", "GroupQueryAttention", "MultiHeadAttention"];
        let mut node = Vec::new();
        inputs.iter().for_each(|input| bytes(1, input.as_bytes(), &mut node));
        bytes(2, output.as_bytes(), &mut node);
        bytes(3, name.as_bytes(), &mut node);
        bytes(4, op.as_bytes(), &mut node);
        for (name, value) in attributes {
            let mut attribute = Vec::new();
            bytes(1, name.as_bytes(), &mut attribute);
            let kind = match value {
                Value::Float(value) => {
                    varint(2 << 3 | 5, &mut attribute);
                    attribute.extend(value.to_le_bytes());
                    1
                }
                Value::Int(value) => {
                    int(3, *value as u64, &mut attribute);
                    2
                }
                Value::Graph(graph) => {
                    bytes(6, &graph.message(), &mut attribute);
                    5
                }
                Value::Ints(values) => {
                    values.iter().for_each(|&value| int(8, value as u64, &mut attribute));
                    7
                }
            };
            int(20, kind, &mut attribute);
            bytes(5, &attribute, &mut node);
        }
        if MICROSOFT.contains(&op) {
            bytes(7, b"com.microsoft", &mut node);
        }
        for (key, value) in metadata {
            let mut entry = Vec::new();
            bytes(1, key.as_bytes(), &mut entry);
            bytes(2, value.as_bytes(), &mut entry);
            bytes(9, &entry, &mut node);
        }
        self.nodes.push(node);
    }

    /// Adds an initializer with raw data, or replaces the one with this name.
    pub fn tensor(&mut self, name: &str, element: u64, dims: &[u64], data: &[u8]) {
        let mut tensor = Vec::new();
        dims.iter().for_each(|&dim| int(1, dim, &mut tensor));
        int(2, element, &mut tensor);
        bytes(8, name.as_bytes(), &mut tensor);
        bytes(9, data, &mut tensor);
        self.tensors.retain(|(other, _)| other != name);
        self.tensors.push((name.to_string(), tensor));
    }

    /// Adds an initializer of floats in [-0.4, 0.6) that depend on the name.
    pub fn floats(&mut self, name: &str, dims: &[u64]) {
        let seed = name.bytes().fold(7u32, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
        let number = |i: u64| ((seed as u64 + i * 7919) % 1009) as f32 / 1009.0 - 0.4;
        let data: Vec<u8> = (0..dims.iter().product()).flat_map(|i| number(i).to_le_bytes()).collect();
        self.tensor(name, FLOAT, dims, &data);
    }

    /// Removes an initializer.
    pub fn remove(&mut self, name: &str) {
        self.tensors.retain(|(other, _)| other != name);
    }

    fn message(&self) -> Vec<u8> {
        let mut graph = Vec::new();
        self.nodes.iter().for_each(|node| bytes(1, node, &mut graph));
        bytes(2, b"graph", &mut graph);
        self.tensors.iter().for_each(|(_, tensor)| bytes(5, tensor, &mut graph));
        graph
    }

    /// The bytes of the model.
    pub fn model(&self) -> Vec<u8> {
        let mut model = Vec::new();
        int(1, 10, &mut model);
        bytes(2, b"onnx_writer", &mut model);
        bytes(7, &self.message(), &mut model);
        for (domain, version) in [("", 23), ("com.microsoft", 1)] {
            let mut opset = Vec::new();
            bytes(1, domain.as_bytes(), &mut opset);
            int(2, version, &mut opset);
            bytes(8, &opset, &mut model);
        }
        model
    }
}
