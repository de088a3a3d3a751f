//! Every micro-kernel of this processor against sums in f64.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, Axis, s};

use super::micro_kernel::MicroKernel;
use super::{Matrix, PackedLhs, PackedRhs, multiply, multiply_tile, select};
use crate::kernels::{Cpu, Precision};

struct Dense(Array2<f32>);

impl Matrix for Dense {
    fn rows(&self) -> usize {
        self.0.nrows()
    }
    fn columns(&self) -> usize {
        self.0.ncols()
    }
    fn row(&self, row: usize, out: &mut [f32]) {
        out.copy_from_slice(self.0.row(row).to_slice().unwrap());
    }
}

fn numbers(rows: usize, columns: usize, seed: u32) -> Array2<f32> {
    Array2::from_shape_fn((rows, columns), |(i, j)| {
        let bits = (i as u32 * 7919 + j as u32 * 104_729 + seed).wrapping_mul(2_654_435_761);
        (bits >> 8) as f32 / (1 << 23) as f32 - 1.0
    })
}

fn kernels() -> impl Iterator<Item = (Cpu, Precision, &'static MicroKernel)> {
    Cpu::available().flat_map(|cpu| {
        Precision::ALL.iter().map(move |&precision| (cpu, precision, select::micro_kernel(cpu, precision)))
    })
}

/// The operand as the micro-kernel reads it: bfloat16 is rounded.
fn rounded(kernel: &MicroKernel, x: &Array2<f32>) -> Array2<f64> {
    match kernel.values_per_slot {
        1 => x.mapv(f64::from),
        _ => x.mapv(|x| half::bf16::from_f32(x).to_f64()),
    }
}

/// Checks that `found` is `a b`, up to the rounding of f32 sums: at most `k` additions, each off by half a
/// unit in the last place of a partial sum, which is no larger than the sum of magnitudes.
fn check(found: ArrayView2<f32>, a: &Array2<f64>, b: ArrayView2<f64>, what: &str) {
    let right = a.dot(&b);
    let magnitude = a.mapv(f64::abs).dot(&b.mapv(f64::abs));
    let tolerance = (a.ncols() + 4) as f64 * f64::from(f32::EPSILON) / 2.0;
    for ((at, found), magnitude) in found.indexed_iter().zip(&magnitude) {
        let error = (f64::from(*found) - right[at]).abs();
        assert!(error <= tolerance * magnitude, "{what} at {at:?}: {found} for {}", right[at]);
    }
}

/// Shapes `[m, k] x [k, n]` with every kind of remainder: rows, columns, slots and blocks of k.
const SHAPES: [(usize, usize, usize); 8] = [
    (1, 1, 1),
    (1, 576, 192),
    (3, 7, 5),
    (8, 16, 48),
    (13, 33, 97),
    (70, 601, 55),
    (257, 64, 200),
    (5, 1201, 48),
];

#[test]
fn both_roles_equal_the_definition_on_ragged_shapes() {
    for (cpu, precision, kernel) in kernels() {
        for (m, k, n) in SHAPES {
            let what = format!("{cpu:?} {precision:?} [{m}, {k}] x [{k}, {n}]");
            let x = numbers(m, k, 1);
            let a = PackedLhs::pack_with(kernel, x.view());
            let extra_rows = 3;
            let w = Dense(numbers(n + extra_rows, k, 2));
            let rows = 2..2 + n;
            let used = rounded(kernel, &w.0.slice(s![rows.clone(), ..]).to_owned());
            let mut c = Array2::from_elem((m, n), f32::NAN);
            multiply(c.view_mut(), false, &a, &PackedRhs::from_matrix_transposed_with(kernel, &w, rows));
            check(c.view(), &rounded(kernel, &x), used.t(), &what);

            let w = Dense(numbers(k + extra_rows, n, 3));
            let rows = 1..1 + k;
            let used = rounded(kernel, &w.0.slice(s![rows.clone(), ..]).to_owned());
            c.fill(f32::NAN);
            let b = PackedRhs::from_matrix_with(kernel, &w, rows);
            multiply(c.view_mut(), false, &a, &b);
            check(c.view(), &rounded(kernel, &x), used.view(), &what);
            let once = c.clone();
            multiply(c.view_mut(), true, &a, &b);
            // The blocks of k are added one by one, so twice the product may round differently.
            let twice = (&c - &once * 2.0).mapv(f32::abs);
            assert!(twice.iter().all(|d| *d <= 1e-5 * k as f32), "{what}");
        }
    }
}

#[test]
fn activations_multiply_in_every_role_and_in_part() {
    for (cpu, precision, kernel) in kernels() {
        for (m, k, n) in SHAPES {
            let what = format!("{cpu:?} {precision:?} [{m}, {k}] x [{k}, {n}]");
            // The right operand has more columns than the result, and more slots than the left operand.
            let (a, b) = (numbers(m, k + 2, 6), numbers(k + 5, n + 2, 7));
            let part = a.slice(s![.., 1..=k]);
            let mut wide = Array2::from_elem((m, n + 3), f32::NAN);
            let (exact_a, exact_b) = (rounded(kernel, &part.to_owned()), rounded(kernel, &b));
            for transposed in [false, true] {
                let transposed_a = part.t().as_standard_layout().to_owned();
                let transposed_b = b.t().as_standard_layout().to_owned();
                let rows = if transposed {
                    PackedLhs::pack_transposed_with(kernel, transposed_a.view())
                } else {
                    PackedLhs::pack_with(kernel, part)
                };
                let panels = if transposed {
                    PackedRhs::pack_transposed_with(kernel, transposed_b.view())
                } else {
                    PackedRhs::pack_with(kernel, b.view())
                };
                multiply_tile(wide.slice_mut(s![.., 2..2 + n]), false, &rows, 0, &panels, 0);
                let found = wide.slice(s![.., 2..2 + n]);
                check(found, &exact_a, exact_b.slice(s![..k, ..n]), &what);
                assert!(
                    wide.slice(s![.., ..2]).iter().chain(wide.slice(s![.., 2 + n..])).all(|x| x.is_nan())
                );
            }
        }
    }
}

