//! Loops of the feed-forward network's activation function, compiled for each CPU level.

use super::cpu::{Cpu, Multiversion};
use super::real::Real;

/// 1 / (1 + e^-x).
#[inline(always)]
pub fn sigmoid<T: Real>(x: T) -> T {
    T::one() / (T::one() + (-x).fast_exp())
}

/// An activation function and its derivative.
pub trait ActivationFn {
    /// f(x) and f'(x).
    fn value_and_derivative<T: Real>(x: T) -> (T, T);

    /// What f(gate) is multiplied by, h(up), and h'(up). Of most it is up itself.
    #[inline(always)]
    fn multiplier_and_derivative<T: Real>(up: T) -> (T, T) {
        (up, T::one())
    }
}

/// SiLU, also called Swish: x sigmoid(x).
#[derive(Clone, Copy, Debug)]
pub struct Silu;

impl ActivationFn for Silu {
    #[inline(always)]
    fn value_and_derivative<T: Real>(x: T) -> (T, T) {
        let s = sigmoid(x);
        (x * s, s * (T::one() + x * (T::one() - s)))
    }
}

/// 1 / (1 + e^-x), the factor of a gate.
#[derive(Clone, Copy, Debug)]
pub struct Sigmoid;

impl ActivationFn for Sigmoid {
    #[inline(always)]
    fn value_and_derivative<T: Real>(x: T) -> (T, T) {
        let s = sigmoid(x);
        (s, s * (T::one() - s))
    }
}

/// The tanh approximation of GELU (Hendrycks and Gimpel 2016, arXiv 1606.08415): x (1 + tanh u) / 2 = x
/// sigmoid(2u) with u = sqrt(2 / pi) (x + 0.044715 x^3).
#[derive(Clone, Copy, Debug)]
pub struct Gelu;

impl ActivationFn for Gelu {
    #[inline(always)]
    fn value_and_derivative<T: Real>(x: T) -> (T, T) {
        let twice_root = T::from_f64(2.0 * (2.0 / std::f64::consts::PI).sqrt());
        let (cubic, three) = (T::from_f64(0.044_715), T::from_f64(3.0));
        let s = sigmoid(twice_root * x * (T::one() + cubic * x * x));
        let inner = twice_root * (T::one() + three * cubic * x * x);
        (x * s, s + x * s * (T::one() - s) * inner)
    }
}

/// max(x, 0)^2 (Primer, So et al. 2021, arXiv 2109.08668).
#[derive(Clone, Copy, Debug)]
pub struct SquaredRelu;

impl ActivationFn for SquaredRelu {
    #[inline(always)]
    fn value_and_derivative<T: Real>(x: T) -> (T, T) {
        // NaN stays NaN.
        let positive = if x < T::zero() { T::zero() } else { x };
        (positive * positive, positive + positive)
    }
}

/// The clamped SwiGLU of gpt-oss: f(x) = y sigmoid(1.702 y) with y = min(x, 7), and h(up) = 1 + up, clamped to
/// [-7, 7] before the 1 is added. Where a clamp holds, the derivative is 0, as in torch.
#[derive(Clone, Copy, Debug)]
pub struct ClampedSwiglu;

impl ClampedSwiglu {
    /// Where gate and up are clamped.
    pub const LIMIT: f64 = 7.0;
    /// The factor within the sigmoid.
    pub const ALPHA: f64 = 1.702;
}

impl ActivationFn for ClampedSwiglu {
    #[inline(always)]
    fn value_and_derivative<T: Real>(x: T) -> (T, T) {
        let (limit, alpha) = (T::from_f64(Self::LIMIT), T::from_f64(Self::ALPHA));
        // NaN stays NaN.
        let clamped = x > limit;
        let y = if clamped { limit } else { x };
        let s = sigmoid(alpha * y);
        let derivative = s * (T::one() + alpha * y * (T::one() - s));
        (y * s, if clamped { T::zero() } else { derivative })
    }

    #[inline(always)]
    fn multiplier_and_derivative<T: Real>(up: T) -> (T, T) {
        let limit = T::from_f64(Self::LIMIT);
        if up > limit {
            (T::one() + limit, T::zero())
        } else if up < -limit {
            (T::one() - limit, T::zero())
        } else {
            (T::one() + up, T::one())
        }
    }
}

