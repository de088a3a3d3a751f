//! Products of one token's activations with the stored rows of a matrix, without decoding the matrix first.
//!
//! One token reads every weight once, so reading decides the speed. Activations are rounded to 8 bits in blocks of 32, as
//! llama.cpp does (`block_q8_1`); a block of codes is then one product of small integers, and its scales are applied to
//! the sum. `blocks` has the layouts. Rows of other types are decoded one at a time.
//!
//! Each number of the result is one row's alone, so threads change nothing.

mod blocks;

use curmerge_formats::dtype::DType;

use super::cpu::{Cpu, Multiversion};
use super::reduce::sum_over;
use blocks::{Affine, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0, Sum};

/// Activations in a block, which share a scale.
const BLOCK: usize = 32;
/// Partial sums of a row.
const LANES: usize = BLOCK / 2;

/// How activations enter products with quantized rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowProducts {
    /// As they are.
    Exact,
    /// Rounded to 8 bits.
    EightBits,
}

/// The activations of one token, as they are and rounded.
#[derive(Debug)]
pub struct Activations {
    values: Vec<f32>,
    blocks: Vec<ActivationBlock>,
}

/// Rounded activations: `scale * code`.
#[derive(Clone, Copy, Debug)]
struct ActivationBlock {
    codes: [i8; BLOCK],
    scale: f32,
    sum: i32,
}

impl ActivationBlock {
    /// The sum of its codes.
    #[inline(always)]
    fn sum(&self) -> i32 {
        self.sum
    }
}

impl Activations {
    /// Rounds them, if that is wanted and they are whole blocks.
    pub fn new(values: Vec<f32>, products: RowProducts) -> Self {
        let (whole, rest) = values.as_chunks::<BLOCK>();
        let blocks = match (products, rest) {
            (RowProducts::EightBits, []) => whole.iter().map(rounded).collect(),
            _ => Vec::new(),
        };
        Self { values, blocks }
    }
}

fn rounded(values: &[f32; BLOCK]) -> ActivationBlock {
    let greatest = values.iter().fold(0.0f32, |greatest, value| greatest.max(value.abs()));
    let inverse = if greatest > 0.0 { 127.0 / greatest } else { 0.0 };
    let codes = values.map(|value| (value * inverse).round() as i8);
    let sum = codes.iter().map(|&code| i32::from(code)).sum();
    // A code is always a number: the scale must say what is none.
    let finite = values.iter().all(|value| value.is_finite());
    let scale = if finite { greatest / 127.0 } else { f32::NAN };
    ActivationBlock { codes, scale, sum }
}

/// Products of activations with rows of one type.
#[derive(Clone, Copy, Debug)]
pub enum RowKernel {
    /// With stored rows of this type.
    Stored(DType),
    /// With rows that are decoded first.
    Decoded,
}

impl RowKernel {
    /// What multiplies these activations with rows of this type.
    pub fn of(dtype: DType, x: &Activations) -> Self {
        let legacy = [DType::Q8_0, DType::Q4_0, DType::Q4_1, DType::Q5_0, DType::Q5_1];
        let known = legacy.contains(&dtype) || [DType::Q4_K, DType::Q5_K, DType::Q6_K].contains(&dtype);
        if known && !x.blocks.is_empty() { Self::Stored(dtype) } else { Self::Decoded }
    }
}

