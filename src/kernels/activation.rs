//! Loops over the feed-forward part's nonlinearity, compiled for the processor's level as those of `elementwise` are.

use super::Real;
use super::cpu::{Cpu, Work};
use super::elementwise::sigmoid;

/// A function of one number, and its derivative.
pub trait Function {
    /// f(x) and f'(x).
    fn value_and_slope<T: Real>(x: T) -> (T, T);
}

/// x sigmoid(x).
#[derive(Clone, Copy, Debug)]
pub struct Silu;

impl Function for Silu {
    #[inline(always)]
    fn value_and_slope<T: Real>(x: T) -> (T, T) {
        let s = sigmoid(x);
        (x * s, s * (T::one() + x * (T::one() - s)))
    }
}

/// GELU by its tanh formula (Hendrycks and Gimpel 2016, arXiv 1606.08415): x (1 + tanh u) / 2 = x sigmoid(2u) with
/// u = sqrt(2 / pi) (x + 0.044715 x^3).
#[derive(Clone, Copy, Debug)]
pub struct Gelu;

impl Function for Gelu {
    #[inline(always)]
    fn value_and_slope<T: Real>(x: T) -> (T, T) {
        let twice_root = T::from_f64(2.0 * (2.0 / std::f64::consts::PI).sqrt());
        let (cubic, three) = (T::from_f64(0.044_715), T::from_f64(3.0));
        let s = sigmoid(twice_root * x * (T::one() + cubic * x * x));
        let inner = twice_root * (T::one() + three * cubic * x * x);
        (x * s, s + x * s * (T::one() - s) * inner)
    }
}

/// `out = f(gate) up`.
pub fn gated<F: Function, T: Real>(gate: &[T], up: &[T], out: &mut [T]) {
    struct Gated<'x, F, T>(&'x [T], &'x [T], &'x mut [T], std::marker::PhantomData<F>);
    impl<F: Function, T: Real> Work for Gated<'_, F, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let Self(gate, up, out, _) = self;
            for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
                *out = F::value_and_slope(gate).0 * up;
            }
        }
    }
    Cpu::current().run(Gated(gate, up, out, std::marker::PhantomData::<F>));
}

/// From `d`, the gradient to f(gate) up, those to gate and up, in the places of `gate` and `d`.
pub fn gated_backward<F: Function, T: Real>(gate: &mut [T], up: &[T], d: &mut [T]) {
    struct GatedBackward<'x, F, T>(&'x mut [T], &'x [T], &'x mut [T], std::marker::PhantomData<F>);
    impl<F: Function, T: Real> Work for GatedBackward<'_, F, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let Self(gate, up, d, _) = self;
            for ((gate, &up), d) in gate.iter_mut().zip(up).zip(d) {
                let (value, slope) = F::value_and_slope(*gate);
                let g = *d;
                *d = g * value;
                *gate = g * up * slope;
            }
        }
    }
    Cpu::current().run(GatedBackward(gate, up, d, std::marker::PhantomData::<F>));
}

/// `out = f(x)`.
pub fn plain<F: Function, T: Real>(x: &[T], out: &mut [T]) {
    struct Plain<'x, F, T>(&'x [T], &'x mut [T], std::marker::PhantomData<F>);
    impl<F: Function, T: Real> Work for Plain<'_, F, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            self.1.iter_mut().zip(self.0).for_each(|(out, &x)| *out = F::value_and_slope(x).0);
        }
    }
    Cpu::current().run(Plain(x, out, std::marker::PhantomData::<F>));
}

/// `d *= f'(x)`.
pub fn plain_backward<F: Function, T: Real>(x: &[T], d: &mut [T]) {
    struct PlainBackward<'x, F, T>(&'x [T], &'x mut [T], std::marker::PhantomData<F>);
    impl<F: Function, T: Real> Work for PlainBackward<'_, F, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            self.1.iter_mut().zip(self.0).for_each(|(d, &x)| *d *= F::value_and_slope(x).1);
        }
    }
    Cpu::current().run(PlainBackward(x, d, std::marker::PhantomData::<F>));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slope_is_the_derivative<F: Function>() {
        for i in -60..=60 {
            let (x, h) = (f64::from(i) / 10.0, 1e-6);
            let found = F::value_and_slope(x).1;
            let right = (F::value_and_slope(x + h).0 - F::value_and_slope(x - h).0) / (2.0 * h);
            assert!((found - right).abs() < 1e-8, "{x}: {found} {right}");
        }
    }

    #[test]
    fn slopes_are_derivatives() {
        slope_is_the_derivative::<Silu>();
        slope_is_the_derivative::<Gelu>();
    }

    #[test]
    fn gelu_is_the_tanh_formula() {
        for i in -50..=50 {
            let x = f64::from(i) / 7.0;
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            assert!((Gelu::value_and_slope(x).0 - 0.5 * x * (1.0 + u.tanh())).abs() < 1e-14);
        }
    }
}
