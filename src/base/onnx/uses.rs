//! What the nodes of a graph do with constant tensors: multiply by them, look up rows, add them.

use std::path::Path;

use curmerge_formats::dtype::DType;
use curmerge_formats::onnx::{AttributeValue, ElementType, Graph, Node, Onnx, OnnxTensor};

use crate::{Error, Result};

/// The most nodes between a weight and its use; more are a cycle.
const MAX_STEPS: usize = 32;
const MAX_BLOCK: i64 = 1 << 16;

/// A use of a constant tensor.
#[derive(Clone, Debug)]
pub(super) struct Use<'m> {
    /// The node that uses it.
    pub(super) node: &'m Node,
    /// Its name.
    pub(super) name: &'m str,
    /// The tensor.
    pub(super) tensor: &'m OnnxTensor,
    /// What it is used for.
    pub(super) role: Role,
    /// Whether a matrix is stored as `[in, out]`, or a lookup table as `[width, rows]`.
    pub(super) transposed: bool,
    /// How to decode it, if it is quantized.
    pub(super) nbits: Option<NBitsUse<'m>>,
}

/// What a tensor is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A matrix that activations are multiplied by.
    Matrix,
    /// The kernels of a convolution by channels, `[channels, 1, taps]`.
    Convolution,
    /// A table whose rows are looked up.
    Lookup,
    /// A vector that activations are multiplied by, perhaps after 1 is added.
    Factor {
        /// Whether 1 is added.
        unit_offset: bool,
    },
    /// A vector that is added.
    Bias,
    /// The matrices of all experts of a block, `[experts, out, in]`.
    Experts(Side),
    /// Their biases, `[experts, out]`.
    ExpertBiases(Side),
}

/// Which matrices of an expert a tensor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Gate and up.
    First {
        /// Whether their outputs take turns; else one follows the other.
        in_turn: bool,
    },
    /// Down.
    Second,
}

/// The tensors and options of a matrix in MatMulNBits' form.
#[derive(Clone, Copy, Debug)]
pub(super) struct NBitsUse<'m> {
    /// Outputs and inputs.
    pub(super) shape: [u64; 2],
    /// Bits of a code.
    pub(super) bits: usize,
    /// Inputs per block.
    pub(super) block_size: usize,
    /// The scales with their name.
    pub(super) scales: (&'m str, &'m OnnxTensor),
    /// The zero points with their name.
    pub(super) zero_points: Option<(&'m str, &'m OnnxTensor)>,
}

/// All uses, in the order of the graph's nodes.
pub(super) fn all(onnx: &Onnx) -> Result<Vec<Use<'_>>> {
    let mut uses = Vec::new();
    for node in &onnx.graph().nodes {
        Reader { onnx, node }.read(&mut uses)?;
    }
    Ok(uses)
}

/// An error about a node.
pub(super) fn error(path: &Path, node: &Node, problem: impl Into<String>, help: &str) -> Error {
    let place = format!("{} node '{}'", node.op_type.escape_debug(), node.name.escape_debug());
    Error::input(path, place, problem, help)
}

const UNQUANTIZED: &str = "export the model unquantized, or quantized for MatMulNBits";
/// Operators whose weights are in forms that are not read.
const UNREAD: &[&str] = &[
    "MatMulInteger",
    "QLinearMatMul",
    "QGemm",
    "DynamicQuantizeMatMul",
    "MatMulIntegerToFloat",
    "MatMulBnb4",
    "MatMulFpQ4",
    "MatMulNBitsMlp",
    "MatMulNBitsQkv",
];
const AGAIN: &str = "export the model again";

/// One node.
struct Reader<'m> {
    onnx: &'m Onnx,
    node: &'m Node,
}

/// The constant that an input comes from.
struct Found<'m> {
    name: &'m str,
    tensor: &'m OnnxTensor,
    /// Whether it is transposed on the way.
    flipped: bool,
}

