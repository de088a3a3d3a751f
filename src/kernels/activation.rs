//! Loops of the feed-forward network's activation function, compiled for each CPU level.

use super::cpu::{Cpu, Multiversion};
use super::real::Real;

/// 1 / (1 + e^-x).
#[inline(always)]
pub fn sigmoid<T: Real>(x: T) -> T {
    T::one() / (T::one() + (-x).fast_exp())
}

/// An activation function and its derivative.
pub trait ActivationFn: Copy + Sync {
    /// f(x) and f'(x).
    fn value_and_derivative<T: Real>(self, x: T) -> (T, T);

    /// What f(gate) is multiplied by, h(up), and h'(up). Of most it is up itself.
    #[inline(always)]
    fn multiplier_and_derivative<T: Real>(self, up: T) -> (T, T) {
        (up, T::one())
    }
}

/// SiLU, also called Swish: x sigmoid(x).
#[derive(Clone, Copy, Debug)]
pub struct Silu;

impl ActivationFn for Silu {
    #[inline(always)]
    fn value_and_derivative<T: Real>(self, x: T) -> (T, T) {
        let s = sigmoid(x);
        (x * s, s * (T::one() + x * (T::one() - s)))
    }
}

/// 1 / (1 + e^-x), the factor of a gate.
#[derive(Clone, Copy, Debug)]
pub struct Sigmoid;

