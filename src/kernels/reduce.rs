//! Reductions of vectors to one number, compiled for each CPU level.
//!
//! Sums run in a fixed number of lanes and no operation is fused, so the results are the same bytes at every
//! level.

use super::cpu::{Cpu, Multiversion};
use super::real::Real;

/// Partial sums of a sum: as many as the widest vectors hold.
const LANES: usize = 16;

/// The sum of the lanes, pair by pair.
#[inline(always)]
fn fold<T: Real>(mut lanes: [T; LANES]) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// The sum of `term(a[i], b[i], c[i])` over all i, in lanes.
#[inline(always)]
pub(super) fn sum_over<T: Real, S: Real>(a: &[T], b: &[T], c: &[T], term: impl Fn(T, T, T) -> S) -> S {
    let mut lanes = [S::zero(); LANES];
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let (c, c_rest) = c.as_chunks::<LANES>();
    for ((a, b), c) in a.iter().zip(b).zip(c) {
        for i in 0..LANES {
            lanes[i] += term(a[i], b[i], c[i]);
        }
    }
    let rest = a_rest.iter().zip(b_rest).zip(c_rest);
    lanes.iter_mut().zip(rest).for_each(|(lane, ((&a, &b), &c))| *lane += term(a, b, c));
    fold(lanes)
}

/// The maximum of `start` and all numbers that are not NaN.
pub fn max<T: Real>(start: T, numbers: &[T]) -> T {
    struct Max<'x, T>(T, &'x [T]);
    impl<T: Real> Multiversion for Max<'_, T> {
        type Output = T;

        #[inline(always)]
        fn run(self) -> T {
            let Self(start, numbers) = self;
            let greater = |a: T, b: T| if b > a { b } else { a };
            let mut lanes = [start; LANES];
            let (whole, rest) = numbers.as_chunks::<LANES>();
            for chunk in whole {
                for i in 0..LANES {
                    lanes[i] = greater(lanes[i], chunk[i]);
                }
            }
            rest.iter().chain(&lanes).fold(start, |a, &b| greater(a, b))
        }
    }
    Cpu::current().dispatch(Max(start, numbers))
}

/// The dot product.
pub fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    struct Dot<'x, T>(&'x [T], &'x [T]);
    impl<T: Real> Multiversion for Dot<'_, T> {
        type Output = T;

        #[inline(always)]
        fn run(self) -> T {
            let Self(a, b) = self;
            sum_over(a, b, b, |a, b, _| a * b)
        }
    }
    Cpu::current().dispatch(Dot(a, b))
}

/// The dot product, summed in f64.
pub fn dot_f64<T: Real>(a: &[T], b: &[T]) -> f64 {
    struct Dot<'x, T>(&'x [T], &'x [T]);
    impl<T: Real> Multiversion for Dot<'_, T> {
        type Output = f64;

        #[inline(always)]
        fn run(self) -> f64 {
            let Self(a, b) = self;
            sum_over(a, b, b, |a, b, _| a.as_f64() * b.as_f64())
        }
    }
    Cpu::current().dispatch(Dot(a, b))
}

/// The sum of squares, in f64.
pub fn square_sum<T: Real>(x: &[T]) -> f64 {
    struct SquareSum<'x, T>(&'x [T]);
    impl<T: Real> Multiversion for SquareSum<'_, T> {
        type Output = f64;

        #[inline(always)]
        fn run(self) -> f64 {
            let Self(x) = self;
            sum_over(x, x, x, |x, _, _| x.as_f64() * x.as_f64())
        }
    }
    Cpu::current().dispatch(SquareSum(x))
}

#[cfg(test)]
mod tests {
    use super::super::activation::sigmoid;
    use super::super::math::exp_f32;
    use super::*;

    #[test]
    fn every_level_gives_the_same_bytes() {
        let numbers: Vec<f32> = (0..1003).map(|i| ((i * 37) % 211) as f32 / 7.0 - 20.0).collect();
        struct All<'x>(&'x [f32]);
        impl Multiversion for All<'_> {
            type Output = Vec<u32>;

            #[inline(always)]
            fn run(self) -> Vec<u32> {
                let mut out = self.0.to_vec();
                out.iter_mut().for_each(|x| *x = exp_f32(*x) + sigmoid(*x));
                out.push(sum_over(self.0, self.0, self.0, |a, b, c| a * b * c));
                out.into_iter().map(f32::to_bits).collect()
            }
        }
        let run = |cpu: Cpu| cpu.dispatch(All(&numbers));
        for cpu in Cpu::available() {
            assert_eq!(run(cpu), run(Cpu::Portable), "{cpu:?}");
        }
    }

    #[test]
    fn sums_and_the_maximum_take_every_number() {
        for length in [0, 1, 15, 16, 17, 100] {
            let a: Vec<f64> = (0..length).map(|i| f64::from(i) - 3.0).collect();
            assert_eq!(dot(&a, &a), a.iter().map(|x| x * x).sum::<f64>());
            assert_eq!(dot_f64(&a, &a), a.iter().map(|x| x * x).sum::<f64>());
            assert_eq!(square_sum(&a), a.iter().map(|x| x * x).sum::<f64>());
            assert_eq!(max(-2.5, &a), a.iter().fold(-2.5, |m, &x| x.max(m)));
        }
    }
}
