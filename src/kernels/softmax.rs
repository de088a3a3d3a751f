//! Loops of a softmax, compiled for each CPU level.

use super::cpu::{Cpu, Multiversion};
use super::real::Real;
use super::reduce::sum_over;

/// Replaces every x by exp(factor x - shift), and returns the sum.
pub fn exp_shifted<T: Real>(numbers: &mut [T], factor: T, shift: T) -> T {
    struct ExpShifted<'x, T>(&'x mut [T], T, T);
    impl<T: Real> Multiversion for ExpShifted<'_, T> {
        type Output = T;

        #[inline(always)]
        fn run(self) -> T {
            let Self(numbers, factor, shift) = self;
            for x in numbers.iter_mut() {
                *x = (*x * factor - shift).fast_exp();
            }
            sum_over(numbers, numbers, numbers, |x, _, _| x)
        }
    }
    Cpu::current().dispatch(ExpShifted(numbers, factor, shift))
}

/// `ds = p (ds - dot) scale`: the gradient with respect to the scores of a softmax p.
pub fn softmax_backward<T: Real>(p: &[T], dot: T, scale: T, ds: &mut [T]) {
    struct SoftmaxBackward<'x, T>(&'x [T], T, T, &'x mut [T]);
    impl<T: Real> Multiversion for SoftmaxBackward<'_, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let Self(p, dot, scale, ds) = self;
            ds.iter_mut().zip(p).for_each(|(ds, &p)| *ds = p * (*ds - dot) * scale);
        }
    }
    Cpu::current().dispatch(SoftmaxBackward(p, dot, scale, ds));
}