impl ActivationFn for Sigmoid {
    #[inline(always)]
    fn value_and_derivative<T: Real>(self, x: T) -> (T, T) {
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
    fn value_and_derivative<T: Real>(self, x: T) -> (T, T) {
        let twice_root = T::from_f64(2.0 * (2.0 / std::f64::consts::PI).sqrt());
        let (cubic, three) = (T::from_f64(0.044_715), T::from_f64(3.0));
        let s = sigmoid(twice_root * x * (T::one() + cubic * x * x));
        let inner = twice_root * (T::one() + three * cubic * x * x);
        (x * s, s + x * s * (T::one() - s) * inner)
    }
}

/// The coefficients of ln(e^(z^2) erfc(z) / t) for t = 2 / (2 + z) in Chebyshev polynomials of 2t - 1, with half of the
/// first; the next is 3e-18. Computed with 40 digits.
const ERFC: [f64; 28] = [
    -0.651_326_859_890_854_7,
    0.641_969_792_356_490_2,
    0.019_476_473_204_185_836,
    -0.009_561_514_786_808_632,
    -0.000_946_595_344_482_036_9,
    0.000_366_839_497_852_761_45,
    4.252_332_480_690_777e-5,
    -2.027_857_811_253_424_2e-5,
    -1.624_290_004_647_025_6e-6,
    1.303_655_835_580_523_2e-6,
    1.562_644_172_206_614_2e-8,
    -8.523_809_591_492_654e-8,
    6.529_054_439_098_851_5e-9,
    5.059_343_495_551_469e-9,
    -9.913_641_564_930_33e-10,
    -2.273_651_222_931_836e-10,
    9.646_791_102_015_527e-11,
    2.394_038_083_039_114_6e-12,
    -6.886_027_526_497_553e-12,
    8.944_879_273_090_725e-13,
    3.130_921_399_342_958e-13,
    -1.127_082_236_136_725_2e-13,
    3.810_905_255_189_232e-16,
    7.106_097_613_609_237e-15,
    -1.523_028_201_457_104_3e-15,
    -9.457_494_571_291_233e-17,
    1.210_237_189_224_279e-16,
    -2.816_663_087_747_177e-17,
];

/// erfc(z) for z >= 0, within a few roundings relative to its size.
#[inline(always)]
fn erfc<T: Real>(z: T) -> T {
    let two = T::from_f64(2.0);
    let t = two / (two + z);
    let twice = two * (two * t - T::one());
    // Clenshaw's recurrence.
    let (mut last, mut before) = (T::zero(), T::zero());
    for &coefficient in ERFC[1..].iter().rev() {
        (last, before) = (twice * last - before + T::from_f64(coefficient), last);
    }
    let sum = twice * last / two - before + T::from_f64(ERFC[0]);
    t * (sum - z * z).fast_exp()
}

/// GELU itself (Hendrycks and Gimpel 2016, arXiv 1606.08415): x times the normal distribution's Phi(x).
#[derive(Clone, Copy, Debug)]
pub struct ExactGelu;

impl ActivationFn for ExactGelu {
    #[inline(always)]
    fn value_and_derivative<T: Real>(self, x: T) -> (T, T) {
        let half = T::from_f64(0.5);
        let root = T::from_f64(std::f64::consts::FRAC_1_SQRT_2);
        let z = root * if x < T::zero() { -x } else { x };
        let tail = half * erfc(z);
        let phi = if x < T::zero() { tail } else { T::one() - tail };
        let density = T::from_f64(0.5 * std::f64::consts::FRAC_2_SQRT_PI) * root * (-(z * z)).fast_exp();
        (x * phi, phi + x * density)
    }
}

/// max(x, 0)^2 (Primer, So et al. 2021, arXiv 2109.08668).
#[derive(Clone, Copy, Debug)]
pub struct SquaredRelu;

impl ActivationFn for SquaredRelu {
    #[inline(always)]
    fn value_and_derivative<T: Real>(self, x: T) -> (T, T) {
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
    fn value_and_derivative<T: Real>(self, x: T) -> (T, T) {
        let (limit, alpha) = (T::from_f64(Self::LIMIT), T::from_f64(Self::ALPHA));
        // NaN stays NaN.
        let clamped = x > limit;
        let y = if clamped { limit } else { x };
        let s = sigmoid(alpha * y);
        let derivative = s * (T::one() + alpha * y * (T::one() - s));
        (y * s, if clamped { T::zero() } else { derivative })
    }

    #[inline(always)]
    fn multiplier_and_derivative<T: Real>(self, up: T) -> (T, T) {
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

/// xIELU (arXiv 2411.13010): `alpha_p x^2 + beta x` for x > 0, else `alpha_n (e^min(x, eps) - 1 - x) + beta x`. Each
/// block has numbers of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Xielu {
    /// The factor of the square.
    alpha_p: f64,
    /// The factor of the exponential.
    alpha_n: f64,
    /// The slope on the right of 0.
    beta: f64,
    /// Where the exponential ends: a negative number near 0.
    eps: f64,
}

impl Xielu {
    /// From the numbers that a model stores. The factors are `softplus(alpha_p)` and `beta + softplus(alpha_n)`.
    pub fn new([alpha_p, alpha_n, beta, eps]: [f32; 4]) -> Self {
        let softplus = |x: f32| f64::from(x).max(0.0) + (-f64::from(x).abs()).exp().ln_1p();
        let beta = f64::from(beta);
        Self { alpha_p: softplus(alpha_p), alpha_n: beta + softplus(alpha_n), beta, eps: eps.into() }
    }
}

impl ActivationFn for Xielu {
    #[inline(always)]
    fn value_and_derivative<T: Real>(self, x: T) -> (T, T) {
        let Self { alpha_p, alpha_n, beta, eps } = self;
        let [alpha_p, alpha_n, beta, eps] = [alpha_p, alpha_n, beta, eps].map(T::from_f64);
        let right = (alpha_p * x * x + beta * x, (alpha_p + alpha_p) * x + beta);
        let below = x < eps;
        let grown = exp_m1(if below { x } else { eps });
        let slope = if below { grown } else { -T::one() };
        let left = ((grown - x) * alpha_n + beta * x, slope * alpha_n + beta);
        if x > T::zero() { right } else { left }
    }
}

/// 1 / k! for k from 1 on, of as many terms as e^x - 1 takes for |x| < 1/2.
const INVERSE_FACTORIALS: [f64; 15] = {
    let mut all = [1.0; 15];
    let mut k = 1;
    while k < all.len() {
        all[k] = all[k - 1] / (k + 1) as f64;
        k += 1;
    }
    all
};

/// e^x - 1 within a few roundings relative to its size, in arithmetic that vectorizes.
#[inline(always)]
fn exp_m1<T: Real>(x: T) -> T {
    let series = INVERSE_FACTORIALS.iter().rev().fold(T::zero(), |sum, &term| (sum + T::from_f64(term)) * x);
    let near = x.abs() < T::from_f64(0.5);
    if near { series } else { x.fast_exp() - T::one() }
}

/// `out = f(gate) h(up)`.
pub fn gated<F: ActivationFn, T: Real>(f: F, gate: &[T], up: &[T], out: &mut [T]) {
    struct Gated<'x, F, T>(F, &'x [T], &'x [T], &'x mut [T]);
    impl<F: ActivationFn, T: Real> Multiversion for Gated<'_, F, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let Self(f, gate, up, out) = self;
            for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
                *out = f.value_and_derivative(gate).0 * f.multiplier_and_derivative(up).0;
            }
        }
    }
    Cpu::current().dispatch(Gated(f, gate, up, out));
}

