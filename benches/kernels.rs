//! Matrix products of SmolLM2-135M's shapes: `cargo bench --bench kernels`. An item is a floating-point
//! operation, so Gitem/s are GFLOP/s.
//!
//! `packed` multiplies packed operands. `whole` also packs them, as a training step does. `back` does the
//! same for the backward pass. The peer, `gemm_crate`, is the gemm crate on all threads with dense f32.

use curmerge::kernels::{Matrix, PackedLhs, PackedRhs, Precision, multiply};
use divan::Bencher;
use divan::counter::ItemsCount;
use ndarray::Array2;

fn main() {
    divan::main();
}

/// The tokens of a micro-batch.
const TOKENS: usize = 1024;

/// `[m, n]` of W: q and o, k and v, gate and up, down, and a block of the LM head.
const SHAPES: [(usize, usize); 5] = [(576, 576), (192, 576), (1536, 576), (576, 1536), (6144, 576)];

struct Dense(Array2<f32>);

impl Matrix for Dense {
    fn rows(&self) -> usize {
        self.0.nrows()
    }
    fn columns(&self) -> usize {
        self.0.ncols()
    }
    fn row(&self, row: usize, out: &mut [f32]) {
        out.copy_from_slice(self.0.row(row).to_slice().expect("a dense row"));
    }
}

fn numbers(rows: usize, columns: usize) -> Array2<f32> {
    Array2::from_shape_fn((rows, columns), |(i, j)| ((i * 31 + j * 17) % 23) as f32 / 23.0 - 0.5)
}

fn flops((m, n): (usize, usize)) -> ItemsCount {
    ItemsCount::new(2 * TOKENS * m * n)
}

fn packed(bencher: Bencher<'_, '_>, (m, n): (usize, usize), precision: Precision) {
    let (x, w) = (numbers(TOKENS, n), Dense(numbers(m, n)));
    let (a, b) =
        (PackedLhs::pack(x.view(), precision), PackedRhs::from_matrix_transposed(&w, 0..m, precision));
    let mut y = Array2::zeros((TOKENS, m));
    bencher.counter(flops((m, n))).bench_local(|| multiply(y.view_mut(), false, &a, &b));
}

fn whole(bencher: Bencher<'_, '_>, (m, n): (usize, usize), precision: Precision) {
    let (x, w) = (numbers(TOKENS, n), Dense(numbers(m, n)));
    let mut y = Array2::zeros((TOKENS, m));
    bencher.counter(flops((m, n))).bench_local(|| {
        let b = PackedRhs::from_matrix_transposed(&w, 0..m, precision);
        multiply(y.view_mut(), false, &PackedLhs::pack(x.view(), precision), &b);
    });
}

/// dx = g W.
fn whole_back(bencher: Bencher<'_, '_>, (m, n): (usize, usize), precision: Precision) {
    let (g, w) = (numbers(TOKENS, m), Dense(numbers(m, n)));
    let mut dx = Array2::zeros((TOKENS, n));
    bencher.counter(flops((m, n))).bench_local(|| {
        let b = PackedRhs::from_matrix(&w, 0..m, precision);
        multiply(dx.view_mut(), false, &PackedLhs::pack(g.view(), precision), &b);
    });
}

#[divan::bench(args = SHAPES)]
fn packed_f32(bencher: Bencher<'_, '_>, shape: (usize, usize)) {
    packed(bencher, shape, Precision::F32);
}

#[divan::bench(args = SHAPES)]
fn packed_bf16(bencher: Bencher<'_, '_>, shape: (usize, usize)) {
    packed(bencher, shape, Precision::Bf16);
}

#[divan::bench(args = SHAPES)]
fn whole_f32(bencher: Bencher<'_, '_>, shape: (usize, usize)) {
    whole(bencher, shape, Precision::F32);
}

#[divan::bench(args = SHAPES)]
fn whole_bf16(bencher: Bencher<'_, '_>, shape: (usize, usize)) {
    whole(bencher, shape, Precision::Bf16);
}

#[divan::bench(args = SHAPES)]
fn back_f32(bencher: Bencher<'_, '_>, shape: (usize, usize)) {
    whole_back(bencher, shape, Precision::F32);
}

#[divan::bench(args = SHAPES)]
fn back_bf16(bencher: Bencher<'_, '_>, shape: (usize, usize)) {
    whole_back(bencher, shape, Precision::Bf16);
}

#[divan::bench(args = SHAPES)]
#[allow(unsafe_code)]
fn gemm_crate(bencher: Bencher<'_, '_>, (m, n): (usize, usize)) {
    let (x, w) = (numbers(TOKENS, n), numbers(m, n));
    let mut y = Array2::<f32>::zeros((TOKENS, m));
    bencher.counter(flops((m, n))).bench_local(|| {
        // SAFETY: y [TOKENS, m], x [TOKENS, n] and w [m, n] are dense and row-major; w is read transposed.
        unsafe {
            let (m, n) = (m as isize, n as isize);
            let threads = gemm::Parallelism::Rayon(0);
            gemm::gemm(
                TOKENS,
                m as usize,
                n as usize,
                y.as_mut_ptr(),
                1,
                m,
                false,
                x.as_ptr(),
                1,
                n,
                w.as_ptr(),
                n,
                1,
                0.0,
                1.0,
                false,
                false,
                false,
                threads,
            );
        }
    });
}