/// `out = f(gate) h(up)`.
pub fn gated<F: ActivationFn, T: Real>(gate: &[T], up: &[T], out: &mut [T]) {
    struct Gated<'x, F, T>(&'x [T], &'x [T], &'x mut [T], std::marker::PhantomData<F>);
    impl<F: ActivationFn, T: Real> Multiversion for Gated<'_, F, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let Self(gate, up, out, _) = self;
            for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
                *out = F::value_and_derivative(gate).0 * F::multiplier_and_derivative(up).0;
            }
        }
    }
    Cpu::current().dispatch(Gated(gate, up, out, std::marker::PhantomData::<F>));
}

/// From `d`, the gradient with respect to f(gate) h(up): replaces `gate` by the gradient with respect to gate,
/// and `d` by that with respect to up.
pub fn gated_backward<F: ActivationFn, T: Real>(gate: &mut [T], up: &[T], d: &mut [T]) {
    struct GatedBackward<'x, F, T>(&'x mut [T], &'x [T], &'x mut [T], std::marker::PhantomData<F>);
    impl<F: ActivationFn, T: Real> Multiversion for GatedBackward<'_, F, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let Self(gate, up, d, _) = self;
            for ((gate, &up), d) in gate.iter_mut().zip(up).zip(d) {
                let (value, derivative) = F::value_and_derivative(*gate);
                let (multiplier, slope) = F::multiplier_and_derivative(up);
                let g = *d;
                *d = g * value * slope;
                *gate = g * multiplier * derivative;
            }
        }
    }
    Cpu::current().dispatch(GatedBackward(gate, up, d, std::marker::PhantomData::<F>));
}

/// `out = f(x)`.
pub fn plain<F: ActivationFn, T: Real>(x: &[T], out: &mut [T]) {
    struct Plain<'x, F, T>(&'x [T], &'x mut [T], std::marker::PhantomData<F>);
    impl<F: ActivationFn, T: Real> Multiversion for Plain<'_, F, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            self.1.iter_mut().zip(self.0).for_each(|(out, &x)| *out = F::value_and_derivative(x).0);
        }
    }
    Cpu::current().dispatch(Plain(x, out, std::marker::PhantomData::<F>));
}

/// `d *= f'(x)`.
pub fn plain_backward<F: ActivationFn, T: Real>(x: &[T], d: &mut [T]) {
    struct PlainBackward<'x, F, T>(&'x [T], &'x mut [T], std::marker::PhantomData<F>);
    impl<F: ActivationFn, T: Real> Multiversion for PlainBackward<'_, F, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            self.1.iter_mut().zip(self.0).for_each(|(d, &x)| *d *= F::value_and_derivative(x).1);
        }
    }
    Cpu::current().dispatch(PlainBackward(x, d, std::marker::PhantomData::<F>));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slope_is_the_derivative<F: ActivationFn>(most: i32) {
        for i in -most..=most {
            // Between tenths: the squared ReLU bends at 0, and clamps at 7.
            let (x, h) = (f64::from(i) / 10.0 + 0.05, 1e-6);
            let found = F::value_and_derivative(x).1;
            let right = (F::value_and_derivative(x + h).0 - F::value_and_derivative(x - h).0) / (2.0 * h);
            assert!((found - right).abs() < 1e-8, "{x}: {found} {right}");
            let multiplier = |x| F::multiplier_and_derivative(x).0;
            let right = (multiplier(x + h) - multiplier(x - h)) / (2.0 * h);
            assert!((F::multiplier_and_derivative(x).1 - right).abs() < 1e-8, "{x}: {right}");
        }
    }

    #[test]
    fn slopes_are_derivatives() {
        slope_is_the_derivative::<Silu>(60);
        slope_is_the_derivative::<Sigmoid>(60);
        slope_is_the_derivative::<Gelu>(60);
        slope_is_the_derivative::<SquaredRelu>(60);
        slope_is_the_derivative::<ClampedSwiglu>(80);
    }

    #[test]
    fn gelu_is_the_tanh_formula() {
        for i in -50..=50 {
            let x = f64::from(i) / 7.0;
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            assert!((Gelu::value_and_derivative(x).0 - 0.5 * x * (1.0 + u.tanh())).abs() < 1e-14);
        }
    }
}
