//! A graph under construction: nodes named by the paths of modules, like torch.onnx's, constants that are
//! stored once, and matrices whose values are written after the graph is complete.

use std::collections::BTreeSet;

use curmerge_formats::onnx::{
    Attribute, AttributeValue, Dimension, ElementType, NewGraph, NewOnnxTensor, Node, ValueInfo, ValueType,
};

use super::matrix::{Form, Matrix, encoded};
use crate::Result;

/// The domain of onnxruntime's own operators.
pub(super) const MICROSOFT: &str = "com.microsoft";

/// Name of a value of the graph.
pub(super) type Value = String;

/// A graph, and where the values of its matrices come from.
pub(super) struct Builder<'a> {
    pub(super) graph: NewGraph,
    /// Matrices, each with the position of the first initializer that its values fill.
    pub(super) matrices: Vec<(usize, Matrix<'a>)>,
    /// The type that products are computed in: FLOAT or FLOAT16. The residual stream, norms and softmax are
    /// FLOAT.
    pub(super) products: ElementType,
    constants: BTreeSet<Value>,
    /// Inputs that come after all others.
    late: Vec<ValueInfo>,
}

/// An attribute that is an integer.
pub(super) fn int(name: &str, value: i64) -> Attribute {
    Attribute { name: name.into(), value: AttributeValue::Int(value) }
}

/// An attribute that is a float.
pub(super) fn float(name: &str, value: f64) -> Attribute {
    Attribute { name: name.into(), value: AttributeValue::Float(value as f32) }
}

/// An attribute that is a text.
pub(super) fn string(name: &str, value: &str) -> Attribute {
    Attribute { name: name.into(), value: AttributeValue::String(value.into()) }
}

/// An attribute that is a list of integers.
pub(super) fn ints(name: &str, values: &[i64]) -> Attribute {
    Attribute { name: name.into(), value: AttributeValue::Ints(values.to_vec()) }
}

impl<'a> Builder<'a> {
    pub(super) fn new(products: ElementType) -> Self {
        let graph = NewGraph { name: "main_graph".into(), ..Default::default() };
        Builder { graph, matrices: Vec::new(), products, constants: BTreeSet::new(), late: Vec::new() }
    }

    /// Adds a node of a standard operator and returns its output.
    pub(super) fn node(&mut self, name: &str, op_type: &str, inputs: &[&str]) -> Value {
        self.node_with(name, op_type, inputs, Vec::new())
    }

    /// [`Self::node`] with attributes.
    pub(super) fn node_with(
        &mut self,
        name: &str,
        op_type: &str,
        inputs: &[&str],
        attributes: Vec<Attribute>,
    ) -> Value {
        let output = format!("{name}_output_0");
        self.node_giving(name, ("", op_type), inputs, &[&output], attributes);
        output
    }

