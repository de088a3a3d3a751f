//! Attention of one new token a sequence over its KV cache. Each key is read once, so nothing is packed for
//! products, and rows need no mask.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, s};
use rayon::prelude::*;

use super::{AttentionConfig, CONTIGUOUS};
use crate::kernels::{Real, decode_attention};

/// out = softmax(scale q k^T) v for each head. From q `[sequences, query_heads * head_dim]`, k and v
/// `[keys, kv_heads * head_dim]` and the rows of each sequence in k and v, of which the query's own is the
/// last: out `[sequences, query_heads * head_dim]`. `sinks` as in [`forward`](super::forward).
pub fn decode<T: Real>(
    q: ArrayView2<T>,
    k: ArrayView2<T>,
    v: ArrayView2<T>,
    sequences: &[Range<usize>],
    sinks: Option<&[T]>,
    config: AttentionConfig,
) -> Array2<T> {
    let mut out = Array2::zeros(q.dim());
    let stride = k.ncols();
    let [k, v] = [&k, &v].map(|x| x.as_slice().expect(CONTIGUOUS));
    let heads = (0..sequences.len()).flat_map(|i| (0..config.query_heads).map(move |head| (i, head)));
    let tasks: Vec<_> = heads.zip(out.exact_chunks_mut((1, config.head_dim))).collect();
    tasks.into_par_iter().for_each(|((sequence, head), mut out)| {
        let rows = &sequences[sequence];
        let rows = rows.start + config.visible_keys(rows.len() - 1).start..rows.end;
        let columns = config.columns(head / config.group_size());
        let cached = rows.start * stride + columns.start..(rows.end - 1) * stride + columns.end;
        let q = q.slice(s![sequence, config.columns(head)]);
        let mut p = vec![T::zero(); rows.len()];
        decode_attention::scores(q.as_slice().expect(CONTIGUOUS), &k[cached.clone()], stride, &mut p);
        config.softmax(&mut p, sinks.map(|sinks| sinks[head]));
        let out = out.as_slice_mut().expect(CONTIGUOUS);
        decode_attention::weighted_sum(&p, &v[cached], stride, out);
    });
    out
}