/// Products with stored rows of a type that [`RowKernel::of`] knows: `row` gives the bytes of each.
pub fn stored<'w>(dtype: DType, row: impl Fn(usize) -> &'w [u8], x: &Activations, out: &mut [f32]) {
    struct Products<'x, R>(DType, R, &'x [ActivationBlock], &'x mut [f32]);
    impl<'w, R: Fn(usize) -> &'w [u8]> Multiversion for Products<'_, R> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let Self(dtype, row, x, out) = self;
            match dtype {
                DType::Q8_0 => sums::<Q8_0>(row, x, out),
                DType::Q4_0 => sums::<Q4_0>(row, x, out),
                DType::Q4_1 => sums::<Q4_1>(row, x, out),
                DType::Q5_0 => sums::<Q5_0>(row, x, out),
                DType::Q5_1 => sums::<Q5_1>(row, x, out),
                DType::Q4_K => sums::<Q4K>(row, x, out),
                DType::Q5_K => sums::<Q5K>(row, x, out),
                DType::Q6_K => sums::<Q6K>(row, x, out),
                _ => unreachable!("RowKernel::of names the types"),
            }
        }
    }
    Cpu::current().dispatch(Products(dtype, row, &x.blocks, out));
}

#[inline(always)]
fn sums<'w, B: Affine>(row: impl Fn(usize) -> &'w [u8], x: &[ActivationBlock], out: &mut [f32]) {
    for (i, out) in out.iter_mut().enumerate() {
        *out = sum::<B>(row(i), x);
    }
}

/// The sum over all blocks of a row.
#[inline(always)]
fn sum<B: Affine>(row: &[u8], x: &[ActivationBlock]) -> f32 {
    let mut sum = Sum { lanes: [0.0; LANES], least: 0.0 };
    let per_block = B::VALUES / BLOCK;
    for block in 0..row.len() / B::BYTES {
        B::add(&row[block * B::BYTES..][..B::BYTES], &x[block * per_block..][..per_block], &mut sum);
    }
    let mut total = sum.least;
    for lane in sum.lanes {
        total += lane;
    }
    total
}

/// The product with a decoded row.
pub fn decoded(row: &[f32], x: &Activations) -> f32 {
    struct Product<'x>(&'x [f32], &'x [f32]);
    impl Multiversion for Product<'_> {
        type Output = f32;

        #[inline(always)]
        fn run(self) -> f32 {
            let Self(row, x) = self;
            sum_over(row, x, x, |row, x, _| row * x)
        }
    }
    Cpu::current().dispatch(Product(row, &x.values))
}

#[cfg(test)]
mod tests {
    use curmerge_formats::quant;

    use super::*;

    const TYPES: [DType; 8] = [
        DType::Q8_0,
        DType::Q4_0,
        DType::Q4_1,
        DType::Q5_0,
        DType::Q5_1,
        DType::Q4_K,
        DType::Q5_K,
        DType::Q6_K,
    ];

    fn numbers(seed: usize, count: usize) -> Vec<f32> {
        (0..count)
            .map(|i| ((i * 37 + seed * 11) % 101) as f32 / 50.0 - 1.0 + 0.3 * (i as f32 * 0.07).sin())
            .collect()
    }