    /// Adds a node of any domain whose outputs have these names.
    pub(super) fn node_giving(
        &mut self,
        name: &str,
        (domain, op_type): (&str, &str),
        inputs: &[&str],
        outputs: &[&str],
        attributes: Vec<Attribute>,
    ) {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_string()).collect();
        self.graph.nodes.push(Node {
            name: name.into(),
            op_type: op_type.into(),
            domain: domain.into(),
            inputs: owned(inputs),
            outputs: owned(outputs),
            attributes,
            metadata: Vec::new(),
        });
    }

    /// The value in another type; the value itself if it has that type.
    pub(super) fn cast(&mut self, name: &str, value: Value, from: ElementType, to: ElementType) -> Value {
        if from == to {
            return value;
        }
        self.node_with(name, "Cast", &[&value], vec![int("to", to.id())])
    }

    /// A value of FLOAT in the type that products are computed in.
    pub(super) fn for_products(&mut self, path: &str, value: Value) -> Value {
        self.cast(&format!("{path}/Cast"), value, ElementType::FLOAT, self.products)
    }

    /// The output of a product, in FLOAT.
    pub(super) fn float_of(&mut self, path: &str, value: Value) -> Value {
        self.cast(&format!("{path}/Cast_1"), value, self.products, ElementType::FLOAT)
    }

    /// A list of integers as INT64.
    pub(super) fn ints(&mut self, values: &[i64]) -> Value {
        let name = format!("/constants/INT64/{values:?}");
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, ElementType::INT64, vec![values.len() as u64], bytes)
    }

    /// One INT64 without a dimension.
    pub(super) fn int(&mut self, value: i64) -> Value {
        let bytes = value.to_le_bytes().to_vec();
        self.constant(format!("/constants/INT64/{value}"), ElementType::INT64, Vec::new(), bytes)
    }

    /// One number without a dimension, FLOAT or FLOAT16.
    pub(super) fn number(&mut self, value: f64, element: ElementType) -> Value {
        let value = value as f32;
        let bytes = match element {
            ElementType::FLOAT16 => half::f16::from_f32(value).to_le_bytes().to_vec(),
            _ => value.to_le_bytes().to_vec(),
        };
        self.constant(format!("/constants/{element}/{value:?}"), element, Vec::new(), bytes)
    }

    fn constant(&mut self, name: String, element: ElementType, dims: Vec<u64>, bytes: Vec<u8>) -> Value {
        if self.constants.insert(name.clone()) {
            let values = Some(bytes);
            self.graph.initializers.push(NewOnnxTensor { name: name.clone(), element, dims, values });
        }
        name
    }

    /// A small tensor of FLOAT or FLOAT16 under a name of its own.
    ///
    /// # Errors
    /// A value that the type cannot hold.
    pub(super) fn tensor(
        &mut self,
        name: &str,
        element: ElementType,
        dims: &[u64],
        values: &[f32],
    ) -> Result<Value> {
        let (dims, values) = (dims.to_vec(), Some(encoded(name, element, values)?));
        self.graph.initializers.push(NewOnnxTensor { name: name.into(), element, dims, values });
        Ok(name.into())
    }

    /// Adds matrices that follow each other along the rows of one as initializers `[count, out, ..]` of its form, and
    /// returns their names.
    pub(super) fn stacked(&mut self, name: &str, matrix: Matrix<'a>, count: u64) -> Vec<Value> {
        let ([rows, cols], zero_bytes) = (matrix.shape(), (matrix.shape()[1] / 32).div_ceil(2));
        let first = self.graph.initializers.len();
        let names = self.matrix(name, matrix);
        let quantized = names.len() > 1;
        let widths = if quantized { [cols / 2, cols / 32, zero_bytes] } else { [cols, 0, 0] };
        for (tensor, width) in self.graph.initializers[first..].iter_mut().zip(widths) {
            tensor.dims = vec![count, rows / count.max(1), width];
        }
        names
    }

    /// Adds a matrix as the initializers of its form, and returns their names.
    pub(super) fn matrix(&mut self, name: &str, matrix: Matrix<'a>) -> Vec<Value> {
        let first = self.graph.initializers.len();
        let [rows, cols] = matrix.shape();
        let (blocks, mut tensors) = (cols / 32, Vec::new());
        match matrix.form {
            Form::Rows(element) => tensors.push((name.to_string(), element, vec![rows, cols])),
            Form::Columns(element) => tensors.push((name.to_string(), element, vec![cols, rows])),
            Form::Blocks { scales, zero_points } => {
                tensors.push((format!("{name}_Q4"), ElementType::UINT8, vec![rows, blocks, 16]));
                tensors.push((format!("{name}_scales"), scales, vec![rows * blocks]));
                if zero_points {
                    let bytes = rows * blocks.div_ceil(2);
                    tensors.push((format!("{name}_zero_points"), ElementType::UINT8, vec![bytes]));
                }
            }
        }
        let names = tensors.iter().map(|(name, ..)| name.clone()).collect();
        let new = tensors.into_iter().map(|(name, element, dims)| NewOnnxTensor {
            name,
            element,
            dims,
            values: None,
        });
        self.graph.initializers.extend(new);
        self.matrices.push((first, matrix));
        names
    }

    /// Renames an output of the last node.
    pub(super) fn call(&mut self, value: &Value, name: &str) {
        let outputs = self.graph.nodes.last_mut().into_iter().flat_map(|node| &mut node.outputs);
        outputs.filter(|output| *output == value).for_each(|output| *output = name.into());
    }

    /// An input of the graph.
    pub(super) fn input(&mut self, name: &str, element: ElementType, shape: &[Dimension]) -> Value {
        self.graph.inputs.push(info(name, element, shape));
        name.into()
    }

    /// An input that comes after all others.
    pub(super) fn late_input(&mut self, name: &str, element: ElementType, shape: &[Dimension]) {
        self.late.push(info(name, element, shape));
    }

    /// Appends the late inputs.
    pub(super) fn end_inputs(&mut self) {
        self.graph.inputs.append(&mut self.late);
    }

    /// An output of the graph.
    pub(super) fn output(&mut self, name: &str, element: ElementType, shape: &[Dimension]) {
        self.graph.outputs.push(info(name, element, shape));
    }
}

fn info(name: &str, element: ElementType, shape: &[Dimension]) -> ValueInfo {
    ValueInfo {
        name: name.into(),
        value_type: Some(ValueType::Tensor { element, shape: Some(shape.to_vec()) }),
    }
}