impl<'m> Reader<'m> {
    fn read(&self, uses: &mut Vec<Use<'m>>) -> Result<()> {
        let node = self.node;
        let microsoft = node.domain == "com.microsoft";
        let standard = matches!(node.domain.as_str(), "" | "ai.onnx");
        match node.op_type.as_str() {
            "MatMul" if standard => uses.extend(self.matrix(false)?),
            "FusedMatMul" if microsoft => {
                let flipped = node.int("transB").unwrap_or(0) != 0;
                self.must_be_one("alpha", uses.len(), self.matrix(flipped)?, uses)?;
            }
            "Gemm" if standard => {
                let flipped = node.int("transB").unwrap_or(0) != 0;
                self.must_be_one("alpha", uses.len(), self.matrix(flipped)?, uses)?;
                let bias = self.vector(2, Role::Bias)?;
                self.must_be_one("beta", uses.len(), bias, uses)?;
            }
            "MatMulNBits" if microsoft => {
                uses.extend(self.nbits_matrix()?);
                uses.extend(self.vector(5, Role::Bias)?);
            }
            "CausalConvWithState" if microsoft => {
                let found = self.constant(1, false)?;
                uses.extend(found.map(|found| self.found(found, Role::Convolution, false)));
                uses.extend(self.vector(2, Role::Bias)?);
            }
            "MoE" | "QMoE" if microsoft => self.experts(uses)?,
            "Gather" if standard => uses.extend(self.lookup()?),
            "GatherBlockQuantized" if microsoft => uses.extend(self.nbits_lookup()?),
            "LayerNormalization" | "RMSNormalization" | "SimplifiedLayerNormalization" => {
                uses.extend(self.vector(1, Role::Factor { unit_offset: false })?);
                uses.extend(self.vector(2, Role::Bias)?);
            }
            "SkipSimplifiedLayerNormalization" if microsoft => {
                uses.extend(self.vector(2, Role::Factor { unit_offset: false })?);
                self.no_input(3)?;
            }
            "SkipLayerNormalization" if microsoft => {
                uses.extend(self.vector(2, Role::Factor { unit_offset: false })?);
                uses.extend(self.vector(3, Role::Bias)?);
                self.no_input(4)?;
            }
            // The biases of q, k and v as one vector.
            "MultiHeadAttention" if microsoft && self.constant(3, false)?.is_some() => self.no_input(3)?,
            "Mul" if standard => {
                for input in 0..2 {
                    uses.extend(self.vector(input, Role::Factor { unit_offset: false })?);
                }
            }
            "Add" if standard => {
                for input in 0..2 {
                    let one = self.is_one(1 - input)?;
                    let role = if one { Role::Factor { unit_offset: true } } else { Role::Bias };
                    uses.extend(self.vector(input, role)?);
                }
            }
            "If" | "Loop" | "Scan" if node.graphs().any(has_products) => {
                let help =
                    "use the model with past whose graph has no branches (not decoder_model_merged.onnx)";
                return Err(self.error("its branches multiply matrices", help));
            }
            unread if UNREAD.contains(&unread) && self.has_constants() => {
                return Err(self.error("curmerge does not read weights of this form", UNQUANTIZED));
            }
            _ => {}
        }
        Ok(())
    }

    fn has_constants(&self) -> bool {
        self.node.inputs.iter().any(|input| self.onnx.constant(input).is_some())
    }

    fn error(&self, problem: impl Into<String>, help: &str) -> Error {
        error(self.onnx.path(), self.node, problem, help)
    }

    /// Inserts the use at `at`. An operator that also multiplies by another number than 1 is an error.
    fn must_be_one(
        &self,
        attribute: &str,
        at: usize,
        found: Option<Use<'m>>,
        uses: &mut Vec<Use<'m>>,
    ) -> Result<()> {
        let one = !matches!(self.node.attribute(attribute), Some(AttributeValue::Float(x)) if *x != 1.0);
        if found.is_some() && !one {
            return Err(self.error(format!("its {attribute} is not 1"), AGAIN));
        }
        uses.splice(at..at, found);
        Ok(())
    }

    fn no_input(&self, index: usize) -> Result<()> {
        match self.input(index) {
            Some(_) => {
                Err(self.error(format!("it has an input {index}, which curmerge does not read"), AGAIN))
            }
            None => Ok(()),
        }
    }

