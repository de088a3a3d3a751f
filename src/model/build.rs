//! Builds the transformer of a base. The architecture's table says which parts the blocks have.

use super::block::Block;
use super::feed_forward::FeedForward;
use super::linear::Linear;
use super::lm_head::LmHead;
use super::mixture::{Expert, MixtureOfExperts};
use super::mlp::Mlp;
use super::norm::Norm;
use super::residual::Residual;
use super::rope::RotaryEmbedding;
use super::transformer::Transformer;
use crate::arch::{NormKind, Positions};
use crate::base::{Base, Weight};
use crate::kernels::Real;
use crate::{Error, Result};

impl<'a, T: Real> Transformer<'a, T> {
    /// The frozen model of an open base.
    ///
    /// # Errors
    /// When its architecture is not known, or a tensor is missing.
    pub fn new(base: &'a Base) -> Result<Self> {
        base.must_be_computed()?;
        let config = base.config().clone();
        let parts = Parts { base };
        let output_norm = parts.norm("output_norm")?.ok_or_else(|| {
            Error::input(base.path(), "tensor 'output_norm'", "missing", "download the file again")
        })?;
        let positions = match base.architecture().forward.positions {
            Positions::Learned => Some(base.weight("position_embd")?),
            _ => None,
        };
        let blocks = (0..config.layers).map(|layer| parts.block(layer)).collect::<Result<_>>()?;
        let mut model = Self {
            embedding: base.weight("token_embd")?,
            positions,
            blocks,
            output_norm,
            head: LmHead::new(base.output_head()?, config.logit_scale, config.logit_cap),
            architecture: base.architecture(),
            ropes: Vec::new(),
            config,
            terms: Vec::new(),
            activation_bytes: u64::MAX,
        };
        model.for_context(0)?;
        Ok(model)
    }

    /// Prepares for sequences of at most this many tokens. It matters to two kinds of models; others need no
    /// call.
    ///
    /// - LongRoPE (Phi 3): if `tokens` exceeds the context that the model was first trained on, all sequences
    ///   use the long frequencies, as in llama.cpp with a context of that size. Without a call all use the
    ///   short ones.
    /// - Learned position embeddings (GPT-2): the call refuses what the model has no positions for. Without a
    ///   call such a sequence panics in the forward pass.
    ///
    /// # Errors
    /// When the model has learned position embeddings for fewer positions.
    pub fn for_context(&mut self, tokens: usize) -> Result<()> {
        if let Some(max) = self.positions.as_ref().map(Weight::rows).filter(|&max| max < tokens) {
            let problem = format!("a sequence of {tokens} tokens, and the model has {max} positions");
            return Err(Error::request(problem, format!("use sequences of at most {max} tokens")));
        }
        let ropes = self.config.rope.iter().chain(&self.config.local_rope);
        let rope =
            |rope| RotaryEmbedding::new(&self.config, rope, self.architecture.forward.positions, tokens);
        self.ropes = ropes.map(rope).collect();
        Ok(())
    }
}

/// Reads parts of blocks by canonical name.
struct Parts<'a> {
    base: &'a Base,
}

impl<'a> Parts<'a> {
    fn block<T: Real>(&self, layer: usize) -> Result<Block<'a, T>> {
        let config = self.base.config();
        let name = |part: &str| format!("blk.{layer}.{part}");
        let norms = self.base.architecture().tensors.norms;
        let role = |role: &str| self.role(layer, role);
        let needed = |word: &str| {
            role(word)?.ok_or_else(|| {
                let problem = format!("the architecture has no matrix for {word}");
                Error::input(self.base.path(), name(word), problem, "this is a defect of curmerge; report it")
            })
        };
        let residual = |norm: Option<Norm<T>>| Residual { norm, scale: T::from_f64(config.residual_scale) };
        let feed_forward = match config.experts {
            Some(_) => FeedForward::Mixture(Box::new(self.experts(layer)?)),
            None => FeedForward::Mlp(Box::new(Mlp {
                gate: role("gate")?,
                up: needed("up")?,
                down: needed("down")?,
                activation: self.base.architecture().forward.activation,
            })),
        };
        let window = config.window_of(layer);
        let local = window.is_some() && config.local_rope.is_some();
        let rope = config.rope_of(layer).map(|_| usize::from(local));
        Ok(Block {
            attn_norm: self.norm(&name(norms.before_attention))?,
            q: needed("q")?,
            k: needed("k")?,
            v: needed("v")?,
            qk_norms: match (self.norm(&name("attn_q_norm"))?, self.norm(&name("attn_k_norm"))?) {
                (Some(q), Some(k)) => Some([q, k]),
                _ => None,
            },
            o: needed("o")?,
            parallel: self.base.architecture().forward.parallel,
            attn_residual: residual(self.norm(&name(norms.after_attention))?),
            ffn_norm: self.norm(&name(norms.before_feed_forward))?,
            feed_forward,
            ffn_residual: residual(self.norm(&name(norms.after_feed_forward))?),
            window,
            rope,
        })
    }

    /// The matrix of this role, if the architecture has one.
    fn role<T: Real>(&self, layer: usize, role: &str) -> Result<Option<Linear<'a, T>>> {
        let part = self.base.architecture().target(role);
        part.map(|part| self.linear(&format!("blk.{layer}.{part}"))).transpose()
    }

    fn linear<T: Real>(&self, name: &str) -> Result<Linear<'a, T>> {
        let bias = match self.base.has_bias(name) {
            true => Some(numbers(self.base.vector(&format!("{name}.bias"))?)),
            false => None,
        };
        Ok(Linear::new(self.base.weight(name)?, bias))
    }

    /// The norm of this name, if the architecture has one.
    fn norm<T: Real>(&self, name: &str) -> Result<Option<Norm<T>>> {
        let architecture = self.base.architecture();
        if architecture.line(name).is_none() {
            return Ok(None);
        }
        let weight = numbers(self.base.vector(name)?);
        let bias = match architecture.forward.norm {
            NormKind::Layer => Some(numbers(self.base.vector(&format!("{name}.bias"))?)),
            NormKind::LayerUnbiased => Some(vec![T::zero(); weight.len()]),
            NormKind::Rms => None,
        };
        Ok(Some(Norm { weight, bias, eps: self.base.config().norm_eps }))
    }

    fn experts<T: Real>(&self, layer: usize) -> Result<MixtureOfExperts<'a, T>> {
        let config = self.base.config().experts;
        let (count, top_k) = config.map_or((0, 0), |e| (e.count, e.used));
        let matrix = |part: &str, expert: usize| self.linear(&format!("blk.{layer}.{part}[{expert}]"));
        let expert = |expert| {
            Ok(Expert {
                gate: matrix("ffn_gate_exps", expert)?,
                up: matrix("ffn_up_exps", expert)?,
                down: matrix("ffn_down_exps", expert)?,
            })
        };
        Ok(MixtureOfExperts {
            router: self.linear(&format!("blk.{layer}.ffn_gate_inp"))?,
            experts: (0..count).map(expert).collect::<Result<_>>()?,
            top_k,
            normalize_top_k: config.is_some_and(|e| e.normalized),
            activation: self.base.architecture().forward.activation,
        })
    }
}

fn numbers<T: Real>(values: Vec<f32>) -> Vec<T> {
    values.into_iter().map(T::from_f32).collect()
}