/// From `d`, the gradient with respect to f(gate) h(up): replaces `gate` by the gradient with respect to gate,
/// and `d` by that with respect to up.
pub fn gated_backward<F: ActivationFn, T: Real>(f: F, gate: &mut [T], up: &[T], d: &mut [T]) {
    struct GatedBackward<'x, F, T>(F, &'x mut [T], &'x [T], &'x mut [T]);
    impl<F: ActivationFn, T: Real> Multiversion for GatedBackward<'_, F, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let Self(f, gate, up, d) = self;
            for ((gate, &up), d) in gate.iter_mut().zip(up).zip(d) {
                let (value, derivative) = f.value_and_derivative(*gate);
                let (multiplier, slope) = f.multiplier_and_derivative(up);
                let g = *d;
                *d = g * value * slope;
                *gate = g * multiplier * derivative;
            }
        }
    }
    Cpu::current().dispatch(GatedBackward(f, gate, up, d));
}

/// `out = f(x)`.
pub fn plain<F: ActivationFn, T: Real>(f: F, x: &[T], out: &mut [T]) {
    struct Plain<'x, F, T>(F, &'x [T], &'x mut [T]);
    impl<F: ActivationFn, T: Real> Multiversion for Plain<'_, F, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let Self(f, x, out) = self;
            out.iter_mut().zip(x).for_each(|(out, &x)| *out = f.value_and_derivative(x).0);
        }
    }
    Cpu::current().dispatch(Plain(f, x, out));
}

