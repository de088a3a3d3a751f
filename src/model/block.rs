//! One transformer block: attention, or what stands in its place, and a feed-forward network, each with its norms,
//! added to the residual stream.

use ndarray::{Array2, ArrayView2, Axis};

use super::attention::AttentionConfig;
use super::feed_forward::{FeedForward, FeedForwardActivations};
use super::linear::Linear;
use super::mixer::{Mixer, MixerActivations, MixerCache};
use super::norm::{self, Norm};
use super::pass::Pass;
use super::per_layer_input::{PerLayerActivations, PerLayerInput};
use super::residual::{Residual, add, scale};
use super::terms::{Term, TermSink};
use crate::kernels::{Precision, Real, SavedActivation};

const WANTED: &str = "a gradient that was asked for";

/// The frozen weights of a block, and the terms of its matrices.
#[derive(Clone, Debug)]
pub struct Block<'a, T: Real> {
    pub(super) attn_norm: Option<Norm<T>>,
    pub(super) mixer: Mixer<'a, T>,
    /// The output projection of attention.
    pub(super) o: Linear<'a, T>,
    pub(super) attn_residual: Residual<T>,
    /// Whether the feed-forward part reads the block's input, as attention does, and not what attention made of it.
    pub(super) parallel: bool,
    pub(super) ffn_norm: Option<Norm<T>>,
    pub(super) feed_forward: FeedForward<'a, T>,
    pub(super) ffn_residual: Residual<T>,
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
    /// The block's input, `[tokens, d_model]`.
    x: SavedActivation<T>,
    mixer: MixerActivations<T>,
    after_attention: AfterAttention<T>,
    /// The rows that the block returned, when not all.
    output_rows: Option<Vec<usize>>,
}

/// The activations after attention, of the output rows alone.
#[derive(Debug)]
struct AfterAttention<T: Real> {
    /// The output of attention, if the term of `o` reads it.
    attended: Option<SavedActivation<T>>,
    /// The output of `o`, if a norm follows.
    attn_out: Option<SavedActivation<T>>,
    /// What the feed-forward network reads, before its norm: the residual stream after attention, or the block's
    /// input.
    mid: SavedActivation<T>,
    feed_forward: FeedForwardActivations<T>,
    /// The output of the feed-forward network, if a norm follows.
    ffn_out: Option<SavedActivation<T>>,
    per_layer_input: Option<PerLayerActivations<T>>,
    zo: Option<Array2<T>>,
    zdown: Option<Array2<T>>,
}

#[cfg(test)]
impl<T: Real> BlockActivations<T> {
    /// The bytes of activations that it holds.
    pub(super) fn bytes(&self) -> u64 {
        let after = &self.after_attention;
        let saved = [&self.x, &after.mid].into_iter();
        let saved = saved.chain(&after.attended).chain(&after.attn_out).chain(&after.ffn_out);
        let z = after.zo.iter().chain(&after.zdown);
        saved.map(SavedActivation::bytes).sum::<u64>()
            + self.mixer.bytes()
            + after.feed_forward.bytes()
            + after.per_layer_input.as_ref().map_or(0, PerLayerActivations::bytes)
            + (z.map(Array2::len).sum::<usize>() * size_of::<T>()) as u64
    }
}

