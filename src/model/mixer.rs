//! The part of a block that mixes tokens: attention, a Gated DeltaNet, a gated short convolution, or Mamba-2.

use ndarray::{Array2, ArrayView2};

use super::attention::{Attention, AttentionActivations, AttentionConfig, KeysAndValues, KvCache};
use super::delta_net::{DeltaNetActivations, DeltaNetCache, GatedDeltaNet};
use super::linear::Linear;
use super::mamba2::{Mamba2, Mamba2Activations, Mamba2Cache};
use super::pass::Pass;
use super::short_convolution::{ShortConvolution, ShortConvolutionActivations};
use super::terms::TermSink;
use crate::kernels::{Precision, Real};

/// The first part of a block, without its norm and its output projection.
#[derive(Clone, Debug)]
pub enum Mixer<'a, T: Real> {
    /// Softmax attention.
    Attention(Box<Attention<'a, T>>),
    /// Linear attention by the gated delta rule.
    DeltaNet(Box<GatedDeltaNet<'a, T>>),
    /// A gated short convolution.
    Convolution(Box<ShortConvolution<'a, T>>),
    /// A state space.
    Mamba2(Box<Mamba2<'a, T>>),
}

/// What the backward pass needs of the forward pass.
#[derive(Debug)]
pub enum MixerActivations<T: Real> {
    Attention(Box<AttentionActivations<T>>),
    DeltaNet(Box<DeltaNetActivations<T>>),
    Convolution(Box<ShortConvolutionActivations<T>>),
    Mamba2(Box<Mamba2Activations<T>>),
}

#[cfg(test)]
impl<T: Real> MixerActivations<T> {
    /// The bytes of activations that it holds.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Attention(saved) => saved.bytes(),
            Self::DeltaNet(saved) => saved.bytes(),
            Self::Convolution(saved) => saved.bytes(),
            Self::Mamba2(saved) => saved.bytes(),
        }
    }
}

/// What a block keeps of the tokens of some sequences for those that follow.
#[derive(Debug)]
pub enum MixerCache<T> {
    KeysAndValues(KvCache<T>),
    States(DeltaNetCache<T>),
    Mamba2(Mamba2Cache<T>),
    /// What a convolution reads of the tokens before.
    History(Vec<Array2<T>>),
    /// Of a block that mixes no tokens.
    Nothing,
}

impl<T: Real> MixerCache<T> {
    /// Makes room for at least this many rows of keys and values.
    pub fn grow(&mut self, rows: usize) {
        if let Self::KeysAndValues(cache) = self {
            cache.grow(rows);
        }
    }

    /// Whether it still holds what it held when the sequence was shorter.
    pub fn can_be_cut(&self) -> bool {
        matches!(self, Self::KeysAndValues(_) | Self::Nothing)
    }
}

impl<'a, T: Real> Mixer<'a, T> {
    /// The matrix of this role.
    pub fn linear_mut(&mut self, role: &str) -> Option<&mut Linear<'a, T>> {
        match self {
            Self::Attention(attention) => attention.linear_mut(role),
            Self::DeltaNet(net) => net.linear_mut(role),
            Self::Convolution(convolution) => (role == "in").then_some(&mut convolution.input),
            Self::Mamba2(mamba) => (role == "in").then_some(&mut mamba.input),
        }
    }

    /// Its matrices, which all read the normed input.
    pub fn inputs_mut(&mut self) -> Vec<&mut Linear<'a, T>> {
        match self {
            Self::Attention(attention) => attention.inputs_mut(),
            Self::DeltaNet(net) => net.inputs_mut().collect(),
            Self::Convolution(convolution) => vec![&mut convolution.input],
            Self::Mamba2(mamba) => vec![&mut mamba.input],
        }
    }

    /// [`Self::inputs_mut`], shared.
    pub fn inputs(&self) -> Vec<&Linear<'a, T>> {
        match self {
            Self::Attention(attention) => attention.inputs(),
            Self::DeltaNet(net) => net.inputs().collect(),
            Self::Convolution(convolution) => vec![&convolution.input],
            Self::Mamba2(mamba) => vec![&mamba.input],
        }
    }

    /// What products are computed in.
    pub fn precision(&self) -> Precision {
        match self {
            Self::Attention(attention) => attention.q.precision(),
            Self::DeltaNet(net) => net.qkv.precision(),
            Self::Convolution(convolution) => convolution.input.precision(),
            Self::Mamba2(mamba) => mamba.input.precision(),
        }
    }

    /// Values saved of a token for the backward pass: those that may be rounded to bfloat16, and others.
    pub fn activation_values(&self, config: AttentionConfig) -> (usize, usize) {
        match self {
            Self::Attention(attention) => attention.activation_values(config),
            Self::DeltaNet(net) => net.activation_values(),
            Self::Convolution(convolution) => (convolution.activation_values(), 0),
            Self::Mamba2(mamba) => mamba.activation_values(),
        }
    }

    /// The block whose keys and values it reads, if they are not its own.
    pub fn reads_keys_of(&self) -> Option<usize> {
        match self {
            Self::Attention(attention) => match attention.keys_and_values {
                KeysAndValues::Own(_) => None,
                KeysAndValues::Block(block) => Some(block),
            },
            Self::DeltaNet(_) | Self::Convolution(_) | Self::Mamba2(_) => None,
        }
    }

    /// The entries of a token's keys, if they are its own.
    pub fn own_key_width(&self) -> usize {
        match self {
            Self::Attention(attention) => attention.own_width(),
            Self::DeltaNet(_) | Self::Convolution(_) | Self::Mamba2(_) => 0,
        }
    }

    /// An empty cache for this many sequences; that of attention has `rows` rows of keys and values.
    pub fn cache(&self, sequences: usize, rows: usize) -> MixerCache<T> {
        match self {
            Self::Attention(attention) => {
                MixerCache::KeysAndValues(KvCache::new(rows, attention.own_width()))
            }
            Self::DeltaNet(net) => MixerCache::States(net.cache(sequences)),
            Self::Convolution(convolution) => MixerCache::History(convolution.cache(sequences)),
            Self::Mamba2(mamba) => MixerCache::Mamba2(mamba.cache(sequences)),
        }
    }

    /// The bytes of the cache of one sequence of this many tokens.
    pub fn cache_bytes(&self, tokens: usize) -> u64 {
        let values = match self {
            Self::Attention(attention) => 2 * attention.own_width() as u64 * tokens as u64,
            Self::DeltaNet(net) => net.cached_values(),
            Self::Convolution(convolution) => convolution.cached_values(),
            Self::Mamba2(mamba) => mamba.cached_values(),
        };
        values.saturating_mul(size_of::<T>() as u64)
    }

    /// The normed input `[tokens, d_model]` to the heads' outputs. With a precision, also the activations, saved for
    /// products of that precision.
    pub fn forward(
        &self,
        input: &T::PackedLhs<'_>,
        pass: &mut Pass<'_, T>,
        save: Option<Precision>,
    ) -> (Array2<T>, Option<MixerActivations<T>>) {
        match self {
            Self::Attention(attention) => {
                let (attended, saved) = attention.forward(input, pass, save);
                (attended, saved.map(|saved| MixerActivations::Attention(Box::new(saved))))
            }
            Self::DeltaNet(net) => {
                let (attended, saved) = net.forward(input, pass, save);
                (attended, saved.map(|saved| MixerActivations::DeltaNet(Box::new(saved))))
            }
            Self::Convolution(convolution) => {
                let (y, saved) = convolution.forward(input, pass, save);
                (y, saved.map(|saved| MixerActivations::Convolution(Box::new(saved))))
            }
            Self::Mamba2(mamba) => {
                let (y, saved) = mamba.forward(input, pass, save);
                (y, saved.map(|saved| MixerActivations::Mamba2(Box::new(saved))))
            }
        }
    }

    /// [`Self::forward`] of tokens that follow those in the cache, which gets them, too. `slots` are the cache's
    /// sequences, one for each of `pass`, whose rows of keys are the cache's.
    pub fn extend(
        &self,
        input: &T::PackedLhs<'_>,
        cache: &mut MixerCache<T>,
        slots: &[usize],
        pass: &Pass<'_, T>,
    ) -> Array2<T> {
        match (self, cache) {
            (Self::Attention(attention), MixerCache::KeysAndValues(cache)) => {
                attention.extend(input, cache, pass)
            }
            (Self::DeltaNet(net), MixerCache::States(cache)) => net.extend(input, cache, slots, pass),
            (Self::Convolution(convolution), MixerCache::History(cache)) => {
                convolution.extend(input, cache, slots, pass)
            }
            (Self::Mamba2(mamba), MixerCache::Mamba2(cache)) => mamba.extend(input, cache, slots, pass),
            _ => unreachable!("the cache is that of this block"),
        }
    }

    /// From dattended = dL/d(heads' outputs), and the normed input if a matrix reads it: gives the gradients of terms
    /// to `sink`, and adds the gradient with respect to the normed input to `dinput`, if given.
    pub fn backward(
        &self,
        dattended: Array2<T>,
        saved: MixerActivations<T>,
        input: Option<ArrayView2<T>>,
        pass: &mut Pass<'_, T>,
        sink: &mut dyn TermSink<T>,
        dinput: Option<&mut Option<Array2<T>>>,
    ) {
        match (self, saved) {
            (Self::Attention(attention), MixerActivations::Attention(saved)) => {
                attention.backward(dattended, *saved, input, pass, sink, dinput);
            }
            (Self::DeltaNet(net), MixerActivations::DeltaNet(saved)) => {
                net.backward(dattended, *saved, input, pass, sink, dinput);
            }
            (Self::Convolution(convolution), MixerActivations::Convolution(saved)) => {
                convolution.backward(dattended, *saved, input, pass, sink, dinput);
            }
            (Self::Mamba2(mamba), MixerActivations::Mamba2(saved)) => {
                mamba.backward(dattended, *saved, input, pass, sink, dinput);
            }
            _ => unreachable!("the activations are those of this block"),
        }
    }
}
