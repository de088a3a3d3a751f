//! Builds the transformer of a base. The architecture's table says which parts the blocks have.

use ndarray::Array2;

use super::activation::Function;
use super::attention::{Attention, KeysAndValues, OwnKeysAndValues};
use super::block::Block;
use super::convolution::CausalConvolution;
use super::delta_net::{GatedDeltaNet, Gates};
use super::feed_forward::FeedForward;
use super::linear::Linear;
use super::lm_head::LmHead;
use super::mamba2::Mamba2;
use super::mixer::Mixer;
use super::mixture::{Expert, MixtureOfExperts};
use super::mlp::Mlp;
use super::mlp_and_experts::MlpAndExperts;
use super::norm::Norm;
use super::per_layer_input::{PerLayerEmbedding, PerLayerInput};
use super::residual::Residual;
use super::rope::RotaryEmbedding;
use super::router::Router;
use super::shared_expert::SharedExpert;
use super::short_convolution::ShortConvolution;
use super::sublayer::{FeedForwardSublayer, MixingSublayer};
use super::transformer::Transformer;
use crate::arch::{Activation, MixerKind, NormKind, Positions, TensorNames};
use crate::base::{Base, BlockSizes, Weight, layer_part};
use crate::kernels::Real;
use crate::kernels::activation::Xielu;
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
        let output_norm = parts.needed_norm(base.architecture().tensors.last_norm)?;
        let positions = match base.architecture().forward.positions {
            Positions::Learned => Some(base.weight("position_embd")?),
            _ => None,
        };
        let head_bias = base.has_bias("output").then(|| base.vector("output.bias")).transpose()?;
        let blocks = (0..config.layers).map(|layer| parts.block(layer)).collect::<Result<_>>()?;
        let mut model = Self {
            embedding: base.weight("token_embd")?,
            positions,
            per_layer_inputs: parts.per_layer_embedding()?,
            blocks,
            output_norm,
            head: LmHead::new(base.output_head()?, head_bias, config.logit_scale, config.logit_cap),
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
    /// When the model has learned position embeddings for fewer positions, or other rotary frequencies for longer
    /// sequences.
    pub fn for_context(&mut self, tokens: usize) -> Result<()> {
        if let Some(max) = self.positions.as_ref().map(Weight::rows).filter(|&max| max < tokens) {
            let problem = format!("a sequence of {tokens} tokens, and the model has {max} positions");
            return Err(Error::request(problem, format!("use sequences of at most {max} tokens")));
        }
        let ropes = || self.config.rope.iter().chain(&self.config.local_rope);
        if let Some(longest) = ropes().filter_map(|rope| rope.longest).find(|&longest| longest < tokens) {
            let problem = format!(
                "a sequence of {tokens} tokens, and beyond {longest} the model's rotary frequencies depend on the length (dynamic)"
            );
            return Err(Error::request(problem, format!("use sequences of at most {longest} tokens")));
        }
        let rope = |rope| RotaryEmbedding::new(rope, self.architecture.forward.positions, tokens);
        self.ropes = ropes().map(rope).collect();
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
        let residual = |norm: Option<Norm<T>>| Residual { norm, scale: T::from_f64(config.residual_scale) };
        let kind = config.block_kind(layer);
        Ok(Block {
            mixing: match kind.mixer {
                None => None,
                Some(mixer) => Some(MixingSublayer {
                    norm: match (self.norm(&name(norms.before_attention))?, norms.before_both) {
                        (None, Some(both)) => self.norm(&name(both))?,
                        (own, _) => own,
                    },
                    mixer: self.mixer(layer, mixer)?,
                    o: self.needed(layer, "o")?,
                    residual: residual(self.norm(&name(norms.after_attention))?),
                }),
            },
            parallel: self.base.architecture().forward.parallel,
            feed_forward: match kind.feed_forward {
                false => None,
                true => Some(FeedForwardSublayer {
                    norm: self.norm(&name(norms.before_feed_forward))?,
                    network: match kind.experts {
                        true if self.base.architecture().forward.mlp_beside_experts => {
                            FeedForward::Both(Box::new(self.mlp_and_experts(layer)?))
                        }
                        true => FeedForward::Mixture(Box::new(self.experts(layer)?)),
                        false => FeedForward::Mlp(Box::new(self.mlp(layer)?)),
                    },
                    residual: residual(self.norm(&name(norms.after_feed_forward))?),
                }),
            },
            per_layer_input: match config.per_layer_inputs {
                None => None,
                Some(_) => Some(PerLayerInput {
                    layer,
                    gate: self.linear(&name("inp_gate"))?,
                    projection: self.linear(&name("proj"))?,
                    residual: Residual { norm: self.norm(&name("post_norm"))?, scale: T::one() },
                    activation: self.activation(layer)?,
                }),
            },
            out_scale: match self.base.place(&name("layer_output_scale")) {
                None => T::one(),
                Some(_) => {
                    self.vector_if_any(&name("layer_output_scale"))?.map_or(T::one(), |scale| scale[0])
                }
            },
        })
    }

    fn per_layer_embedding<T: Real>(&self) -> Result<Option<PerLayerEmbedding<'a, T>>> {
        if self.base.config().per_layer_inputs.is_none() {
            return Ok(None);
        }
        Ok(Some(PerLayerEmbedding {
            embedding: self.base.weight("per_layer_token_embd")?,
            projection: self.linear("per_layer_model_proj")?,
            norm: self.needed_norm("per_layer_proj_norm")?,
        }))
    }

    fn mixer<T: Real>(&self, layer: usize, kind: MixerKind) -> Result<Mixer<'a, T>> {
        let config = self.base.config();
        let name = |part: &str| format!("blk.{layer}.{part}");
        match kind {
            MixerKind::LinearAttention => return Ok(Mixer::DeltaNet(Box::new(self.delta_net(layer)?))),
            MixerKind::Convolution => {
                return Ok(Mixer::Convolution(Box::new(ShortConvolution {
                    input: self.needed(layer, "in")?,
                    convolution: self.convolution(&name("shortconv.conv"))?,
                })));
            }
            MixerKind::StateSpace => return Ok(Mixer::Mamba2(Box::new(self.mamba2(layer)?))),
            MixerKind::Attention => {}
        }
        let window = config.window_of(layer);
        let local = window.is_some() && config.local_rope.is_some();
        let BlockSizes { kv_heads, head_dim, .. } = config.sizes_of(layer);
        Ok(Mixer::Attention(Box::new(Attention {
            q: self.needed(layer, "q")?,
            q_norm: self.norm(&name("attn_q_norm"))?,
            norms_rotated: self.base.architecture().forward.norms_rotated,
            keys_and_values: self.keys_and_values(layer)?,
            kv_heads,
            head_dim,
            gated: self.base.architecture().forward.gated_attention,
            sinks: self.vector_if_any(&name("attn_sinks"))?,
            window,
            rope: config.rope_of(layer).map(|_| usize::from(local)),
        })))
    }

    fn keys_and_values<T: Real>(&self, layer: usize) -> Result<KeysAndValues<'a, T>> {
        let config = self.base.config();
        let kind = config.block_kind(layer);
        if !kind.own_keys {
            return Ok(KeysAndValues::Block(config.keys_of(layer)));
        }
        let head_dim = config.sizes_of(layer).head_dim;
        let v_norm = || Norm { weight: vec![T::one(); head_dim], bias: None, eps: config.norm_eps };
        let read_later = (layer + 1..config.layers).any(|later| config.keys_of(later) == layer);
        Ok(KeysAndValues::Own(Box::new(OwnKeysAndValues {
            k: self.needed(layer, "k")?,
            v: if kind.own_values { Some(self.needed(layer, "v")?) } else { None },
            k_norm: self.norm(&format!("blk.{layer}.attn_k_norm"))?,
            norms_rotated: self.base.architecture().forward.norms_rotated,
            v_norm: self.base.architecture().forward.value_norm.then(v_norm),
            shared_as: read_later.then_some(layer),
        })))
    }

    fn delta_net<T: Real>(&self, layer: usize) -> Result<GatedDeltaNet<'a, T>> {
        let config = self.base.config();
        let name = |part: &str| format!("blk.{layer}.{part}");
        let heads = config.delta_net.ok_or_else(|| {
            let problem = "linear attention without its heads";
            Error::input(
                self.base.path(),
                format!("block {layer}"),
                problem,
                "this is a defect of curmerge; report it",
            )
        })?;
        Ok(GatedDeltaNet {
            qkv: self.needed(layer, "qkv")?,
            z: self.needed(layer, "z")?,
            gates: match self.role(layer, "ba")? {
                Some(both) => {
                    Gates::Joined { both: Box::new(both), per_key_head: heads.value_heads / heads.key_heads }
                }
                None => Gates::Apart(Box::new([self.needed(layer, "beta")?, self.needed(layer, "alpha")?])),
            },
            convolution: self.convolution(&name("ssm_conv1d"))?,
            decay: self.base.exact_vector(&name("ssm_a"))?.into_iter().map(T::from_f64).collect(),
            decay_bias: numbers(self.base.vector(&name("ssm_dt.bias"))?),
            norm: self.needed_norm(&name("ssm_norm"))?,
            heads,
        })
    }

    fn mamba2<T: Real>(&self, layer: usize) -> Result<Mamba2<'a, T>> {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let config = self.base.config().state_space.ok_or_else(|| {
            let problem = "a state space without its heads";
            let help = "this is a defect of curmerge; report it";
            Error::input(self.base.path(), format!("block {layer}"), problem, help)
        })?;
        let of_group = vec![T::one(); config.inner() / config.groups];
        Ok(Mamba2 {
            input: self.needed(layer, "in")?,
            convolution: self.convolution(&name("ssm_conv1d"))?,
            decay: self.base.exact_vector(&name("ssm_a"))?.into_iter().map(T::from_f64).collect(),
            step_bias: numbers(self.base.vector(&name("ssm_dt.bias"))?),
            skip: numbers(self.base.vector(&name("ssm_d"))?),
            norm: Norm { weight: of_group, bias: None, eps: self.base.config().norm_eps },
            norm_factors: numbers(self.base.vector(&name("ssm_norm"))?),
            config,
        })
    }

    fn convolution<T: Real>(&self, name: &str) -> Result<CausalConvolution<T>> {
        let kernel = self.base.weight(name)?;
        let kernel = Array2::from_shape_vec((kernel.rows(), kernel.cols()), numbers(kernel.vector()));
        let kernel = kernel.expect("as many numbers as the shape says");
        let bias = match self.base.has_bias(name) {
            true => Some(numbers(self.base.vector(&format!("{name}.bias"))?)),
            false => None,
        };
        let weight = kernel.reversed_axes().as_standard_layout().into_owned();
        Ok(CausalConvolution { weight, bias })
    }

    /// The matrix of this role, which the architecture has.
    fn needed<T: Real>(&self, layer: usize, role: &str) -> Result<Linear<'a, T>> {
        self.role(layer, role)?.ok_or_else(|| {
            let problem = format!("the architecture has no matrix for {role}");
            let help = "this is a defect of curmerge; report it";
            Error::input(self.base.path(), format!("block {layer}"), problem, help)
        })
    }

    /// The matrix of this role, if the architecture has one.
    fn role<T: Real>(&self, layer: usize, role: &str) -> Result<Option<Linear<'a, T>>> {
        let part = self.base.architecture().target(role, self.base.config().block_kind(layer));
        part.map(|part| self.linear(&format!("blk.{layer}.{part}"))).transpose()
    }

    fn linear<T: Real>(&self, name: &str) -> Result<Linear<'a, T>> {
        let bias = match self.base.has_bias(name) {
            true => Some(numbers(self.base.vector(&format!("{name}.bias"))?)),
            false => None,
        };
        Ok(Linear::new(self.base.weight(name)?, bias))
    }

    /// The vector of this name, if the architecture has one.
    fn vector_if_any<T: Real>(&self, name: &str) -> Result<Option<Vec<T>>> {
        let known = self.base.architecture().line(name).is_some();
        known.then(|| Ok(numbers(self.base.vector(name)?))).transpose()
    }

    /// The norm of this name, which the architecture has.
    fn needed_norm<T: Real>(&self, name: &str) -> Result<Norm<T>> {
        let missing = || Error::input(self.base.path(), name, "missing", "download the file again");
        self.norm(name)?.ok_or_else(missing)
    }

    /// The norm of this name, if the architecture has one.
    fn norm<T: Real>(&self, name: &str) -> Result<Option<Norm<T>>> {
        let architecture = self.base.architecture();
        let kind = layer_part(name).map(|(layer, _)| self.base.config().block_kind(layer));
        let has = |line: &TensorNames| kind.is_none_or(|kind| line.blocks.include(kind));
        if !architecture.line(name).is_some_and(has) {
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

    /// The activation function of a block's feed-forward part.
    fn activation(&self, layer: usize) -> Result<Function> {
        Ok(match self.base.activation() {
            Activation::Silu => Function::Silu,
            Activation::Gelu => Function::Gelu,
            Activation::ExactGelu => Function::ExactGelu,
            Activation::SquaredRelu => Function::SquaredRelu,
            Activation::ClampedSwiglu => Function::ClampedSwiglu,
            Activation::Xielu => {
                let number = |name: &str| self.base.number(&format!("blk.{layer}.xielu.{name}"));
                Function::Xielu(Xielu::new([
                    number("alpha_p")?,
                    number("alpha_n")?,
                    number("beta")?,
                    number("eps")?,
                ]))
            }
        })
    }

    fn mlp<T: Real>(&self, layer: usize) -> Result<Mlp<'a, T>> {
        Ok(Mlp {
            gate: self.role(layer, "gate")?,
            up: self.needed(layer, "up")?,
            down: self.needed(layer, "down")?,
            activation: self.activation(layer)?,
        })
    }

    fn experts<T: Real>(&self, layer: usize) -> Result<MixtureOfExperts<'a, T>> {
        let config = self.base.config().experts.ok_or_else(|| {
            let help = "this is a defect of curmerge; report it";
            Error::input(self.base.path(), format!("block {layer}"), "experts without their number", help)
        })?;
        let kind = self.base.config().block_kind(layer);
        let forward = &self.base.architecture().forward;
        let matrix = |name: String| self.linear(&format!("blk.{layer}.{name}"));
        let joined = self.base.architecture().line("blk.0.ffn_gate_up_exps[0]").is_some();
        let first = |expert: usize, role: &str| match joined {
            true => matrix(format!("ffn_gate_up_exps[{expert}][{role}]")),
            false => matrix(format!("ffn_{role}_exps[{expert}]")),
        };
        let gated = joined || self.base.architecture().line("blk.0.ffn_gate_exps[0]").is_some();
        let expert = |expert| {
            let gate = if gated { Some(first(expert, "gate")?) } else { None };
            Ok(Expert { gate, up: first(expert, "up")?, down: matrix(format!("ffn_down_exps[{expert}]"))? })
        };
        Ok(MixtureOfExperts {
            router: Router {
                matrix: matrix("ffn_gate_inp".into())?,
                gating: forward.gating,
                selection_bias: match kind.selection_bias {
                    true => self.vector_if_any(&format!("blk.{layer}.exp_probs_b.bias"))?,
                    false => None,
                },
                groups: config.groups,
                top_k: config.used,
                normalized: config.normalized,
                added_to_sum: T::from_f64(forward.added_to_weights),
                scale: T::from_f64(config.scale),
                scales: self.vector_if_any(&format!("blk.{layer}.ffn_down_exps.scale"))?,
            },
            experts: (0..config.count).map(expert).collect::<Result<_>>()?,
            activation: self.activation(layer)?,
            latent: match config.latent {
                None => None,
                Some(_) => Some([matrix("ffn_latent_down".into())?, matrix("ffn_latent_up".into())?]),
            },
            shared: match kind.shared_expert {
                false => None,
                true => Some(SharedExpert {
                    mlp: self.mlp(layer)?,
                    gate: match self.base.architecture().line("blk.0.ffn_gate_inp_shexp") {
                        None => None,
                        Some(_) => Some(matrix("ffn_gate_inp_shexp".into())?),
                    },
                }),
            },
        })
    }
}

impl<'a> Parts<'a> {
    fn mlp_and_experts<T: Real>(&self, layer: usize) -> Result<MlpAndExperts<'a, T>> {
        let norm = |name: &str| self.needed_norm(&format!("blk.{layer}.{name}"));
        let config = self.base.config();
        // The router's input is divided by the root of its width.
        let by_width = 1.0 / (config.d_model as f64).sqrt();
        let factors: Option<Vec<T>> = self.vector_if_any(&format!("blk.{layer}.ffn_gate_inp.scale"))?;
        let factors = factors.unwrap_or_else(|| vec![T::one(); config.d_model]);
        let weight = factors.into_iter().map(|factor| factor * T::from_f64(by_width)).collect();
        Ok(MlpAndExperts {
            mlp: self.mlp(layer)?,
            mlp_norm: norm("post_ffw_norm_1")?,
            experts: self.experts(layer)?,
            input_norm: norm("pre_ffw_norm_2")?,
            output_norm: norm("post_ffw_norm_2")?,
            router_norm: Norm { weight, bias: None, eps: config.norm_eps },
        })
    }
}

fn numbers<T: Real>(values: Vec<f32>) -> Vec<T> {
    values.into_iter().map(T::from_f32).collect()
}
