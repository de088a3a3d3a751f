//! Products of one query with the keys and values of a cache, compiled for each CPU level.

use super::cpu::{Cpu, Multiversion};
use super::real::Real;
use super::reduce::sum_over;

/// `scores[i] = q . keys[i]`, for q `[head_dim]` and keys that begin `stride` numbers apart.
pub fn scores<T: Real>(q: &[T], keys: &[T], stride: usize, scores: &mut [T]) {
    struct Scores<'x, T>(&'x [T], &'x [T], usize, &'x mut [T]);
    impl<T: Real> Multiversion for Scores<'_, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let Self(q, keys, stride, scores) = self;
            for (score, key) in scores.iter_mut().zip(keys.chunks(stride)) {
                let key = &key[..q.len()];
                *score = sum_over(q, key, key, |q, key, _| q * key);
            }
        }
    }
    Cpu::current().dispatch(Scores(q, keys, stride, scores));
}

/// `sum = sum over i of p[i] values[i]`, for sum `[head_dim]` and values that begin `stride` numbers apart.
pub fn weighted_sum<T: Real>(p: &[T], values: &[T], stride: usize, sum: &mut [T]) {
    struct WeightedSum<'x, T>(&'x [T], &'x [T], usize, &'x mut [T]);
    impl<T: Real> Multiversion for WeightedSum<'_, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let Self(p, values, stride, sum) = self;
            sum.fill(T::zero());
            for (&p, value) in p.iter().zip(values.chunks(stride)) {
                sum.iter_mut().zip(value).for_each(|(sum, &value)| *sum += p * value);
            }
        }
    }
    Cpu::current().dispatch(WeightedSum(p, values, stride, sum));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strided_rows_are_those_of_a_matrix() {
        let (dim, stride, count) = (5, 20, 3);
        let number = |i: usize| (i * i % 11) as f64 - 4.0;
        let x: Vec<f64> = (0..stride * (count - 1) + dim).map(number).collect();
        let q: Vec<f64> = (0..dim).map(|i| number(i + 3)).collect();
        let mut products = vec![0.0; count];
        scores(&q, &x, stride, &mut products);
        let expected: Vec<f64> =
            (0..count).map(|i| (0..dim).map(|j| q[j] * x[i * stride + j]).sum()).collect();
        assert_eq!(products, expected);
        let mut sum = vec![1.0; dim];
        weighted_sum(&products, &x, stride, &mut sum);
        let expected: Vec<f64> =
            (0..dim).map(|j| (0..count).map(|i| products[i] * x[i * stride + j]).sum()).collect();
        assert_eq!(sum, expected);
    }
}
