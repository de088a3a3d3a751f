//! Loops that add, scale and cap vectors, compiled for each CPU level.
//!
//! No operation is fused, so the results are the same bytes at every level. The same holds in the modules
//! beside this one: `activation`, `bf16`, `norms`, `reduce`, `rope` and `softmax`.

use super::cpu::{Cpu, Multiversion};
use super::real::Real;

/// `sum += x`.
pub fn add<T: Real>(sum: &mut [T], x: &[T]) {
    struct Add<'x, T>(&'x mut [T], &'x [T]);
    impl<T: Real> Multiversion for Add<'_, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            self.0.iter_mut().zip(self.1).for_each(|(sum, &x)| *sum += x);
        }
    }
    Cpu::current().dispatch(Add(sum, x));
}

/// `sum += factor x`.
pub fn add_scaled<T: Real>(sum: &mut [T], factor: T, x: &[T]) {
    struct AddScaled<'x, T>(&'x mut [T], T, &'x [T]);
    impl<T: Real> Multiversion for AddScaled<'_, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let Self(sum, factor, x) = self;
            sum.iter_mut().zip(x).for_each(|(sum, &x)| *sum += factor * x);
        }
    }
    Cpu::current().dispatch(AddScaled(sum, factor, x));
}

/// `sum += a b`.
pub fn add_product<T: Real>(sum: &mut [T], a: &[T], b: &[T]) {
    struct AddProduct<'x, T>(&'x mut [T], &'x [T], &'x [T]);
    impl<T: Real> Multiversion for AddProduct<'_, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let Self(sum, a, b) = self;
            sum.iter_mut().zip(a).zip(b).for_each(|((sum, &a), &b)| *sum += a * b);
        }
    }
    Cpu::current().dispatch(AddProduct(sum, a, b));
}

/// `x *= factor`.
pub fn scale<T: Real>(x: &mut [T], factor: T) {
    struct Scale<'x, T>(&'x mut [T], T);
    impl<T: Real> Multiversion for Scale<'_, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let Self(x, factor) = self;
            x.iter_mut().for_each(|x| *x *= factor);
        }
    }
    Cpu::current().dispatch(Scale(x, factor));
}

/// Replaces every x by `cap tanh(factor x / cap)`.
pub fn soft_cap<T: Real>(x: &mut [T], factor: T, cap: T) {
    struct SoftCap<'x, T>(&'x mut [T], T, T);
    impl<T: Real> Multiversion for SoftCap<'_, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let Self(x, factor, cap) = self;
            let inner = factor / cap;
            x.iter_mut().for_each(|x| *x = cap * (*x * inner).fast_tanh());
        }
    }
    Cpu::current().dispatch(SoftCap(x, factor, cap));
}

/// From the results of [`soft_cap`] with a factor of 1, multiply by its derivative: `d *= 1 - (x / cap)^2`.
pub fn soft_cap_backward<T: Real>(capped: &[T], cap: T, d: &mut [T]) {
    struct SoftCapBackward<'x, T>(&'x [T], T, &'x mut [T]);
    impl<T: Real> Multiversion for SoftCapBackward<'_, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let Self(capped, cap, d) = self;
            for (d, &x) in d.iter_mut().zip(capped) {
                let t = x / cap;
                *d *= T::one() - t * t;
            }
        }
    }
    Cpu::current().dispatch(SoftCapBackward(capped, cap, d));
}
