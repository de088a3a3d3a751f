//! One transformer block: a sublayer that mixes tokens and a feed-forward one, or one of them alone.

use ndarray::{Array2, ArrayView2, Axis};

use super::attention::AttentionConfig;
use super::linear::Linear;
use super::mixer::{Mixer, MixerCache};
use super::pass::Pass;
use super::per_layer_input::{PerLayerActivations, PerLayerInput};
use super::residual::scale;
use super::sublayer::{
    FeedForwardSublayer, FeedForwardSublayerActivations, MixingActivations, MixingSublayer, gather_rows,
    scatter_rows, selected,
};
use super::terms::{Term, TermSink};
use crate::kernels::{Precision, Real, SavedActivation};

/// The frozen weights of a block, and the terms of its matrices.
#[derive(Clone, Debug)]
pub struct Block<'a, T: Real> {
    pub(super) mixing: Option<MixingSublayer<'a, T>>,
    /// Whether the feed-forward part reads the block's input, as attention does, and not what attention made of it.
    pub(super) parallel: bool,
    pub(super) feed_forward: Option<FeedForwardSublayer<'a, T>>,
    /// What it adds of the inputs of tokens for every block, if the model has them.
    pub(super) per_layer_input: Option<PerLayerInput<'a, T>>,
    /// The factor of the residual stream after the block.
    pub(super) out_scale: T,
}

/// What remains of a block's forward pass until its backward pass.
#[derive(Debug)]
pub(super) enum Checkpoint<T: Real> {
    /// The input alone; the backward pass recomputes the activations from it.
    Input(Array2<T>),
    /// All activations that the backward pass needs.
    Activations(Box<BlockActivations<T>>),
}

/// The activations of a block that its backward pass needs. The inputs of matrices are not among them.
#[derive(Debug)]
pub(super) struct BlockActivations<T: Real> {
    mixing: Option<MixingActivations<T>>,
    feed_forward: Option<FeedForwardSublayerActivations<T>>,
    per_layer_input: Option<PerLayerActivations<T>>,
    /// The rows that the block returned, when not all.
    output_rows: Option<Vec<usize>>,
}

#[cfg(test)]
impl<T: Real> BlockActivations<T> {
    /// The bytes of activations that it holds.
    pub(super) fn bytes(&self) -> u64 {
        self.mixing.as_ref().map_or(0, MixingActivations::bytes)
            + self.feed_forward.as_ref().map_or(0, FeedForwardSublayerActivations::bytes)
            + self.per_layer_input.as_ref().map_or(0, PerLayerActivations::bytes)
    }
}