    /// The name of an input, unless it is omitted.
    fn input(&self, index: usize) -> Option<&'m str> {
        self.node.inputs.get(index).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// The constant that an input is, perhaps in another type, transposed or, if allowed, in another shape.
    fn constant(&self, index: usize, reshaped: bool) -> Result<Option<Found<'m>>> {
        let (Some(mut name), mut flipped) = (self.input(index), false) else { return Ok(None) };
        for _ in 0..MAX_STEPS {
            if let Some(tensor) = self.onnx.constant(name) {
                return Ok(Some(Found { name, tensor, flipped }));
            }
            let Some(node) = self.onnx.producer_of(name) else { return Ok(None) };
            let source = match node.op_type.as_str() {
                "Transpose" => match node.attribute("perm") {
                    // By default all dimensions are reversed.
                    None => true,
                    Some(AttributeValue::Ints(perm)) => perm == &[1, 0],
                    Some(_) => false,
                }
                .then(|| flipped = !flipped),
                "Cast" | "Identity" => Some(()),
                "Reshape" => reshaped.then_some(()),
                "DequantizeLinear" => {
                    if node.inputs.first().is_some_and(|input| self.onnx.constant(input).is_some()) {
                        return Err(self.error("its weights come from DequantizeLinear", UNQUANTIZED));
                    }
                    None
                }
                _ => None,
            };
            match (source, node.inputs.first()) {
                (Some(()), Some(input)) => name = input,
                _ => return Ok(None),
            }
        }
        Err(self.error(format!("its input {index} comes through a cycle of nodes"), AGAIN))
    }

    fn found(&self, found: Found<'m>, role: Role, transposed: bool) -> Use<'m> {
        let Found { name, tensor, .. } = found;
        Use { node: self.node, name, tensor, role, transposed, nbits: None }
    }

    /// The second input of a product, if it is a constant matrix.
    fn matrix(&self, flipped: bool) -> Result<Option<Use<'m>>> {
        let Some(found) = self.constant(1, false)? else { return Ok(None) };
        // Rotary frequencies are multiplied as matrices of one row or column.
        if found.tensor.dims.len() != 2 || found.tensor.dims.iter().any(|&dim| dim < 2) {
            return Ok(None);
        }
        let transposed = found.flipped == flipped;
        Ok(Some(self.found(found, Role::Matrix, transposed)))
    }

    fn vector(&self, index: usize, role: Role) -> Result<Option<Use<'m>>> {
        let found = self.constant(index, false)?.filter(|found| {
            let (dims, floats) = (&found.tensor.dims, is_float(found.tensor.element));
            floats && found.tensor.elements() > 1 && dims.iter().filter(|&&dim| dim != 1).count() == 1
        });
        Ok(found.map(|found| self.found(found, role, false)))
    }

    /// Whether an input is the number 1.
    fn is_one(&self, index: usize) -> Result<bool> {
        if let Some(node) = self.input(index).and_then(|name| self.onnx.producer_of(name))
            && let Some(AttributeValue::Float(value)) = node.attribute("value_float")
        {
            return Ok(node.is_standard("Constant") && *value == 1.0);
        }
        let found = self.constant(index, false)?;
        let single = found.filter(|f| f.tensor.elements() == 1 && is_float(f.tensor.element));
        Ok(match single {
            Some(found) => self.onnx.decode(found.tensor)? == [1.0],
            None => false,
        })
    }

    fn lookup(&self) -> Result<Option<Use<'m>>> {
        let along = self.node.int("axis").unwrap_or(0);
        let found = self
            .constant(0, false)?
            .filter(|found| along == 0 && found.tensor.dims.len() == 2 && is_float(found.tensor.element));
        Ok(found.map(|found| {
            let transposed = found.flipped;
            self.found(found, Role::Lookup, transposed)
        }))
    }

    /// An attribute that must be a positive integer.
    fn size(&self, name: &str) -> Result<u64> {
        let size = self.node.int(name).and_then(|size| u64::try_from(size).ok());
        size.filter(|size| (1..1 << 40).contains(size)).ok_or_else(|| {
            self.error(format!("its {name} is missing or out of range"), "download the model again")
        })
    }

    /// The matrix of MatMulNBits.
    fn nbits_matrix(&self) -> Result<Option<Use<'m>>> {
        let Some(found) = self.constant(1, true)? else { return Ok(None) };
        if self.input(4).is_some() {
            let problem = "its columns are permuted (g_idx), which onnxruntime deprecates";
            return Err(self.error(problem, "quantize the model without act-order"));
        }
        if self.node.int("weight_prepacked").unwrap_or(0) != 0 {
            return Err(self.error("its codes are packed for a certain GPU", "use the model for CPU"));
        }
        let shape = [self.size("N")?, self.size("K")?];
        let (bits, block) = (self.node.int("bits").unwrap_or(4), self.node.int("block_size").unwrap_or(0));
        self.nbits_use(found, Role::Matrix, shape, [2, 3], bits, block)
    }

    /// The matrices and biases of the experts of MoE or QMoE.
    fn experts(&self, uses: &mut Vec<Use<'m>>) -> Result<()> {
        let node = self.node;
        let text = |name: &str| match node.attribute(name) {
            Some(AttributeValue::String(text)) => Some(&text[..]),
            _ => None,
        };
        let quantized = node.op_type == "QMoE";
        let in_turn = match node.int("swiglu_fusion") {
            Some(1) => true,
            Some(2) => false,
            _ => return Err(self.error("gate and up of its experts are not in one tensor", AGAIN)),
        };
        if text("activation_type") != Some(&b"swiglu"[..])
            || text("quant_type").is_some_and(|text| text != b"int")
        {
            return Err(self.error("curmerge does not read experts of this form", UNQUANTIZED));
        }
        // Without it, codes for a certain GPU and plain ones look alike.
        if quantized && node.int("weights_prepacked") != Some(0) {
            return Err(self.error("its codes may be packed for a certain GPU", "use the model for CPU"));
        }
        let own_bits = ["fc1_expert_weight_bits", "fc2_expert_weight_bits"];
        let sparse = node.int("use_sparse_mixer").unwrap_or(0) != 0;
        if sparse || own_bits.iter().any(|name| node.int(name).is_some()) {
            return Err(self.error("curmerge does not read experts of this form", UNQUANTIZED));
        }
        let (bits, block) =
            (node.int("expert_weight_bits").unwrap_or(4), node.int("block_size").unwrap_or(0));
        // The inputs of matrices, scales, biases and zero points.
        let sides = if quantized { [[2, 3, 4, 11], [5, 6, 7, 12]] } else { [[2, 0, 3, 0], [4, 0, 5, 0]] };
        for (side, [matrix, scales, bias, zeros]) in
            [Side::First { in_turn }, Side::Second].into_iter().zip(sides)
        {
            let missing = || self.error("the matrices of its experts are not constant", AGAIN);
            let found = self.constant(matrix, false)?.ok_or_else(missing)?;
            let dims = &found.tensor.dims;
            let &[experts, rows, width] = &dims[..] else {
                return Err(self.error(format!("the matrices of its experts are {dims:?}"), AGAIN));
            };
            if [experts, rows, width].iter().any(|dim| !(1..1 << 32).contains(dim)) {
                return Err(self.error(format!("the matrices of its experts are {dims:?}"), AGAIN));
            }
            let role = Role::Experts(side);
            if quantized {
                let shape = [experts.saturating_mul(rows), width.saturating_mul(8) / bits.max(1) as u64];
                uses.extend(self.nbits_use(found, role, shape, [scales, zeros], bits, block)?);
            } else if found.flipped || !is_float(found.tensor.element) {
                return Err(self.error(
                    format!("the matrices of its experts are {}", found.tensor.element),
                    UNQUANTIZED,
                ));
            } else {
                uses.push(self.found(found, role, false));
            }
            let biases = self.constant(bias, false)?.filter(|found| is_float(found.tensor.element));
            if self.input(bias).is_some() && biases.is_none() {
                return Err(self.error("the biases of its experts are not constant floats", AGAIN));
            }
            uses.extend(biases.map(|found| self.found(found, Role::ExpertBiases(side), false)));
        }
        // A third matrix of each expert; weights of the router's own.
        let further: &[usize] = if quantized { &[8, 9, 10, 13] } else { &[6, 7] };
        further.iter().try_for_each(|&input| self.no_input(input))?;
        let Some(weights) = self.input(14).filter(|_| quantized) else { return Ok(()) };
        let of_logits =
            |node: &Node| node.is_standard("Softmax") && node.inputs.first() == self.node.inputs.get(1);
        match self.onnx.producer_of(weights) {
            Some(node) if of_logits(node) => Ok(()),
            _ => Err(self.error("weights of its experts are not the softmax of its router", AGAIN)),
        }
    }

    /// The table of GatherBlockQuantized.
    fn nbits_lookup(&self) -> Result<Option<Use<'m>>> {
        let Some(found) = self.constant(0, true)? else { return Ok(None) };
        let bits = self.node.int("bits").unwrap_or(4);
        let last = matches!(self.node.int("quantize_axis").unwrap_or(1), 1 | -1);
        let rows = match self.constant(2, false)?.map(|scales| scales.tensor.dims.as_slice()) {
            Some(&[rows, _]) if rows > 0 && last && self.node.int("gather_axis").unwrap_or(0) == 0 => rows,
            _ => return Err(self.error("its blocks do not lie along the rows of a matrix", UNQUANTIZED)),
        };
        let cols = (found.tensor.bytes / rows).checked_mul(8).map(|all| all / bits.max(1) as u64);
        let block = self.node.int("block_size").unwrap_or(128);
        let used = self.nbits_use(found, Role::Lookup, [rows, cols.unwrap_or(0)], [2, 3], bits, block)?;
        if let Some(Use { nbits: Some(NBitsUse { zero_points: Some((_, zeros)), shape, .. }), .. }) = &used {
            // If those of a row do not fill whole bytes, versions of onnxruntime disagree on where the next
            // row starts.
            let a_row = shape[1].div_ceil(block as u64) * bits as u64;
            if zeros.element == ElementType::UINT8 && !a_row.is_multiple_of(8) {
                return Err(self.error("the zero points of a row do not fill whole bytes", UNQUANTIZED));
            }
        }
        Ok(used)
    }

    /// A quantized matrix with its scales and zero points at these inputs, whose sizes are checked.
    fn nbits_use(
        &self,
        found: Found<'m>,
        role: Role,
        shape: [u64; 2],
        [scales, zeros]: [usize; 2],
        bits: i64,
        block: i64,
    ) -> Result<Option<Use<'m>>> {
        let damaged = |problem: String| self.error(problem, "download the model again");
        if ![2, 4, 8].contains(&bits) {
            return Err(self.error(format!("curmerge does not read codes of {bits} bits"), UNQUANTIZED));
        }
        if !(16..=MAX_BLOCK).contains(&block) || block.count_ones() != 1 {
            return Err(damaged(format!("its block_size is {block}, which is not a power of 2 from 16")));
        }
        let [rows, cols] = shape;
        let blocks = cols.div_ceil(block as u64);
        let sized = |what: &str, have: u64, a_row: u64| match rows.checked_mul(a_row) {
            Some(needed) if needed == have => Ok(()),
            _ => Err(damaged(format!("its {what} have {have} values, not {a_row} for each of {rows} rows"))),
        };
        let code_bytes = |count: u64| (count * bits as u64).div_ceil(8);
        if found.flipped || found.tensor.element != ElementType::UINT8 {
            let problem = format!("its codes are {}, not UINT8, or transposed", found.tensor.element);
            return Err(self.error(problem, UNQUANTIZED));
        }
        sized("codes", found.tensor.elements(), code_bytes(blocks * block as u64))?;
        let constant = |index: usize, what: &str| -> Result<(&'m str, &'m OnnxTensor)> {
            let found = self.constant(index, false)?;
            let found = found.ok_or_else(|| damaged(format!("its {what} are missing or not constant")))?;
            Ok((found.name, found.tensor))
        };
        let scales = constant(scales, "scales")?;
        if !is_scale(scales.1.element) {
            return Err(damaged(format!("its scales are {}", scales.1.element)));
        }
        sized("scales", scales.1.elements(), blocks)?;
        let zero_points = self.input(zeros).map(|_| constant(zeros, "zero points")).transpose()?;
        match zero_points {
            Some((_, zeros)) if zeros.element == ElementType::UINT8 => {
                sized("zero points", zeros.elements(), code_bytes(blocks))?;
            }
            Some((_, zeros)) if is_scale(zeros.element) => sized("zero points", zeros.elements(), blocks)?,
            Some((_, zeros)) => return Err(damaged(format!("its zero points are {}", zeros.element))),
            None => {}
        }
        let (bits, block) = (bits as usize, block as usize);
        let nbits = Some(NBitsUse { shape, bits, block_size: block, scales, zero_points });
        Ok(Some(Use { nbits, ..self.found(found, role, false) }))
    }
}

/// Whether a nested graph multiplies matrices.
fn has_products(graph: &Graph) -> bool {
    let product = |node: &Node| {
        ["MatMul", "Gemm", "MatMulNBits"].contains(&node.op_type.as_str()) || node.graphs().any(has_products)
    };
    graph.nodes.iter().any(product)
}

/// Whether weights may have this type.
fn is_float(element: ElementType) -> bool {
    matches!(element.dtype(), Some(DType::F32 | DType::F16 | DType::BF16 | DType::F64))
}

/// Whether scales may have this type.
fn is_scale(element: ElementType) -> bool {
    is_float(element) && element != ElementType::DOUBLE
}
