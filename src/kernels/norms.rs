//! Loops of RMSNorm and LayerNorm over one row, compiled for each CPU level.

use super::cpu::{Cpu, Multiversion};
use super::real::Real;
use super::reduce::sum_over;

/// `y = w x factor`.
pub fn scaled_product<T: Real>(w: &[T], x: &[T], factor: T, y: &mut [T]) {
    struct ScaledProduct<'x, T>(&'x [T], &'x [T], T, &'x mut [T]);
    impl<T: Real> Multiversion for ScaledProduct<'_, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let Self(w, x, factor, y) = self;
            for ((y, &x), &w) in y.iter_mut().zip(x).zip(w) {
                *y = w * (x * factor);
            }
        }
    }
    Cpu::current().dispatch(ScaledProduct(w, x, factor, y));
}

/// `dx += i w dy - x i^3 mean(x w dy)`: the gradient of RMSNorm, with i = 1 / rms(x).
pub fn rms_norm_backward<T: Real>(w: &[T], x: &[T], dy: &[T], inverse: T, dx: &mut [T]) {
    struct RmsNormBackward<'x, T>(&'x [T], &'x [T], &'x [T], T, &'x mut [T]);
    impl<T: Real> Multiversion for RmsNormBackward<'_, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let Self(w, x, dy, inverse, dx) = self;
            let pull = sum_over(x, w, dy, |x, w, dy| x * w * dy) * inverse * inverse * inverse;
            let pull = pull / T::from_f64(w.len() as f64);
            for (((dx, &x), &dy), &w) in dx.iter_mut().zip(x).zip(dy).zip(w) {
                *dx += w * dy * inverse - x * pull;
            }
        }
    }
    Cpu::current().dispatch(RmsNormBackward(w, x, dy, inverse, dx));
}

/// The mean of a row, and the sum of squared deviations from it, in f64.
pub fn mean_and_squared_deviation<T: Real>(x: &[T]) -> (f64, f64) {
    struct MeanAndSquaredDeviation<'x, T>(&'x [T]);
    impl<T: Real> Multiversion for MeanAndSquaredDeviation<'_, T> {
        type Output = (f64, f64);

        #[inline(always)]
        fn run(self) -> (f64, f64) {
            let Self(x) = self;
            let mean = sum_over(x, x, x, |x, _, _| x.as_f64()) / x.len() as f64;
            (mean, sum_over(x, x, x, |x, _, _| (x.as_f64() - mean) * (x.as_f64() - mean)))
        }
    }
    Cpu::current().dispatch(MeanAndSquaredDeviation(x))
}

/// `y = w (x - mean) factor + b`.
pub fn layer_norm<T: Real>(w: &[T], b: &[T], x: &[T], mean: T, factor: T, y: &mut [T]) {
    struct LayerNorm<'x, T>(&'x [T], &'x [T], &'x [T], T, T, &'x mut [T]);
    impl<T: Real> Multiversion for LayerNorm<'_, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let Self(w, b, x, mean, factor, y) = self;
            for (((y, &x), &w), &b) in y.iter_mut().zip(x).zip(w).zip(b) {
                *y = w * ((x - mean) * factor) + b;
            }
        }
    }
    Cpu::current().dispatch(LayerNorm(w, b, x, mean, factor, y));
}

/// `dx += i (w dy - mean(w dy) - n mean(w dy n))` with `n = (x - mean) i`: the gradient of LayerNorm, with i
/// = 1 / std(x).
pub fn layer_norm_backward<T: Real>(w: &[T], x: &[T], dy: &[T], mean: T, inverse: T, dx: &mut [T]) {
    struct LayerNormBackward<'x, T>(&'x [T], &'x [T], &'x [T], T, T, &'x mut [T]);
    impl<T: Real> Multiversion for LayerNormBackward<'_, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let Self(w, x, dy, mean, inverse, dx) = self;
            let count = T::from_f64(w.len() as f64);
            let mean_wdy = sum_over(w, dy, x, |w, dy, _| w * dy) / count;
            let mean_wdyn = sum_over(w, dy, x, |w, dy, x| w * dy * ((x - mean) * inverse)) / count;
            for (((dx, &x), &dy), &w) in dx.iter_mut().zip(x).zip(dy).zip(w) {
                *dx += inverse * (w * dy - mean_wdy - (x - mean) * inverse * mean_wdyn);
            }
        }
    }
    Cpu::current().dispatch(LayerNormBackward(w, x, dy, mean, inverse, dx));
}
