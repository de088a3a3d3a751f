//! Forward and backward pass of a training step on 4 x 256 random tokens, compared with its matrix products
//! alone:
//!
//!     cargo bench --bench step -- MODEL.gguf [f32|bf16]...
//!
//! The loss covers every token. q, k and v have terms of rank 16, as much work as a LoRA on them in PEFT.
//! Prints the fastest step, which other work on the machine disturbs least, and the median step.

#![allow(clippy::print_stdout, reason = "this program talks to a terminal")]

use std::time::Instant;

use curmerge::base::Base;
use curmerge::cur::{self, Selection};
use curmerge::kernels::{Matrix, PackedLhs, PackedRhs, Precision, multiply};
use curmerge::model::{Batch, Transformer};
use ndarray::Array2;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

const SEQUENCES: usize = 4;
const LENGTH: usize = 256;
const STEPS: usize = 11;
/// The limit on activations and cached weights, as with `curmerge build --memory 1G`.
const MEMORY: u64 = 1 << 30;

fn main() -> curmerge::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let Some((path, precisions)) = arguments.split_first() else {
        println!("give a model: cargo bench --bench step -- MODEL.gguf [f32|bf16]...");
        return Ok(());
    };
    let pool = rayon::ThreadPoolBuilder::new().use_current_thread();
    pool.build_global().expect("the first pool of this process");
    let base = Base::open(std::path::Path::new(path))?;
    let targets = cur::new_targets(&base, &base.targets("q,k,v", None)?, 16, Selection::Reference, 0)?;
    let mut stream = ChaCha20Rng::seed_from_u64(0);
    let mut batch = Batch::default();
    for _ in 0..SEQUENCES {
        // The last token is only predicted, not read.
        let tokens: Vec<u32> = (0..=LENGTH).map(|_| stream.next_u32() % base.config().vocab as u32).collect();
        batch.push(&tokens, &[true; LENGTH + 1]);
    }
    let wanted = |p: &Precision| precisions.is_empty() || precisions.iter().any(|given| given == p.name());
    let chosen = Precision::ALL.iter().filter(|p| wanted(p));
    let tokens = SEQUENCES * LENGTH;
    for &precision in chosen {
        let mut model = Transformer::<f32>::new(&base)?.with_precision(precision);
        model.attach(&targets, 1.0)?;
        model.limit_activations(MEMORY);
        model.cache_packed_weights(MEMORY.saturating_sub(model.activation_bytes_per_token() * tokens as u64));
        let step = || {
            model.gradients(&batch, 1.0 / tokens as f64);
        };
        let (fastest, median) = times(step);
        let (frozen, attention) = products(&base, precision, tokens);
        let rate = |seconds: f64| tokens as f64 / seconds;
        println!(
            "{precision:?}: {:.0} tokens/s at best, {:.0} in the median step: {:.0} % of the {:.0} of bare products, \
             {:.0} % of the {:.0} of those with the frozen matrices alone",
            rate(fastest),
            rate(median),
            100.0 * (frozen + attention) / median,
            rate(frozen + attention),
            100.0 * frozen / median,
            rate(frozen)
        );
    }
    Ok(())
}

/// The shortest and the median time of `work` in seconds, after one run to warm up.
fn times(mut work: impl FnMut()) -> (f64, f64) {
    work();
    let mut times: Vec<f64> = (0..STEPS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    (times[0], times[STEPS / 2])
}

/// The seconds of a step's products with packed operands, forward and backward: those with the frozen
/// matrices, and those of attention.
fn products(base: &Base, precision: Precision, tokens: usize) -> (f64, f64) {
    let config = base.config();
    let (d, q, kv, ff) =
        (config.d_model, config.heads * config.head_dim, config.kv_heads * config.head_dim, config.ff);
    let of_block = [(q, d), (kv, d), (kv, d), (d, q), (ff, d), (ff, d), (d, ff)];
    // The LM head reads its matrix in blocks of this size.
    let block = (1536.min(config.vocab), d);
    let blocks = config.vocab as f64 / block.0 as f64;
    let time = |m: usize, n: usize| {
        let (x, w) = (Array2::from_elem((tokens, n), 0.5), Filled(m, n));
        let (a, b) =
            (PackedLhs::pack(x.view(), precision), PackedRhs::from_matrix_transposed(&w, 0..m, precision));
        let mut y = Array2::zeros((tokens, m));
        times(|| multiply(y.view_mut(), false, &a, &b)).1
    };
    let both = |(m, n): (usize, usize)| time(m, n) + time(n, m);
    let layers = config.layers as f64;
    let frozen = layers * of_block.into_iter().map(both).sum::<f64>() + blocks * both(block);
    // Attention takes queries in blocks of 64, each with the keys up to its end: 160 of 256 on average. The
    // forward pass computes scores and values; the backward pass scores, their gradients, and the gradients
    // of q, k and v.
    let (seen, dim) = (LENGTH / 2 + 32, config.head_dim);
    let attention = layers * config.heads as f64 * (3.0 * time(seen, dim) + 4.0 * time(dim, seen));
    (frozen, attention)
}

/// A matrix whose elements are all equal.
struct Filled(usize, usize);

impl Matrix for Filled {
    fn rows(&self) -> usize {
        self.0
    }
    fn columns(&self) -> usize {
        self.1
    }
    fn row(&self, _: usize, out: &mut [f32]) {
        out.fill(0.25);
    }
}
