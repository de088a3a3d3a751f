//! One transformer block: attention and a feed-forward network, each with its norms, added to the residual
//! stream.

use ndarray::{Array2, ArrayView2, Axis};

use super::attention::{self, AttentionConfig, SequenceRows};
use super::feed_forward::{FeedForward, FeedForwardActivations};
use super::linear::Linear;
use super::norm::{self, Norm};
use super::position_factors::PositionFactors;
use super::residual::{Residual, add};
use super::rope::RotaryEmbedding;
use super::terms::{Term, TermSink};
use crate::kernels::{Precision, Real, SavedActivation};

const WANTED: &str = "a gradient that was asked for";

/// The frozen weights of a block, and the terms of its matrices.
#[derive(Clone, Debug)]
pub struct Block<'a, T: Real> {
    pub(super) attn_norm: Option<Norm<T>>,
    pub(super) q: Linear<'a, T>,
    pub(super) k: Linear<'a, T>,
    pub(super) v: Linear<'a, T>,
    /// QK-norm: of each head of q and of k, before RoPE.
    pub(super) qk_norms: Option<[Norm<T>; 2]>,
    pub(super) o: Linear<'a, T>,
    pub(super) attn_residual: Residual<T>,
    /// Whether the feed-forward part reads the block's input, as attention does, and not what attention made of it.
    pub(super) parallel: bool,
    pub(super) ffn_norm: Option<Norm<T>>,
    pub(super) feed_forward: FeedForward<'a, T>,
    pub(super) ffn_residual: Residual<T>,
    /// The length of the sliding window.
    pub(super) window: Option<usize>,
    /// Which of the model's rotary embeddings rotates q and k.
    pub(super) rope: Option<usize>,
}

/// What attention reads: `[tokens, heads * head_dim]` each, q and k after QK-norm, RoPE and temperature.
#[derive(Clone, Debug)]
pub(super) struct Projected<T> {
    pub q: Array2<T>,
    pub k: Array2<T>,
    pub v: Array2<T>,
    /// q and k before QK-norm, if there is one.
    before_norm: Option<[Array2<T>; 2]>,
    z: Z<T, 3>,
}

/// What the terms of some matrices saved, such as z of CURLoRA; see [`Term`].
type Z<T, const N: usize> = [Option<Array2<T>>; N];

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
    q: SavedActivation<T>,
    k: SavedActivation<T>,
    v: SavedActivation<T>,
    before_norm: Option<[SavedActivation<T>; 2]>,
    z: Z<T, 3>,
    /// The log-sum-exp of attention's scores, `[query_heads, tokens]`.
    log_sums: Array2<T>,
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
    zo: Option<Array2<T>>,
    zdown: Option<Array2<T>>,
}

#[cfg(test)]
impl<T: Real> BlockActivations<T> {
    /// The bytes of activations that it holds.
    pub(super) fn bytes(&self) -> u64 {
        let after = &self.after_attention;
        let saved = [&self.x, &self.q, &self.k, &self.v, &after.mid].into_iter();
        let saved = saved
            .chain(self.before_norm.iter().flatten())
            .chain(&after.attended)
            .chain(&after.attn_out)
            .chain(&after.ffn_out);
        let z = self.z.iter().flatten().chain(&after.zo).chain(&after.zdown).chain([&self.log_sums]);
        saved.map(SavedActivation::bytes).sum::<u64>()
            + after.feed_forward.bytes()
            + (z.map(Array2::len).sum::<usize>() * size_of::<T>()) as u64
    }
}

/// What attention needs to know of a batch's sequences; shared by all blocks of a pass.
pub(super) struct AttentionMetadata<'a, T> {
    pub sequences: &'a [SequenceRows],
    pub factors: &'a PositionFactors<T>,
    pub ropes: &'a [RotaryEmbedding],
    /// That of all blocks, without windows.
    pub config: AttentionConfig,
}