    /// A product is that of the decoded weights and the rounded activations, but for the order of a sum in f32.
    #[test]
    fn blocks_are_read_as_they_are_decoded() {
        const COLUMNS: usize = 768;
        let x = Activations::new(numbers(1, COLUMNS), RowProducts::EightBits);
        let rounded: Vec<f64> = (x.blocks.iter())
            .flat_map(|block| block.codes.map(|code| f64::from(block.scale) * f64::from(code)))
            .collect();
        let off = rounded.iter().zip(&x.values).map(|(a, b)| (a - f64::from(*b)).abs()).fold(0.0, f64::max);
        assert!(off < 0.6 / 127.0 * 1.3, "activations are rounded by {off}");
        for dtype in TYPES {
            let bytes = COLUMNS / dtype.block_elements() * dtype.block_bytes();
            let rows: Vec<Vec<u8>> = (0..5)
                .map(|row| {
                    let mut stored = vec![0; bytes];
                    quant::encode(dtype, &numbers(row * 3 + 2, COLUMNS), &mut stored).unwrap();
                    stored
                })
                .collect();
            assert!(matches!(RowKernel::of(dtype, &x), RowKernel::Stored(_)));
            let mut found = vec![0.0; rows.len()];
            stored(dtype, |row| &rows[row], &x, &mut found);
            for (row, found) in rows.iter().zip(found) {
                let mut values = vec![0.0; COLUMNS];
                quant::decode(dtype, row, &mut values).unwrap();
                let products = values.iter().zip(&rounded).map(|(w, x)| f64::from(*w) * x);
                let (right, size) = products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()));
                assert!((f64::from(found) - right).abs() < 2e-6 * size, "{dtype}: {found}, not {right}");
                let exact: f64 = values.iter().zip(&x.values).map(|(w, x)| f64::from(w * x)).sum();
                let found = f64::from(decoded(&values, &x));
                assert!((found - exact).abs() < 2e-6 * size, "{dtype}: {found}, not {exact}");
            }
        }
    }

    /// Also codes that no encoder writes, the smallest scales, and every CPU level.
    #[test]
    fn any_bytes_are_read_alike_on_all_levels() {
        let x = Activations::new(numbers(3, 256), RowProducts::EightBits);
        let rounded: Vec<f64> = (x.blocks.iter())
            .flat_map(|block| block.codes.map(|code| f64::from(block.scale) * f64::from(code)))
            .collect();
        for dtype in TYPES {
            let length = 256 / dtype.block_elements() * dtype.block_bytes();
            for seed in 0..40u32 {
                let byte = |i: usize| (i as u32 ^ seed).wrapping_mul(2_654_435_761).rotate_left(seed) as u8;
                // Halves that are not finite have all bits of the exponent: no byte here does where a half ends.
                let bytes: Vec<u8> = (0..length).map(|i| byte(i) & 0xbb).collect();
                let mut values = vec![0.0; 256];
                quant::decode(dtype, &bytes, &mut values).unwrap();
                let products = values.iter().zip(&rounded).map(|(w, x)| f64::from(*w) * x);
                let (right, size) = products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()));
                let mut found = [0.0];
                stored(dtype, |_| &bytes, &x, &mut found);
                assert!(
                    (f64::from(found[0]) - right).abs() < 2e-6 * size + 1e-30,
                    "{dtype} {seed}: {found:?}, not {right}"
                );
            }
        }
    }

    /// What is not a number must not vanish.
    #[test]
    fn what_is_not_finite_stays_so() {
        for number in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = numbers(1, 256);
            values[37] = number;
            let x = Activations::new(values, RowProducts::EightBits);
            let plain = Activations::new(numbers(1, 256), RowProducts::EightBits);
            for dtype in TYPES {
                let mut row = vec![0; 256 / dtype.block_elements() * dtype.block_bytes()];
                quant::encode(dtype, &numbers(2, 256), &mut row).unwrap();
                let mut found = [0.0];
                stored(dtype, |_| &row, &x, &mut found);
                assert!(!found[0].is_finite(), "{dtype}: {found:?}");
                let at = if dtype == DType::Q6_K { 208 } else { 0 };
                row[at..at + 2].copy_from_slice(&half::f16::from_f32(number).to_le_bytes());
                stored(dtype, |_| &row, &plain, &mut found);
                assert!(!found[0].is_finite(), "{dtype}: {found:?}");
            }
        }
    }

    #[test]
    fn what_is_no_whole_block_is_multiplied_as_it_is() {
        let x = Activations::new(numbers(1, 40), RowProducts::EightBits);
        assert!(matches!(RowKernel::of(DType::Q8_0, &x), RowKernel::Decoded));
        let exact = Activations::new(numbers(1, 64), RowProducts::Exact);
        assert!(matches!(RowKernel::of(DType::Q8_0, &exact), RowKernel::Decoded));
        let zeros = Activations::new(vec![0.0; 32], RowProducts::EightBits);
        let mut found = [1.0];
        stored(DType::Q8_0, |_| &[1; 34], &zeros, &mut found);
        assert_eq!(found, [0.0]);
    }
}