/// `d *= f'(x)`.
pub fn plain_backward<F: ActivationFn, T: Real>(f: F, x: &[T], d: &mut [T]) {
    struct PlainBackward<'x, F, T>(F, &'x [T], &'x mut [T]);
    impl<F: ActivationFn, T: Real> Multiversion for PlainBackward<'_, F, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let Self(f, x, d) = self;
            d.iter_mut().zip(x).for_each(|(d, &x)| *d *= f.value_and_derivative(x).1);
        }
    }
    Cpu::current().dispatch(PlainBackward(f, x, d));
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXACT_GELU: [(f64, f64); 14] = [
        (-6.5, -2.610_400_379_508_426_7e-10),
        (-4.25, -4.542_623_454_347_129e-5),
        (-3.0, -0.004_049_694_094_890_283_5),
        (-1.75, -0.070_103_524_511_679_91),
        (-1.0, -0.158_655_253_931_457_05),
        (-0.5, -0.154_268_769_362_993_44),
        (-0.0625, -0.029_692_645_685_672_047),
        (0.0625, 0.032_807_354_314_327_95),
        (0.5, 0.345_731_230_637_006_56),
        (1.0, 0.841_344_746_068_542_9),
        (1.75, 1.679_896_475_488_32),
        (3.0, 2.995_950_305_905_11),
        (4.25, 4.249_954_573_765_456),
        (6.5, 6.499_999_999_738_96),
    ];

    /// alpha_p, alpha_n, beta and eps.
    const XIELU: [f32; 4] = [0.75, -1.25, 0.625, -0.125];

    /// x, xIELU of it with these numbers, and the derivative: of transformers' `XIELUActivation` in float64.
    const OF_TRANSFORMERS: [(f64, f64, f64); 11] = [
        (-30.0, 6.680_943_359_015_895, -0.251_929_081_345_290_85),
        (-6.5, 0.761_928_356_949_908, -0.250_610_671_795_016_5),
        (-1.5, -0.303_366_132_967_905_04, -0.056_259_754_985_964_47),
        (-0.625, -0.250_087_092_713_744_74, 0.217_457_231_445_397_2),
        (-0.375, -0.179_751_719_972_166_93, 0.350_774_874_523_318_1),
        (-0.156_25, -0.087_487_970_276_403_02, 0.498_148_110_763_382_4),
        (-0.0625, -0.087_296_315_687_640_82, -0.251_929_081_345_372_95),
        (0.0, -0.103_041_883_271_726_63, -0.251_929_081_345_372_95),
        (0.031_25, 0.020_641_475_591_909_084, 0.696_054_437_882_181_4),
        (0.75, 1.108_239_940_939_631_3, 2.330_306_509_172_35),
        (4.25, 23.190_982_547_950_38, 10.288_403_551_976_65),
    ];

    fn slope_is_the_derivative<F: ActivationFn>(f: F, most: i32) {
        for i in -most..=most {
            // Between tenths: the squared ReLU bends at 0, and clamps at 7.
            let (x, h) = (f64::from(i) / 10.0 + 0.05, 1e-6);
            let found = f.value_and_derivative(x).1;
            let right = (f.value_and_derivative(x + h).0 - f.value_and_derivative(x - h).0) / (2.0 * h);
            assert!((found - right).abs() < 1e-8, "{x}: {found} {right}");
            let multiplier = |x| f.multiplier_and_derivative(x).0;
            let right = (multiplier(x + h) - multiplier(x - h)) / (2.0 * h);
            assert!((f.multiplier_and_derivative(x).1 - right).abs() < 1e-8, "{x}: {right}");
        }
    }

    #[test]
    fn slopes_are_derivatives() {
        slope_is_the_derivative(Silu, 60);
        slope_is_the_derivative(Sigmoid, 60);
        slope_is_the_derivative(Gelu, 60);
        slope_is_the_derivative(ExactGelu, 60);
        slope_is_the_derivative(SquaredRelu, 60);
        slope_is_the_derivative(ClampedSwiglu, 80);
        slope_is_the_derivative(Xielu::new(XIELU), 60);
    }

    /// Values of x, and of x Phi(x) with 17 digits, by mpmath.
    #[test]
    fn exact_gelu_is_x_times_phi() {
        for (x, right) in EXACT_GELU {
            let found = ExactGelu.value_and_derivative(x).0;
            // The rounding of x^2 counts in its exponential.
            assert!((found / right - 1.0).abs() < 1e-15 * (4.0 + x * x), "{x}: {found} {right}");
            let single = ExactGelu.value_and_derivative(x as f32).0;
            let most = 4e-7 * (1.0 + x * x);
            assert!((f64::from(single) / right - 1.0).abs() < most, "{x}: {single} {right}");
        }
        assert_eq!(
            (ExactGelu.value_and_derivative(0.0).0, ExactGelu.value_and_derivative(0.0).1),
            (0.0, 0.5)
        );
        assert!(ExactGelu.value_and_derivative(f64::NAN).0.is_nan());
    }

    #[test]
    fn xielu_is_that_of_transformers() {
        let xielu = Xielu::new(XIELU);
        for (x, value, slope) in OF_TRANSFORMERS {
            let found = xielu.value_and_derivative(x);
            for (found, right) in [(found.0, value), (found.1, slope)] {
                assert!(
                    (found - right).abs() < 1e-15 * (1.0 + right.abs() + x.abs()),
                    "{x}: {found} {right}"
                );
            }
            let single = xielu.value_and_derivative(x as f32);
            for (found, right) in [(single.0, value), (single.1, slope)] {
                let most = 3e-7 * (1.0 + right.abs() + x.abs());
                assert!((f64::from(found) - right).abs() < most, "{x}: {found} {right}");
            }
        }
        assert!(xielu.value_and_derivative(f64::NAN).0.is_nan());
    }

    #[test]
    fn exp_m1_is_exact_near_0() {
        for i in -80..=80 {
            for x in [f64::from(i) / 40.0 + 1e-3, f64::from(i) * 1e-7 + 1e-9] {
                let right = x.exp_m1();
                assert!((exp_m1(x) / right - 1.0).abs() < 6e-16, "{x}: {} {right}", exp_m1(x));
                let single = x as f32;
                let right = f64::from(single).exp_m1();
                assert!((f64::from(exp_m1(single)) / right - 1.0).abs() < 4e-7, "{x}");
            }
        }
    }

    #[test]
    fn gelu_is_the_tanh_formula() {
        for i in -50..=50 {
            let x = f64::from(i) / 7.0;
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            assert!((Gelu.value_and_derivative(x).0 - 0.5 * x * (1.0 + u.tanh())).abs() < 1e-14);
        }
    }
}
