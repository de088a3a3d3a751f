//! The feed-forward part: with a gate or without, and its activation function.

use curmerge_formats::onnx::ElementType;

use super::builder::Value;
use super::modules::Modules;
use crate::Result;
use crate::arch::Activation;

impl Modules<'_> {
    /// The feed-forward part of a block over `x` `[batch, sequence, d_model]` in FLOAT; its output in the type of
    /// products.
    pub(super) fn feed_forward(&mut self, layer: usize, x: Value) -> Result<Value> {
        let path = format!("/model/layers.{layer}/mlp");
        let x = self.b.for_products(&path, x);
        let kind = self.base.config().block_kind(layer);
        if kind.experts {
            return self.experts(layer, &x);
        }
        let gated = self.base.architecture().target("gate", kind).is_some();
        let hidden = if gated {
            let gate_up = self.linears(layer, &["gate", "up"], &x)?;
            let [gate, up] = [&gate_up[0], &gate_up[1]];
            let gate = self.activation(layer, &path, gate.clone())?;
            self.b.node(&format!("{path}/Mul"), "Mul", &[&gate, up])
        } else {
            let up = self.linears(layer, &["up"], &x)?.swap_remove(0);
            self.activation(layer, &path, up)?
        };
        Ok(self.linears(layer, &["down"], &hidden)?.swap_remove(0))
    }

    fn activation(&mut self, layer: usize, path: &str, x: Value) -> Result<Value> {
        let path = format!("{path}/act_fn");
        let at = |op: &str| format!("{path}/{op}");
        // That of config.json, which stands beside the model.
        let function = self.base.activation_in_transformers();
        if function == Activation::Silu {
            let gate = self.b.node(&at("Sigmoid"), "Sigmoid", &[&x]);
            return Ok(self.b.node(&at("Mul"), "Mul", &[&x, &gate]));
        }
        // In FLOAT: a power soon leaves the range of FLOAT16.
        let x = self.b.float_of(&path, x);
        let y = match function {
            Activation::Silu | Activation::ClampedSwiglu => unreachable!("it is made above, or refused"),
            Activation::SquaredRelu => {
                let positive = self.b.node(&at("Relu"), "Relu", &[&x]);
                self.b.node(&at("Mul"), "Mul", &[&positive, &positive])
            }
            Activation::Gelu => self.tanh_gelu(&path, &x),
            Activation::ExactGelu => self.exact_gelu(&path, &x),
            Activation::Xielu => self.xielu(layer, &path, &x)?,
        };
        Ok(self.b.for_products(&path, y))
    }

    /// x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
    fn tanh_gelu(&mut self, path: &str, x: &Value) -> Value {
        let at = |op: &str| format!("{path}/{op}");
        let mut number = |value| self.b.number(value, ElementType::FLOAT);
        let (three, cubic, one, half) = (number(3.0), number(0.044715), number(1.0), number(0.5));
        let root = number((2.0 / std::f64::consts::PI).sqrt());
        let cube = self.b.node(&at("Pow"), "Pow", &[x, &three]);
        let cube = self.b.node(&at("Mul"), "Mul", &[&cube, &cubic]);
        let sum = self.b.node(&at("Add"), "Add", &[x, &cube]);
        let sum = self.b.node(&at("Mul_1"), "Mul", &[&sum, &root]);
        let tanh = self.b.node(&at("Tanh"), "Tanh", &[&sum]);
        let factor = self.b.node(&at("Add_1"), "Add", &[&tanh, &one]);
        let product = self.b.node(&at("Mul_2"), "Mul", &[x, &factor]);
        self.b.node(&at("Mul_3"), "Mul", &[&product, &half])
    }

    /// x/2 (1 + erf(x / sqrt(2))).
    fn exact_gelu(&mut self, path: &str, x: &Value) -> Value {
        let at = |op: &str| format!("{path}/{op}");
        let mut number = |value| self.b.number(value, ElementType::FLOAT);
        let (root, one, half) = (number(std::f64::consts::SQRT_2), number(1.0), number(0.5));
        let scaled = self.b.node(&at("Div"), "Div", &[x, &root]);
        let erf = self.b.node(&at("Erf"), "Erf", &[&scaled]);
        let factor = self.b.node(&at("Add"), "Add", &[&erf, &one]);
        let product = self.b.node(&at("Mul"), "Mul", &[x, &factor]);
        self.b.node(&at("Mul_1"), "Mul", &[&product, &half])
    }

    /// `p x^2 + beta x` right of 0, and `n (e^min(x, eps) - 1 - x) + beta x` left of it, with p = softplus(alpha_p) and
    /// n = beta + softplus(alpha_n).
    fn xielu(&mut self, layer: usize, path: &str, x: &Value) -> Result<Value> {
        let at = |op: &str| format!("{path}/{op}");
        // The stored numbers, under the folder's names, so that the model can become a folder again.
        let mut stored = |word: &str| {
            let canonical = format!("blk.{layer}.xielu.{word}");
            let (name, value) = (self.module(&canonical)?, self.base.number(&canonical)?);
            let shape = self.base.architecture().line(&canonical).map_or(&[][..], |line| line.shape);
            self.b.tensor(&name, ElementType::FLOAT, &vec![1; shape.len()], &[value])
        };
        let [alpha_p, alpha_n, beta, eps] =
            [stored("alpha_p")?, stored("alpha_n")?, stored("beta")?, stored("eps")?];
        let alpha_p = self.b.node(&at("Softplus"), "Softplus", &[&alpha_p]);
        let alpha_n = self.b.node(&at("Softplus_1"), "Softplus", &[&alpha_n]);
        let alpha_n = self.b.node(&at("Add_1"), "Add", &[&alpha_n, &beta]);
        let (zero, one) = (self.b.number(0.0, ElementType::FLOAT), self.b.number(1.0, ElementType::FLOAT));
        let square = self.b.node(&at("Mul"), "Mul", &[x, x]);
        let right = self.b.node(&at("Mul_1"), "Mul", &[&square, &alpha_p]);
        let least = self.b.node(&at("Min"), "Min", &[x, &eps]);
        let grown = self.b.node(&at("Exp"), "Exp", &[&least]);
        let grown = self.b.node(&at("Sub"), "Sub", &[&grown, &one]);
        let left = self.b.node(&at("Sub_1"), "Sub", &[&grown, x]);
        let left = self.b.node(&at("Mul_2"), "Mul", &[&left, &alpha_n]);
        let is_right = self.b.node(&at("Greater"), "Greater", &[x, &zero]);
        let bent = self.b.node(&at("Where"), "Where", &[&is_right, &right, &left]);
        let straight = self.b.node(&at("Mul_3"), "Mul", &[x, &beta]);
        Ok(self.b.node(&at("Add"), "Add", &[&bent, &straight]))
    }
}