impl<'a, T: Real> Block<'a, T> {
    /// The matrix of this role, such as `q` or `down`.
    pub(super) fn linear_mut(&mut self, role: &str) -> Option<&mut Linear<'a, T>> {
        match role {
            "o" => Some(&mut self.o),
            _ => self.mixer.linear_mut(role).or_else(|| self.feed_forward.linear_mut(role)),
        }
    }

    /// The matrices that may have a term, in the order in which a pass reads them.
    pub(super) fn adaptable_mut(&mut self) -> Vec<&mut Linear<'a, T>> {
        let mut linears = self.mixer.inputs_mut();
        linears.push(&mut self.o);
        linears.extend(self.feed_forward.adaptable_mut());
        linears
    }

    fn adaptable(&self) -> Vec<&Linear<'a, T>> {
        let mut linears = self.mixer.inputs();
        linears.push(&self.o);
        linears.extend(self.feed_forward.adaptable());
        linears
    }

    /// The matrices that may have a term, by the input that they read.
    pub(super) fn by_input(&self) -> [Vec<&Linear<'a, T>>; 4] {
        let mut up = self.feed_forward.adaptable();
        let down = up.pop();
        [self.mixer.inputs(), vec![&self.o], up, down.into_iter().collect()]
    }

    /// How many numbers of matrices a token is multiplied with.
    pub(super) fn parameters_per_token(&self) -> u64 {
        let attention = self.mixer.inputs().into_iter().chain([&self.o]);
        let per_layer = self.per_layer_input.iter().flat_map(PerLayerInput::linears);
        attention.chain(per_layer).map(|linear| linear.weight().parameters()).sum::<u64>()
            + self.feed_forward.parameters_per_token()
    }

    /// The terms of its matrices.
    pub(super) fn terms(&self) -> impl Iterator<Item = &dyn Term<T>> {
        self.adaptable().into_iter().filter_map(|linear| linear.term.as_deref())
    }

    /// Computes all products in this precision.
    pub(super) fn set_precision(&mut self, precision: Precision) {
        let attention = self.mixer.inputs_mut().into_iter().chain([&mut self.o]);
        let per_layer = self.per_layer_input.iter_mut().flat_map(PerLayerInput::linears_mut);
        attention.chain(per_layer).for_each(|linear| linear.set_precision(precision));
        self.feed_forward.set_precision(precision);
    }

    /// x `[tokens, d_model]`, normed and packed.
    fn input(&self, x: ArrayView2<T>) -> T::PackedLhs<'static> {
        norm::pack(self.attn_norm.as_ref(), x, self.mixer.precision())
    }

    /// [`Self::forward`] of tokens that follow those in the cache, which gets them, too; see [`Mixer::extend`].
    pub(super) fn extend(
        &self,
        x: Array2<T>,
        cache: &mut MixerCache<T>,
        slots: &[usize],
        pass: &Pass<'_, T>,
    ) -> Array2<T> {
        let attended = self.mixer.extend(&self.input(x.view()), cache, slots, pass);
        self.finish(x, attended.view(), (pass, None))
    }

    /// The block's output `[tokens, d_model]` from its input x `[tokens, d_model]` and the output of
    /// attention, the heads' `[tokens, n]`, of which `o` reads n; of these rows of the pass, or of all.
    fn finish(
        &self,
        x: Array2<T>,
        attended: ArrayView2<T>,
        (pass, rows): (&Pass<'_, T>, Option<&[usize]>),
    ) -> Array2<T> {
        self.finish_saving(x, attended, (pass, rows), None).0
    }

    /// [`Self::finish`]; with a precision, also the activations, saved for products of that precision.
    fn finish_saving(
        &self,
        mut x: Array2<T>,
        attended: ArrayView2<T>,
        (pass, rows): (&Pass<'_, T>, Option<&[usize]>),
        save: Option<Precision>,
    ) -> (Array2<T>, Option<AfterAttention<T>>) {
        let before = self.parallel.then(|| x.clone());
        let (zo, attn_out) = self.attn_residual.add_product(&mut x, &self.o, &self.o.input(attended));
        let mid =
            save.map(|precision| SavedActivation::save_copy(before.as_ref().unwrap_or(&x).view(), precision));
        let saves_attended = save.filter(|_| self.o.reads_input());
        let attended = saves_attended.map(|precision| SavedActivation::save_copy(attended, precision));
        let (feed_forward, zdown, ffn_out) = self.feed_forward.add_to(
            &mut x,
            before.as_ref(),
            self.ffn_norm.as_ref(),
            &self.ffn_residual,
            save,
        );
        let per_layer_input = self.per_layer_input.as_ref().zip(pass.factors.per_layer_inputs.as_ref());
        let per_layer_input =
            per_layer_input.and_then(|(own, inputs)| match selected(inputs.nrows(), rows) {
                Some(rows) => own.add_to(&mut x, inputs.select(Axis(0), rows).view(), save),
                None => own.add_to(&mut x, inputs.view(), save),
            });
        scale(&mut x, self.out_scale);
        let saved = save.zip(mid).zip(feed_forward).map(|((precision, mid), feed_forward)| {
            let [attn_out, ffn_out] =
                [attn_out, ffn_out].map(|out| out.map(|out| SavedActivation::save(out, precision)));
            AfterAttention { attended, attn_out, mid, feed_forward, ffn_out, per_layer_input, zo, zdown }
        });
        (x, saved)
    }

    /// `[tokens, d_model]` to the same, or to `output_rows` of it alone; saves nothing.
    pub(super) fn forward(
        &self,
        x: Array2<T>,
        pass: &mut Pass<'_, T>,
        output_rows: Option<&[usize]>,
    ) -> Array2<T> {
        let (attended, _) = self.mixer.forward(&self.input(x.view()), pass, None);
        let attended = gather_rows(attended, output_rows);
        self.finish(gather_rows(x, output_rows), attended.view(), (pass, output_rows))
    }

    /// [`Self::forward`], saving the activations that [`Self::backward`] needs.
    pub(super) fn forward_saving(
        &self,
        x: Array2<T>,
        pass: &mut Pass<'_, T>,
        output_rows: Option<&[usize]>,
    ) -> (Array2<T>, BlockActivations<T>) {
        let precision = pass.config.precision;
        let (attended, mixer) = self.mixer.forward(&self.input(x.view()), pass, Some(precision));
        let saved_x = SavedActivation::save_copy(x.view(), precision);
        let attended = gather_rows(attended, output_rows);
        let (y, after_attention) = self.finish_saving(
            gather_rows(x, output_rows),
            attended.view(),
            (pass, output_rows),
            Some(precision),
        );
        T::recycle(attended);
        let (mixer, after_attention) = mixer.zip(after_attention).expect("a precision to save in was given");
        let output_rows = output_rows.map(<[usize]>::to_vec);
        (y, BlockActivations { x: saved_x, mixer, after_attention, output_rows })
    }

    /// The bytes of activations that [`Self::forward_saving`] saves for each token.
    pub(super) fn activation_bytes(&self, config: AttentionConfig) -> u64 {
        let z: usize = self.terms().map(Term::saved_values).sum();
        let d = self.o.weight().rows();
        let outs = [&self.attn_residual, &self.ffn_residual].iter().filter(|r| r.norm.is_some()).count() * d;
        let (mixer, mixer_full) = self.mixer.activation_values(config);
        let (inner, inner_full) = self.feed_forward.activation_values();
        let attended = if self.o.reads_input() { self.o.weight().cols() } else { 0 };
        let per_layer = self.per_layer_input.as_ref().map_or(0, PerLayerInput::activation_values);
        let saved = 2 * d + mixer + attended + outs + inner + per_layer;
        let full = mixer_full + z + inner_full;
        saved as u64 * SavedActivation::<T>::bytes_per_value(config.precision)
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
        let BlockActivations { x, mixer, after_attention, output_rows } = saved;
        let AfterAttention { attended, attn_out, mid, feed_forward, ffn_out, per_layer_input, zo, zdown } =
            after_attention;
        scale(&mut dy, self.out_scale);
        if let (Some(own), Some(saved)) = (&self.per_layer_input, per_layer_input) {
            dy = own.backward(dy, saved);
        }
        let d_model = self.o.weight().rows();
        let dffn = self.ffn_residual.backward(dy.view(), ffn_out.as_ref());
        let reads = self.feed_forward.reads_input();
        let normed = reads.then(|| norm::input(self.ffn_norm.as_ref(), &mid, d_model));
        let normed_view = normed.as_ref().map(|normed| normed.view());
        let (dnormed, dmid_beside) =
            self.feed_forward.backward(dffn, feed_forward, zdown.as_ref(), (&mid, normed_view), sink);
        normed.into_iter().for_each(T::recycle);
        let mut dmid = dy;
        // The gradient of what attention added: in a parallel block it does not pass the feed-forward network.
        let beside = self
            .parallel
            .then(|| self.attn_residual.backward(dmid.view(), attn_out.as_ref()).into_owned().into());
        norm_backward(self.ffn_norm.as_ref(), &mid, dnormed, &mut dmid);
        if let Some(beside) = dmid_beside {
            add(&mut dmid, beside.view());
            T::recycle(beside);
        }
        let dout = beside.unwrap_or_else(|| self.attn_residual.backward(dmid.view(), attn_out.as_ref()));
        let attended = attended.map(|attended| attended.to_array(self.o.weight().cols()));
        let attended = attended.as_ref().map(|attended| attended.view());
        let attention_trains = self.mixer.inputs().iter().any(|linear| linear.term.is_some());
        if !want_dx && !attention_trains {
            self.o.backward(dout, zo.as_ref(), attended, sink, None);
            return None;
        }
        let mut dattended = None;
        self.o.backward(dout, zo.as_ref(), attended, sink, Some(&mut dattended));
        let tokens = pass.tokens();
        let dattended = scatter_rows(dattended.expect(WANTED), output_rows.as_deref(), tokens);
        let reads = self.mixer.inputs().iter().any(|linear| linear.reads_input());
        let normed = reads.then(|| norm::input(self.attn_norm.as_ref(), &x, d_model));
        let input = normed.as_ref().map(|normed| normed.view());
        let mut dnormed = None;
        self.mixer.backward(dattended, mixer, input, pass, sink, want_dx.then_some(&mut dnormed));
        dnormed.map(|dnormed| {
            let mut dx = scatter_rows(dmid, output_rows.as_deref(), tokens);
            norm_backward(self.attn_norm.as_ref(), &x, dnormed, &mut dx);
            dx
        })
    }
}

/// Adds to `dx` the gradient through a norm of x, from dL/dnormed; without a norm, dL/dnormed itself.
fn norm_backward<T: Real>(
    norm: Option<&Norm<T>>,
    x: &SavedActivation<T>,
    dnormed: Array2<T>,
    dx: &mut Array2<T>,
) {
    match norm {
        Some(norm) => norm.backward(x, dnormed.view(), dx),
        None => add(dx, dnormed.view()),
    }
    T::recycle(dnormed);
}

/// These rows, if they are not all.
fn selected(all: usize, rows: Option<&[usize]>) -> Option<&[usize]> {
    rows.filter(|rows| rows.len() < all)
}

/// These rows, or all.
fn gather_rows<T: Real>(x: Array2<T>, rows: Option<&[usize]>) -> Array2<T> {
    match selected(x.nrows(), rows) {
        Some(rows) => x.select(Axis(0), rows),
        None => x,
    }
}

/// The transpose of [`gather_rows`]: `[tokens, n]` with zeros in the other rows.
fn scatter_rows<T: Real>(x: Array2<T>, rows: Option<&[usize]>, tokens: usize) -> Array2<T> {
    let Some(rows) = selected(tokens, rows) else { return x };
    let mut all = Array2::zeros((tokens, x.ncols()));
    rows.iter().zip(x.rows()).for_each(|(&row, x)| all.row_mut(row).assign(&x));
    all
}