#[test]
fn rows_from_a_function_are_those_of_an_array() {
    let x = numbers(70, 33, 8);
    for precision in Precision::ALL {
        let b = PackedRhs::pack(x.slice(s![..33, ..20]), *precision);
        let made = PackedLhs::from_fn(x.dim(), *precision, |i, row| {
            row.copy_from_slice(x.row(i).to_slice().unwrap())
        });
        let product = |rows: &PackedLhs<'_>| {
            let mut c = Array2::zeros((70, 20));
            multiply(c.view_mut(), false, rows, &b);
            c
        };
        assert_eq!(product(&made), product(&PackedLhs::pack(x.view(), *precision)));
    }
}

#[test]
fn a_number_does_not_depend_on_the_strides() {
    for (cpu, precision, kernel) in kernels().filter(|(_, _, kernel)| kernel.values_per_slot == 1) {
        for (m, k, n) in SHAPES {
            let (a, b) = (numbers(m, k, 8), PackedRhs::pack_with(kernel, numbers(k, n, 9).view()));
            let product = |a: ArrayView2<f32>| {
                let mut c = Array2::zeros((m, n));
                multiply(c.view_mut(), false, &PackedLhs::pack_with(kernel, a), &b);
                c.mapv(f32::to_bits)
            };
            let mut by_columns = Array2::zeros((k, m));
            by_columns.assign(&a.t());
            let mut wide = Array2::zeros((m, 3 * k));
            wide.slice_mut(s![.., ..;3]).assign(&a);
            let whole = product(a.view());
            let what = format!("{cpu:?} {precision:?} [{m}, {k}] x [{k}, {n}]");
            assert_eq!(whole, product(by_columns.t()), "{what}");
            assert_eq!(whole, product(wide.slice(s![.., ..;3])), "{what}");
        }
    }
}

#[test]
fn a_product_over_nothing_is_zero() {
    for (_, _, kernel) in kernels() {
        let (x, w) = (Array2::zeros((3, 0)), Dense(Array2::zeros((0, 5))));
        let mut c = Array2::ones((3, 5));
        multiply(
            c.view_mut(),
            false,
            &PackedLhs::pack_with(kernel, x.view()),
            &PackedRhs::from_matrix_with(kernel, &w, 0..0),
        );
        assert_eq!(c, Array2::<f32>::zeros((3, 5)));
    }
}

#[test]
fn a_number_does_not_depend_on_the_tile_or_the_threads() {
    let (m, k, n) = (300, 700, 250);
    let (x, w) = (numbers(m, k, 4), Dense(numbers(n, k, 5)));
    for (cpu, precision, kernel) in kernels() {
        let product = |rows: Range<usize>, columns: Range<usize>, threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut c = Array2::zeros((rows.len(), columns.len()));
            pool.install(|| {
                let a = PackedLhs::pack_with(kernel, x.slice(s![rows, ..]));
                multiply(
                    c.view_mut(),
                    false,
                    &a,
                    &PackedRhs::from_matrix_transposed_with(kernel, &w, columns),
                );
            });
            c.mapv(f32::to_bits)
        };
        let whole = product(0..m, 0..n, 1);
        assert_eq!(whole, product(0..m, 0..n, 2), "{cpu:?} {precision:?}");
        assert_eq!(whole, product(0..m, 0..n, 7), "{cpu:?} {precision:?}");
        let part = product(37..m, 11..n - 50, 2);
        assert_eq!(whole.slice(s![37.., 11..n - 50]), part, "{cpu:?} {precision:?}");
        assert_eq!(whole.row(299).insert_axis(Axis(0)), product(299..300, 0..n, 1));
    }
}

#[test]
fn bfloat16_is_rounded_to_nearest_even() {
    // A product by 1 shows what a number was rounded to: ties both ways, carries, signs, and the largest
    // numbers.
    let kernel = select::micro_kernel(Cpu::detected(), Precision::Bf16);
    if kernel.values_per_slot == 1 {
        return;
    }
    let patterns = (0..4000u32)
        .map(|i| f32::from_bits(0x3f80_0000 + i * 0x0800).copysign(if i % 2 == 0 { 1.0 } else { -1.0 }));
    let x: Vec<f32> = patterns.chain([0.0, -0.0, 1e-30, -1e-30, 3.3e38, f32::INFINITY]).collect();
    let x = Array2::from_shape_vec((x.len(), 1), x).unwrap();
    let mut c = Array2::zeros((x.nrows(), 1));
    let one = Dense(Array2::ones((1, 1)));
    multiply(
        c.view_mut(),
        false,
        &PackedLhs::pack_with(kernel, x.view()),
        &PackedRhs::from_matrix_with(kernel, &one, 0..1),
    );
    for (x, c) in x.iter().zip(&c) {
        assert_eq!(half::bf16::from_f32(*x).to_f32(), *c, "{x:e}");
    }
}