impl<'a, T: Real> Block<'a, T> {
    /// The matrix of this role: `q`, `k`, `v`, `o`, `gate`, `up` or `down`.
    pub(super) fn linear_mut(&mut self, role: &str) -> Option<&mut Linear<'a, T>> {
        match role {
            "q" => Some(&mut self.q),
            "k" => Some(&mut self.k),
            "v" => Some(&mut self.v),
            "o" => Some(&mut self.o),
            _ => self.feed_forward.linear_mut(role),
        }
    }

    /// The matrices that may have a term, in the order in which a pass reads them.
    pub(super) fn adaptable_mut(&mut self) -> Vec<&mut Linear<'a, T>> {
        let mut linears = vec![&mut self.q, &mut self.k, &mut self.v, &mut self.o];
        linears.extend(self.feed_forward.adaptable_mut());
        linears
    }

    fn adaptable(&self) -> Vec<&Linear<'a, T>> {
        let mut linears = vec![&self.q, &self.k, &self.v, &self.o];
        linears.extend(self.feed_forward.adaptable());
        linears
    }

    /// The matrices that may have a term, by the input that they read.
    pub(super) fn by_input(&self) -> [Vec<&Linear<'a, T>>; 4] {
        let mut up = self.feed_forward.adaptable();
        let down = up.pop();
        [vec![&self.q, &self.k, &self.v], vec![&self.o], up, down.into_iter().collect()]
    }

    /// How many numbers of matrices a token is multiplied with.
    pub(super) fn parameters_per_token(&self) -> u64 {
        let attention = [&self.q, &self.k, &self.v, &self.o];
        attention.map(|linear| linear.weight().parameters()).iter().sum::<u64>()
            + self.feed_forward.parameters_per_token()
    }

    /// The terms of its matrices.
    pub(super) fn terms(&self) -> impl Iterator<Item = &dyn Term<T>> {
        self.adaptable().into_iter().filter_map(|linear| linear.term.as_deref())
    }

    /// Computes all products in this precision.
    pub(super) fn set_precision(&mut self, precision: Precision) {
        let attention = [&mut self.q, &mut self.k, &mut self.v, &mut self.o];
        attention.into_iter().for_each(|linear| linear.set_precision(precision));
        self.feed_forward.set_precision(precision);
    }

    /// x `[tokens, d_model]` to q, k and v.
    pub(super) fn project(
        &self,
        x: ArrayView2<T>,
        ropes: &[RotaryEmbedding],
        factors: &PositionFactors<T>,
    ) -> Projected<T> {
        let input = norm::pack(self.attn_norm.as_ref(), x, self.q.precision());
        let (mut q, zq) = self.q.forward(&input);
        let (mut k, zk) = self.k.forward(&input);
        let (v, zv) = self.v.forward(&input);
        let before_norm = self.qk_norms.as_ref().map(|[q_norm, k_norm]| {
            let [normed_q, normed_k] = [q_norm.forward(q.view()), k_norm.forward(k.view())];
            [std::mem::replace(&mut q, normed_q), std::mem::replace(&mut k, normed_k)]
        });
        if let Some(i) = self.rope {
            ropes[i].forward(&mut q, &factors.cos_sin[i]);
            ropes[i].forward(&mut k, &factors.cos_sin[i]);
        }
        factors.scale_queries(&mut q);
        Projected { q, k, v, before_norm, z: [zq, zk, zv] }
    }

    /// The attention of this block, from that of the model.
    pub(super) fn attention_config(&self, of_model: AttentionConfig) -> AttentionConfig {
        AttentionConfig { window: self.window, ..of_model }
    }

    /// The block's output `[tokens, d_model]` from its input x `[tokens, d_model]` and the output of
    /// attention `[tokens, query_heads * head_dim]`.
    pub(super) fn finish(&self, x: Array2<T>, attended: ArrayView2<T>) -> Array2<T> {
        self.finish_saving(x, attended, None).0
    }

    /// [`Self::finish`]; with a precision, also the activations, saved for products of that precision.
    fn finish_saving(
        &self,
        mut x: Array2<T>,
        attended: ArrayView2<T>,
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
        let saved = save.zip(mid).zip(feed_forward).map(|((precision, mid), feed_forward)| {
            let [attn_out, ffn_out] =
                [attn_out, ffn_out].map(|out| out.map(|out| SavedActivation::save(out, precision)));
            AfterAttention { attended, attn_out, mid, feed_forward, ffn_out, zo, zdown }
        });
        (x, saved)
    }

    /// `[tokens, d_model]` to the same, or to `output_rows` of it alone; saves nothing.
    pub(super) fn forward(
        &self,
        x: Array2<T>,
        metadata: &AttentionMetadata<'_, T>,
        output_rows: Option<&[usize]>,
    ) -> Array2<T> {
        let p = self.project(x.view(), metadata.ropes, metadata.factors);
        let config = self.attention_config(metadata.config);
        let (attended, _) =
            attention::forward(p.q.view(), p.k.view(), p.v.view(), metadata.sequences, config);
        let attended = gather_rows(attended, output_rows);
        self.finish(gather_rows(x, output_rows), attended.view())
    }

    /// [`Self::forward`], saving the activations that [`Self::backward`] needs.
    pub(super) fn forward_saving(
        &self,
        x: Array2<T>,
        metadata: &AttentionMetadata<'_, T>,
        output_rows: Option<&[usize]>,
    ) -> (Array2<T>, BlockActivations<T>) {
        let Projected { q, k, v, before_norm, z } = self.project(x.view(), metadata.ropes, metadata.factors);
        let config = self.attention_config(metadata.config);
        let (attended, log_sums) =
            attention::forward(q.view(), k.view(), v.view(), metadata.sequences, config);
        let precision = config.precision;
        let [q, k, v] = [q, k, v].map(|x| SavedActivation::save(x, precision));
        let before_norm = before_norm.map(|both| both.map(|x| SavedActivation::save(x, precision)));
        let saved_x = SavedActivation::save_copy(x.view(), precision);
        let attended = gather_rows(attended, output_rows);
        let (y, after_attention) =
            self.finish_saving(gather_rows(x, output_rows), attended.view(), Some(precision));
        let after_attention = after_attention.expect("a precision to save in was given");
        T::recycle(attended);
        let output_rows = output_rows.map(<[usize]>::to_vec);
        (y, BlockActivations { x: saved_x, q, k, v, before_norm, z, log_sums, after_attention, output_rows })
    }

    /// The bytes of activations that [`Self::forward_saving`] saves for each token.
    pub(super) fn activation_bytes(&self, config: AttentionConfig) -> u64 {
        let z: usize = self.terms().map(Term::saved_values).sum();
        let d = self.o.weight().rows();
        let (q, kv) = (config.query_heads * config.head_dim, config.kv_heads * config.head_dim);
        let before_norm = if self.qk_norms.is_some() { q + kv } else { 0 };
        let outs = [&self.attn_residual, &self.ffn_residual].iter().filter(|r| r.norm.is_some()).count() * d;
        let (inner, inner_full) = self.feed_forward.activation_values();
        let attended = if self.o.reads_input() { q } else { 0 };
        let saved = 2 * d + q + 2 * kv + before_norm + attended + outs + inner;
        let full = config.query_heads + z + inner_full;
        saved as u64 * SavedActivation::<T>::bytes_per_value(config.precision)
            + (full * size_of::<T>()) as u64
    }

    /// The activations of a checkpoint: as saved, or recomputed from the input.
    pub(super) fn restore(
        &self,
        checkpoint: Checkpoint<T>,
        metadata: &AttentionMetadata<'_, T>,
        output_rows: Option<&[usize]>,
    ) -> BlockActivations<T> {
        match checkpoint {
            Checkpoint::Activations(saved) => *saved,
            Checkpoint::Input(x) => self.forward_saving(x, metadata, output_rows).1,
        }
    }

    /// From dy = dL/dy of the output rows: gives the gradients of this block's terms to `sink`, and
    /// returns dL/dx `[tokens, d_model]` when `want_dx`.
    pub(super) fn backward(
        &self,
        dy: Array2<T>,
        saved: BlockActivations<T>,
        metadata: &AttentionMetadata<'_, T>,
        sink: &mut dyn TermSink<T>,
        want_dx: bool,
    ) -> Option<Array2<T>> {
        let BlockActivations {
            x,
            q,
            k,
            v,
            before_norm,
            z: [zq, zk, zv],
            log_sums,
            after_attention,
            output_rows,
        } = saved;
        let AfterAttention { attended, attn_out, mid, feed_forward, ffn_out, zo, zdown } = after_attention;
        let d_model = self.o.weight().rows();
        let dffn = self.ffn_residual.backward(dy.view(), ffn_out.as_ref());
        let reads = self.feed_forward.reads_input();
        let normed = reads.then(|| norm::input(self.ffn_norm.as_ref(), &mid, d_model));
        let normed_view = normed.as_ref().map(|normed| normed.view());
        let dnormed = self.feed_forward.backward(dffn, feed_forward, zdown.as_ref(), normed_view, sink);
        normed.into_iter().for_each(T::recycle);
        let mut dmid = dy;
        // The gradient of what attention added: in a parallel block it does not pass the feed-forward network.
        let beside = self
            .parallel
            .then(|| self.attn_residual.backward(dmid.view(), attn_out.as_ref()).into_owned().into());
        norm_backward(self.ffn_norm.as_ref(), &mid, dnormed, &mut dmid);
        let dout = beside.unwrap_or_else(|| self.attn_residual.backward(dmid.view(), attn_out.as_ref()));
        let attended = attended.map(|attended| attended.to_array(self.o.weight().cols()));
        let attended = attended.as_ref().map(|attended| attended.view());
        let attention_trains = [&self.q, &self.k, &self.v].iter().any(|l| l.term.is_some());
        if !want_dx && !attention_trains {
            self.o.backward(dout, zo.as_ref(), attended, sink, None);
            return None;
        }
        let mut dattended = None;
        self.o.backward(dout, zo.as_ref(), attended, sink, Some(&mut dattended));
        let tokens = log_sums.ncols();
        let dattended = scatter_rows(dattended.expect(WANTED), output_rows.as_deref(), tokens);
        let forward = attention::ForwardActivations { q: &q, k: &k, v: &v, log_sums: log_sums.view() };
        let config = self.attention_config(metadata.config);
        let (mut dq, mut dk, dv) =
            attention::backward(&forward, dattended.view(), metadata.sequences, config);
        T::recycle(dattended);
        metadata.factors.scale_queries(&mut dq);
        if let Some(i) = self.rope {
            metadata.ropes[i].backward(&mut dq, &metadata.factors.cos_sin[i]);
            metadata.ropes[i].backward(&mut dk, &metadata.factors.cos_sin[i]);
        }
        if let (Some([q_norm, k_norm]), Some([q, k])) = (&self.qk_norms, &before_norm) {
            for (norm, x, d) in [(q_norm, q, &mut dq), (k_norm, k, &mut dk)] {
                let mut dx = Array2::zeros(d.dim());
                norm.backward(x, d.view(), &mut dx);
                T::recycle(std::mem::replace(d, dx));
            }
        }
        let reads = [&self.q, &self.k, &self.v].iter().any(|linear| linear.reads_input());
        let normed = reads.then(|| norm::input(self.attn_norm.as_ref(), &x, d_model));
        let input = normed.as_ref().map(|normed| normed.view());
        let mut dnormed = None;
        self.q.backward(dq.into(), zq.as_ref(), input, sink, want_dx.then_some(&mut dnormed));
        self.k.backward(dk.into(), zk.as_ref(), input, sink, want_dx.then_some(&mut dnormed));
        self.v.backward(dv.into(), zv.as_ref(), input, sink, want_dx.then_some(&mut dnormed));
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

/// These rows, or all.
fn gather_rows<T: Real>(x: Array2<T>, rows: Option<&[usize]>) -> Array2<T> {
    match rows {
        Some(rows) if rows.len() < x.nrows() => x.select(Axis(0), rows),
        _ => x,
    }
}

/// The transpose of [`gather_rows`]: `[tokens, n]` with zeros in the other rows.
fn scatter_rows<T: Real>(x: Array2<T>, rows: Option<&[usize]>, tokens: usize) -> Array2<T> {
    let Some(rows) = rows.filter(|rows| rows.len() < tokens) else { return x };
    let mut all = Array2::zeros((tokens, x.ncols()));
    rows.iter().zip(x.rows()).for_each(|(&row, x)| all.row_mut(row).assign(&x));
    all
}
