//! A mixture of experts in onnxruntime's own operators: MoE, or QMoE for matrices of four bits.
//!
//! Both take the matrices of all experts of a block as one tensor `[experts, out, in]`, gate and up of an expert in
//! turn, and choose each token's experts by the softmax of the router's outputs.

use curmerge_formats::onnx::ElementType;

use super::builder::{MICROSOFT, Value, float, int, string};
use super::matrix::{Form, Matrix, Source};
use super::modules::Modules;
use crate::arch::{Activation, Gating};
use crate::base::Experts;
use crate::error::CallerOption;
use crate::kernels::activation::ClampedSwiglu;
use crate::{Error, Result};

/// Hugging Face has no one name for them, onnxruntime-genai's builder has this.
const MODULE: &str = "model.layers.{}.moe.experts";

/// The matrices of a block's experts.
#[derive(Clone, Copy)]
enum Side {
    /// Those that read the token: gate and up.
    First,
    /// Those that write it: down.
    Second,
}

impl Modules<'_> {
    /// The experts of a block over `x` `[batch, sequence, d_model]` in the type of products; its output in that type.
    ///
    /// # Errors
    /// Matrices whose rows are not whole blocks of four-bit numbers.
    pub(super) fn experts(&mut self, layer: usize, x: &Value) -> Result<Value> {
        let path = format!("/model/layers.{layer}/moe");
        let config = self.base.config();
        let Some(experts) = config.experts else { return Err(self.no_experts()) };
        if experts.groups[0] > 1 {
            let problem = "its experts are in groups, which curmerge does not write as ONNX";
            let help = "convert it into a GGUF file or a folder";
            return Err(Error::input(self.base.path(), "experts", problem, help));
        }
        let logits = self.linear(&format!("blk.{layer}.ffn_gate_inp"), x)?;
        let logits = self.b.float_of(&format!("{path}/router"), logits);
        let flat = self.b.ints(&[-1, experts.count as i64]);
        let logits = self.b.node(&format!("{path}/router/Reshape"), "Reshape", &[&logits, &flat]);
        // On processors, onnxruntime has the operators for FLOAT alone.
        let x = self.b.float_of(&path, x.clone());
        let routed = self.routed(layer, &path, &logits, &experts)?;
        let (logits, factor) = routed.map_or((logits, None), |(logits, factor)| (logits, Some(factor)));
        // Outputs of a router of another kind are made so that their softmax is right.
        let normalized = experts.normalized || factor.is_some();

        let first = self.side(layer, &path, Side::First)?;
        let second = self.side(layer, &path, Side::Second)?;
        let four_bits = self.four_bits();
        let mut inputs = vec![x.clone(), logits.clone()];
        for side in [&first, &second] {
            inputs.extend(side.stored.iter().take(if four_bits { 2 } else { 1 }).cloned());
            inputs.push(side.bias.clone());
        }
        if let [Some(zeros), Some(other)] = [first.stored.get(2), second.stored.get(2)] {
            inputs.resize(ZERO_POINTS, Value::new());
            inputs.extend([zeros.clone(), other.clone()]);
        }
        if four_bits && !normalized {
            // On processors, QMoE normalizes weights that it makes itself, whatever the attribute says.
            let weights = self.b.node_with(
                &format!("{path}/router/Softmax"),
                "Softmax",
                &[&logits],
                vec![int("axis", -1)],
            );
            inputs.resize(ROUTER_WEIGHTS, Value::new());
            inputs.push(weights);
        }
        let mut attributes = vec![
            int("k", experts.used as i64),
            int("normalize_routing_weights", normalized.into()),
            string("activation_type", "swiglu"),
            int("swiglu_fusion", IN_TURN),
        ];
        match self.base.activation_in_transformers() {
            Activation::ClampedSwiglu => attributes.extend([
                float("activation_alpha", ClampedSwiglu::ALPHA),
                float("activation_beta", 1.0),
                float("swiglu_limit", ClampedSwiglu::LIMIT),
            ]),
            _ => attributes.extend([float("activation_alpha", 1.0), float("activation_beta", 0.0)]),
        }
        if four_bits {
            attributes.extend([int("expert_weight_bits", 4), int("block_size", 32)]);
            attributes.push(int("weights_prepacked", 0));
        }
        let operator = if four_bits { "QMoE" } else { "MoE" };
        let name = format!("{path}/{operator}");
        let output = format!("{name}_output_0");
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        self.b.node_giving(&name, (MICROSOFT, operator), &inputs, &[&output], attributes);
        let output = match factor {
            None => output,
            Some(factor) => {
                let width = self.b.ints(&[-1, config.d_model as i64]);
                let flat = self.b.node(&format!("{path}/Reshape"), "Reshape", &[&output, &width]);
                let scaled = self.b.node(&format!("{path}/Mul"), "Mul", &[&flat, &factor]);
                let shape = self.b.node(&format!("{path}/Shape"), "Shape", &[&x]);
                self.b.node(&format!("{path}/Reshape_1"), "Reshape", &[&scaled, &shape])
            }
        };
        Ok(self.b.for_products(&path, output))
    }

    /// For a router whose weights are not the softmax of its outputs `logits` `[tokens, experts]`: what gives its weights
    /// when the operator takes the softmax of the largest, and a factor `[tokens, 1]` of all.
    ///
    /// With p the sigmoids, the experts of the largest p + b are chosen; the softmax of ln p is p / sum of the chosen p, and
    /// the factor is f sum / (sum + a), or f sum if the weights are not normalized.
    fn routed(
        &mut self,
        layer: usize,
        path: &str,
        logits: &Value,
        experts: &Experts,
    ) -> Result<Option<(Value, Value)>> {
        let forward = self.base.architecture().forward;
        let bias = format!("blk.{layer}.exp_probs_b.bias");
        let has_bias =
            self.base.config().block_kind(layer).selection_bias && self.base.place(&bias).is_some();
        if forward.gating == Gating::Softmax && !has_bias && experts.scale == 1.0 {
            return Ok(None);
        }
        let at = |op: &str| format!("{path}/router/{op}");
        let float = ElementType::FLOAT;
        let p = match forward.gating {
            Gating::Sigmoid => self.b.node(&at("Sigmoid"), "Sigmoid", &[logits]),
            Gating::Softmax => self.b.node_with(&at("Softmax"), "Softmax", &[logits], vec![int("axis", -1)]),
        };
        let scores = match has_bias {
            false => p.clone(),
            true => {
                let (name, values) = (self.module(&bias)?, self.base.vector(&bias)?);
                let bias = self.b.tensor(&name, float, &[values.len() as u64], &values)?;
                self.b.node(&at("Add_1"), "Add", &[&p, &bias])
            }
        };
        let count = self.b.ints(&[experts.used as i64]);
        let [best, chosen] = [0, 1].map(|output| format!("{}_output_{output}", at("TopK")));
        self.b.node_giving(&at("TopK"), ("", "TopK"), &[&scores, &count], &[&best, &chosen], Vec::new());
        let along = || vec![int("axis", 1)];
        let p = self.b.node_with(&at("GatherElements"), "GatherElements", &[&p, &chosen], along());
        let log = self.b.node(&at("Log"), "Log", &[&p]);
        let shape = self.b.node(&at("Shape"), "Shape", &[logits]);
        let far = self.b.number(NEVER_CHOSEN, float);
        let far = self.b.node(&at("Expand"), "Expand", &[&far, &shape]);
        let logits =
            self.b.node_with(&at("ScatterElements"), "ScatterElements", &[&far, &chosen, &log], along());
        let axis = self.b.ints(&[1]);
        let sum = self.b.node(&at("ReduceSum"), "ReduceSum", &[&p, &axis]);
        let mut factor = sum.clone();
        if experts.normalized {
            let added = self.b.number(forward.added_to_weights, float);
            let whole = self.b.node(&at("Add_2"), "Add", &[&sum, &added]);
            factor = self.b.node(&at("Div"), "Div", &[&sum, &whole]);
        }
        Ok(Some((logits, self.scaled(&at("Mul"), factor, experts.scale))))
    }

    /// The initializers of one side, and its bias: an empty name if it has none.
    fn side(&mut self, layer: usize, path: &str, side: Side) -> Result<Stored> {
        let config = self.base.config();
        let Some(experts) = config.experts else { return Err(self.no_experts()) };
        let joined = self.base.architecture().line("blk.0.ffn_gate_up_exps[0]").is_some();
        let names = |expert: usize| match (side, joined) {
            (Side::First, false) => {
                vec![format!("ffn_gate_exps[{expert}]"), format!("ffn_up_exps[{expert}]")]
            }
            (Side::First, true) => {
                vec![format!("ffn_gate_up_exps[{expert}][gate]"), format!("ffn_gate_up_exps[{expert}][up]")]
            }
            (Side::Second, _) => vec![format!("ffn_down_exps[{expert}]")],
        };
        let names: Vec<Vec<String>> = (0..experts.count)
            .map(|expert| names(expert).into_iter().map(|name| format!("blk.{layer}.{name}")).collect())
            .collect();
        let module = match side {
            Side::First => "gate_up_proj",
            Side::Second => "down_proj",
        };
        let module = format!("{}.{module}", MODULE.replacen("{}", &layer.to_string(), 1));
        let groups = names.iter().map(|group| group.iter().map(|name| self.base.weight(name)).collect());
        let source = Source::Parts(groups.collect::<Result<_>>()?);
        let [rows, cols] = source.shape();
        let form = match self.blocks() {
            None => Form::Rows(self.b.products),
            Some(_) if !cols.is_multiple_of(32) => {
                let problem = format!("'{}': rows of {cols} numbers are not whole blocks of 32", names[0][0]);
                let error = Error::input(self.base.path(), "experts", problem, "use f32");
                return Err(error.avoidable(CallerOption::FileType));
            }
            Some(zero_points) => Form::Blocks { scales: ElementType::FLOAT, zero_points },
        };
        let name = format!("{module}.weight");
        let matrix = Matrix { name: name.clone(), source, form };
        let mut stored = self.b.stacked(&name, matrix, experts.count as u64);
        if !self.four_bits() {
            let weight = stored[0].clone();
            stored[0] = self.b.float_of(&format!("{path}/{}", module.replace('.', "/")), weight);
        }
        let mut biases = Vec::new();
        if self.base.has_bias(&names[0][0]) {
            for group in &names {
                let vectors = group.iter().map(|name| self.base.vector(&format!("{name}.bias")));
                let vectors = vectors.collect::<Result<Vec<_>>>()?;
                let length = vectors.first().map_or(0, Vec::len);
                biases.extend((0..length).flat_map(|entry| vectors.iter().map(move |vector| vector[entry])));
            }
        }
        let bias = match biases.is_empty() {
            true => Value::new(),
            false => {
                let dims = [experts.count as u64, (rows / experts.count) as u64];
                self.b.tensor(&format!("{module}.bias"), ElementType::FLOAT, &dims, &biases)?
            }
        };
        Ok(Stored { stored, bias })
    }

    fn four_bits(&self) -> bool {
        self.blocks().is_some()
    }

    fn no_experts(&self) -> Error {
        Error::input(self.base.path(), "architecture", "it has no experts", "download the model again")
    }
}

/// What stands for the outputs of a router of experts that it does not choose.
const NEVER_CHOSEN: f64 = -1e30;
/// `swiglu_fusion` of gate and up in turn, the only order of the CPU's operators.
const IN_TURN: i64 = 1;
/// The input of QMoE from which on there are zero points.
const ZERO_POINTS: usize = 11;

/// The input of QMoE for weights of experts that it does not make itself.
const ROUTER_WEIGHTS: usize = 14;

/// What the graph has of a side.
struct Stored {
    /// The matrices, and of four-bit ones the scales and zero points.
    stored: Vec<Value>,
    bias: Value,
}