impl<'a, T: Real> Block<'a, T> {
    /// The matrix of this role, such as `q` or `down`.
    pub(super) fn linear_mut(&mut self, role: &str) -> Option<&mut Linear<'a, T>> {
        let mixing = self.mixing.as_mut().and_then(|mixing| mixing.linear_mut(role));
        mixing.or_else(|| self.feed_forward.as_mut()?.network.linear_mut(role))
    }

    /// What mixes its tokens, if anything does.
    pub(super) fn mixer(&self) -> Option<&Mixer<'a, T>> {
        self.mixing.as_ref().map(|mixing| &mixing.mixer)
    }

    /// The matrices that may have a term, in the order in which a pass reads them.
    pub(super) fn adaptable_mut(&mut self) -> Vec<&mut Linear<'a, T>> {
        let mixing = self.mixing.iter_mut().flat_map(MixingSublayer::linears_mut);
        mixing.chain(self.feed_forward.iter_mut().flat_map(|own| own.network.adaptable_mut())).collect()
    }

    fn adaptable(&self) -> Vec<&Linear<'a, T>> {
        let mixing = self.mixing.iter().flat_map(MixingSublayer::linears);
        mixing.chain(self.feed_forward.iter().flat_map(|own| own.network.adaptable())).collect()
    }

    /// The matrices that may have a term, by the input that they read.
    pub(super) fn by_input(&self) -> [Vec<&Linear<'a, T>>; 4] {
        let mut up = self.feed_forward.as_ref().map_or(Vec::new(), |own| own.network.adaptable());
        let down = up.pop();
        let mixing = self.mixing.as_ref();
        let inputs = mixing.map_or(Vec::new(), |mixing| mixing.mixer.inputs());
        [inputs, mixing.map(|mixing| &mixing.o).into_iter().collect(), up, down.into_iter().collect()]
    }

    /// How many numbers of matrices a token is multiplied with.
    pub(super) fn parameters_per_token(&self) -> u64 {
        let mixing = self.mixing.iter().flat_map(MixingSublayer::linears);
        let per_layer = self.per_layer_input.iter().flat_map(PerLayerInput::linears);
        mixing.chain(per_layer).map(|linear| linear.weight().parameters()).sum::<u64>()
            + self.feed_forward.as_ref().map_or(0, |own| own.network.parameters_per_token())
    }

    /// The terms of its matrices.
    pub(super) fn terms(&self) -> impl Iterator<Item = &dyn Term<T>> {
        self.adaptable().into_iter().filter_map(|linear| linear.term.as_deref())
    }

    /// Calls `change` with every matrix.
    pub(super) fn each_linear_mut(&mut self, change: &mut dyn FnMut(&mut Linear<'a, T>)) {
        let mixing = self.mixing.iter_mut().flat_map(MixingSublayer::linears_mut);
        let per_layer = self.per_layer_input.iter_mut().flat_map(PerLayerInput::linears_mut);
        mixing.chain(per_layer).for_each(&mut *change);
        self.feed_forward.iter_mut().for_each(|own| own.network.each_linear_mut(change));
    }

    /// An empty cache for this many sequences; that of attention has `rows` rows of keys and values.
    pub(super) fn cache(&self, sequences: usize, rows: usize) -> MixerCache<T> {
        self.mixer().map_or(MixerCache::Nothing, |mixer| mixer.cache(sequences, rows))
    }

    /// The bytes of the cache of one sequence of this many tokens.
    pub(super) fn cache_bytes(&self, tokens: usize) -> u64 {
        self.mixer().map_or(0, |mixer| mixer.cache_bytes(tokens))
    }

    /// The block whose keys and values it reads, if they are not its own.
    pub(super) fn reads_keys_of(&self) -> Option<usize> {
        self.mixer().and_then(Mixer::reads_keys_of)
    }

    /// The entries of a token's keys, if they are its own.
    pub(super) fn own_key_width(&self) -> usize {
        self.mixer().map_or(0, Mixer::own_key_width)
    }

    /// [`Self::forward`] of tokens that follow those in the cache, which gets them, too; see [`Mixer::extend`].
    pub(super) fn extend(
        &self,
        x: Array2<T>,
        cache: &mut MixerCache<T>,
        slots: &[usize],
        pass: &Pass<'_, T>,
    ) -> Array2<T> {
        let attended = self.mixing.as_ref().map(|mixing| mixing.extend(x.view(), cache, slots, pass));
        self.finish(x, attended.as_ref().map(|attended| attended.view()), (pass, None))
    }

    /// The block's output `[tokens, d_model]` from its input x `[tokens, d_model]` and the output of
    /// attention, the heads' `[tokens, n]`, of which `o` reads n; of these rows of the pass, or of all.
    fn finish(
        &self,
        mut x: Array2<T>,
        attended: Option<ArrayView2<T>>,
        (pass, rows): (&Pass<'_, T>, Option<&[usize]>),
    ) -> Array2<T> {
        let before = self.parallel.then(|| x.clone());
        if let Some((mixing, attended)) = self.mixing.as_ref().zip(attended) {
            mixing.add_to(&mut x, attended, None);
        }
        if let Some(feed_forward) = &self.feed_forward {
            feed_forward.add_to(&mut x, before.as_ref(), None);
        }
        self.end(&mut x, (pass, rows), None);
        x
    }

    /// What a block does after its sublayers.
    fn end(
        &self,
        x: &mut Array2<T>,
        (pass, rows): (&Pass<'_, T>, Option<&[usize]>),
        save: Option<Precision>,
    ) -> Option<PerLayerActivations<T>> {
        let own = self.per_layer_input.as_ref().zip(pass.factors.per_layer_inputs.as_ref());
        let saved = own.and_then(|(own, inputs)| match selected(inputs.nrows(), rows) {
            Some(rows) => own.add_to(x, inputs.select(Axis(0), rows).view(), save),
            None => own.add_to(x, inputs.view(), save),
        });
        scale(x, self.out_scale);
        saved
    }

    /// `[tokens, d_model]` to the same, or to `output_rows` of it alone; saves nothing.
    pub(super) fn forward(
        &self,
        x: Array2<T>,
        pass: &mut Pass<'_, T>,
        output_rows: Option<&[usize]>,
    ) -> Array2<T> {
        let attended =
            self.mixing.as_ref().map(|mixing| gather_rows(mixing.mix(x.view(), pass, None).0, output_rows));
        let attended = attended.as_ref().map(|attended| attended.view());
        self.finish(gather_rows(x, output_rows), attended, (pass, output_rows))
    }

    /// [`Self::forward`], saving the activations that [`Self::backward`] needs.
    pub(super) fn forward_saving(
        &self,
        x: Array2<T>,
        pass: &mut Pass<'_, T>,
        output_rows: Option<&[usize]>,
    ) -> (Array2<T>, BlockActivations<T>) {
        let save = Some(pass.config.precision);
        let mixed = self.mixing.as_ref().map(|mixing| (mixing, mixing.mix(x.view(), pass, save)));
        let mut x = gather_rows(x, output_rows);
        let before = self.parallel.then(|| x.clone());
        let mixing = mixed.and_then(|(mixing, (attended, of_all))| {
            let attended = gather_rows(attended, output_rows);
            let of_output = mixing.add_to(&mut x, attended.view(), save);
            T::recycle(attended);
            of_all.zip(of_output).map(|(of_all, of_output)| MixingActivations::new(of_all, of_output))
        });
        let feed_forward =
            self.feed_forward.as_ref().and_then(|own| own.add_to(&mut x, before.as_ref(), save));
        let per_layer_input = self.end(&mut x, (pass, output_rows), save);
        let output_rows = output_rows.map(<[usize]>::to_vec);
        (x, BlockActivations { mixing, feed_forward, per_layer_input, output_rows })
    }

    /// The bytes of activations that [`Self::forward_saving`] saves for each token of width `d_model`.
    pub(super) fn activation_bytes(&self, config: AttentionConfig, d_model: usize) -> u64 {
        let z: usize = self.terms().map(Term::saved_values).sum();
        let (mixing, mixing_full) =
            self.mixing.as_ref().map_or((0, 0), |mixing| mixing.activation_values(config));
        let (inner, inner_full) =
            self.feed_forward.as_ref().map_or((0, 0), |own| own.activation_values(d_model));
        let per_layer = self.per_layer_input.as_ref().map_or(0, PerLayerInput::activation_values);
        let full = mixing_full + z + inner_full;
        (mixing + inner + per_layer) as u64 * SavedActivation::<T>::bytes_per_value(config.precision)
            + (full * size_of::<T>()) as u64
    }

    /// The activations of a checkpoint: as saved, or recomputed from the input.
    pub(super) fn restore(
        &self,
        checkpoint: Checkpoint<T>,
        pass: &mut Pass<'_, T>,
        output_rows: Option<&[usize]>,
    ) -> BlockActivations<T> {
        match checkpoint {
            Checkpoint::Activations(saved) => *saved,
            Checkpoint::Input(x) => self.forward_saving(x, pass, output_rows).1,
        }
    }

    /// From dy = dL/dy of the output rows: gives the gradients of this block's terms to `sink`, and
    /// returns dL/dx `[tokens, d_model]` when `want_dx`.
    pub(super) fn backward(
        &self,
        mut dy: Array2<T>,
        saved: BlockActivations<T>,
        pass: &mut Pass<'_, T>,
        sink: &mut dyn TermSink<T>,
        want_dx: bool,
    ) -> Option<Array2<T>> {
        let BlockActivations { mixing, feed_forward, per_layer_input, output_rows } = saved;
        let rows = output_rows.as_deref();
        scale(&mut dy, self.out_scale);
        if let (Some(own), Some(saved)) = (&self.per_layer_input, per_layer_input) {
            dy = own.backward(dy, saved);
        }
        let mixing = self.mixing.as_ref().zip(mixing);
        // The gradient of what attention added: in a parallel block it does not pass the feed-forward network.
        let dadded = mixing.as_ref().filter(|_| self.parallel);
        let dadded = dadded.map(|(own, saved)| own.added_gradient(dy.view(), saved));
        if let Some((own, saved)) = self.feed_forward.as_ref().zip(feed_forward) {
            dy = own.backward(dy, saved, sink);
        }
        match mixing {
            Some((own, saved)) => own.backward(dy, dadded, saved, (pass, rows), sink, want_dx),
            None => want_dx.then(|| scatter_rows(dy, rows, pass.tokens())),
        }
    }
}
