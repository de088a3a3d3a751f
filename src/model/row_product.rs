//! Products of one token with a frozen matrix, for writing token by token.

use rayon::prelude::*;

use crate::base::Weight;
use crate::kernels::row_product::{Activations, RowKernel, decoded, stored};
use crate::kernels::{Real, RowProducts};

/// Values of a matrix that one thread reads at a time.
const CHUNK_VALUES: usize = 1 << 15;

/// `y = x W^T`, or `y += x W^T`, for x `[n]` and y `[m]`.
pub(super) fn multiply<T: Real>(
    weight: &Weight<'_>,
    x: Vec<f32>,
    products: RowProducts,
    accumulate: bool,
    y: &mut [T],
) {
    let x = Activations::new(x, products);
    let kernel = match weight.bytes_of_row(0) {
        Some(_) => RowKernel::of(weight.dtype(), &x),
        None => RowKernel::Decoded,
    };
    let rows = (CHUNK_VALUES / weight.cols().max(1)).max(1);
    y.par_chunks_mut(rows).enumerate().for_each(|(chunk, y)| {
        let first = chunk * rows;
        let mut products = vec![0.0; y.len()];
        match kernel {
            RowKernel::Stored(dtype) => {
                let bytes = |row| weight.bytes_of_row(first + row).expect("all rows are stored alike");
                stored(dtype, bytes, &x, &mut products);
            }
            RowKernel::Decoded => {
                let mut values = vec![0.0; products.len() * weight.cols()];
                weight.decode_rows(first..first + products.len(), &mut values);
                for (values, product) in values.chunks_exact(weight.cols().max(1)).zip(&mut products) {
                    *product = decoded(values, &x);
                }
            }
        }
        for (y, product) in y.iter_mut().zip(products) {
            let product = T::from_f32(product);
            *y = if accumulate { *y + product } else { product };
        }
    });
}
