//! Loops over vectors of numbers, compiled for the processor's level.
//!
//! Sums are taken in lanes of fixed number, and nothing is fused, so the results are the same bytes at every level.

use super::Real;
use super::cpu::{Cpu, Work};

/// Partial sums of a sum: as many as the widest vectors hold.
const LANES: usize = 16;

/// e to the power of x, within 2 units in the last place: the polynomial of Cephes' expf on what is left of x after
/// multiples of ln 2, without a branch, so that loops over it become SIMD.
#[inline(always)]
pub(super) fn exp_f32(x: f32) -> f32 {
    // Beyond these the result is 0 or infinite; NaN passes through both.
    let x = if x < -104.0 { -104.0 } else { x };
    let x = if x > 89.0 { 89.0 } else { x };
    // Added to a number, this leaves its nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts, of which the first times n is exact.
    let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1] {
        p = p * r + coefficient;
    }
    let p = p * (r * r) + r + 1.0;
    // In two steps, since 2^n alone may be too large or too small for a float where the result is not.
    let n = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let half = n >> 1;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    p * power(half) * power(n.wrapping_sub(half))
}

/// The hyperbolic tangent, within 3 units in the last place: Cephes' tanhf, its polynomial near 0, without a branch.
#[inline(always)]
pub(super) fn tanh_f32(x: f32) -> f32 {
    let z = x * x;
    let mut p = -5.704_988_7e-3;
    for coefficient in [2.063_908_8e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1] {
        p = p * z + coefficient;
    }
    let near = p * z * x + x;
    let far = (1.0 - 2.0 / (exp_f32(2.0 * x.abs()) + 1.0)).copysign(x);
    if x.abs() < 0.625 { near } else { far }
}

#[inline(always)]
pub(super) fn sigmoid<T: Real>(x: T) -> T {
    T::one() / (T::one() + (-x).fast_exp())
}

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

/// The sum of `term` over the numbers that stand at one place in three slices, in lanes.
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

/// The greatest of `start` and all numbers that are not NaN.
pub fn max<T: Real>(start: T, numbers: &[T]) -> T {
    struct Max<'x, T>(T, &'x [T]);
    impl<T: Real> Work for Max<'_, T> {
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
    Cpu::current().run(Max(start, numbers))
}

/// Turn every x into exp(factor x - shift); the sum of all.
pub fn exp_shifted<T: Real>(numbers: &mut [T], factor: T, shift: T) -> T {
    struct ExpShifted<'x, T>(&'x mut [T], T, T);
    impl<T: Real> Work for ExpShifted<'_, T> {
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
    Cpu::current().run(ExpShifted(numbers, factor, shift))
}

/// The inner product.
pub fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    struct Dot<'x, T>(&'x [T], &'x [T]);
    impl<T: Real> Work for Dot<'_, T> {
        type Output = T;

        #[inline(always)]
        fn run(self) -> T {
            let Self(a, b) = self;
            sum_over(a, b, b, |a, b, _| a * b)
        }
    }
    Cpu::current().run(Dot(a, b))
}

/// The sum of squares, in f64.
pub fn square_sum<T: Real>(x: &[T]) -> f64 {
    struct SquareSum<'x, T>(&'x [T]);
    impl<T: Real> Work for SquareSum<'_, T> {
        type Output = f64;

        #[inline(always)]
        fn run(self) -> f64 {
            let Self(x) = self;
            sum_over(x, x, x, |x, _, _| x.as_f64() * x.as_f64())
        }
    }
    Cpu::current().run(SquareSum(x))
}

/// `ds = p (ds - dot) scale`: the gradient to scores behind a softmax p.
pub fn softmax_backward<T: Real>(p: &[T], dot: T, scale: T, ds: &mut [T]) {
    struct SoftmaxBackward<'x, T>(&'x [T], T, T, &'x mut [T]);
    impl<T: Real> Work for SoftmaxBackward<'_, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let Self(p, dot, scale, ds) = self;
            ds.iter_mut().zip(p).for_each(|(ds, &p)| *ds = p * (*ds - dot) * scale);
        }
    }
    Cpu::current().run(SoftmaxBackward(p, dot, scale, ds));
}

/// `x *= factor`.
pub fn scale<T: Real>(x: &mut [T], factor: T) {
    struct Scale<'x, T>(&'x mut [T], T);
    impl<T: Real> Work for Scale<'_, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let Self(x, factor) = self;
            x.iter_mut().for_each(|x| *x *= factor);
        }
    }
    Cpu::current().run(Scale(x, factor));
}

/// `sum += x`.
pub fn add<T: Real>(sum: &mut [T], x: &[T]) {
    struct Add<'x, T>(&'x mut [T], &'x [T]);
    impl<T: Real> Work for Add<'_, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            self.0.iter_mut().zip(self.1).for_each(|(sum, &x)| *sum += x);
        }
    }
    Cpu::current().run(Add(sum, x));
}

/// The upper halves of f32 that are nearest, ties to even: bfloat16.
pub fn round<T: Real>(numbers: &[T], rounded: &mut [u16]) {
    struct Round<'x, T>(&'x [T], &'x mut [u16]);
    impl<T: Real> Work for Round<'_, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            for (rounded, x) in self.1.iter_mut().zip(self.0) {
                let bits = (x.as_f64() as f32).to_bits();
                let up = 0x7fff + ((bits >> 16) & 1);
                // Rounding up must not make a NaN infinite.
                let nan = bits & 0x7fff_ffff > 0x7f80_0000;
                *rounded =
                    if nan { (bits >> 16) as u16 | 0x40 } else { (bits.wrapping_add(up) >> 16) as u16 };
            }
        }
    }
    Cpu::current().run(Round(numbers, rounded));
}

/// What [`round`] left of numbers.
pub fn unround<T: Real>(rounded: &[u16], numbers: &mut [T]) {
    struct Unround<'x, T>(&'x [u16], &'x mut [T]);
    impl<T: Real> Work for Unround<'_, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            for (x, &rounded) in self.1.iter_mut().zip(self.0) {
                *x = T::from_f32(f32::from_bits(u32::from(rounded) << 16));
            }
        }
    }
    Cpu::current().run(Unround(rounded, numbers));
}

/// Turn each pair of neighbours by its angle, of which the cosine and sine are given; backwards with `sign` -1.
pub fn rotate<T: Real>(pairs: &mut [T], cos: &[T], sin: &[T], sign: T) {
    struct Rotate<'x, T>(&'x mut [T], &'x [T], &'x [T], T);
    impl<T: Real> Work for Rotate<'_, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let Self(pairs, cos, sin, sign) = self;
            for ((pair, &cos), &sin) in pairs.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
                let [a, b] = *pair;
                *pair = [a * cos - sign * b * sin, b * cos + sign * a * sin];
            }
        }
    }
    Cpu::current().run(Rotate(pairs, cos, sin, sign));
}

/// [`rotate`] where the two numbers of a pair stand half the length apart.
pub fn rotate_halves<T: Real>(head: &mut [T], cos: &[T], sin: &[T], sign: T) {
    struct RotateHalves<'x, T>(&'x mut [T], &'x [T], &'x [T], T);
    impl<T: Real> Work for RotateHalves<'_, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let Self(head, cos, sin, sign) = self;
            let (first, second) = head.split_at_mut(cos.len());
            for (((a, b), &cos), &sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                (*a, *b) = (*a * cos - sign * *b * sin, *b * cos + sign * *a * sin);
            }
        }
    }
    Cpu::current().run(RotateHalves(head, cos, sin, sign));
}

/// Turn every x into `cap tanh(factor x / cap)`.
pub fn soft_cap<T: Real>(x: &mut [T], factor: T, cap: T) {
    struct SoftCap<'x, T>(&'x mut [T], T, T);
    impl<T: Real> Work for SoftCap<'_, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let Self(x, factor, cap) = self;
            let inner = factor / cap;
            x.iter_mut().for_each(|x| *x = cap * (*x * inner).fast_tanh());
        }
    }
    Cpu::current().run(SoftCap(x, factor, cap));
}

/// From what [`soft_cap`] gave for a factor of 1, its derivatives there: `d *= 1 - (x / cap)^2`.
pub fn soft_cap_backward<T: Real>(capped: &[T], cap: T, d: &mut [T]) {
    struct SoftCapBackward<'x, T>(&'x [T], T, &'x mut [T]);
    impl<T: Real> Work for SoftCapBackward<'_, T> {
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
    Cpu::current().run(SoftCapBackward(capped, cap, d));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Units in the last place between a number and what it should be.
    fn ulps(found: f32, right: f64) -> f64 {
        let unit = f64::from((right as f32).abs().next_up() - (right as f32).abs());
        (f64::from(found) - right).abs() / unit
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let mut worst = 0.0f64;
        for i in 0..2_000_000 {
            let x = -104.0 + i as f32 * (192.7 / 2_000_000.0);
            worst = worst.max(ulps(exp_f32(x), f64::from(x).exp()));
        }
        assert!(worst < 2.0, "{worst}");
        assert_eq!(exp_f32(0.0), 1.0);
        assert_eq!(exp_f32(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp_f32(-1e9), 0.0);
        assert_eq!(exp_f32(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp_f32(88.8), f32::INFINITY);
        assert!(exp_f32(f32::NAN).is_nan());
    }

    #[test]
    fn tanh_is_within_three_units_in_the_last_place() {
        let mut worst = 0.0f64;
        for i in 0..2_000_000 {
            let x = -10.0 + i as f32 * 1e-5;
            worst = worst.max(ulps(tanh_f32(x), f64::from(x).tanh()));
        }
        assert!(worst < 3.0, "{worst}");
        assert_eq!((tanh_f32(0.0), tanh_f32(100.0), tanh_f32(-1e30)), (0.0, 1.0, -1.0));
        assert!(tanh_f32(f32::NAN).is_nan());
    }

    #[test]
    fn rounding_is_that_of_bfloat16() {
        let specials = [0.0, -0.0, f32::INFINITY, -1.5e-42, 3.4e38, 1.003_906_3, 1.011_718_8, -7.1];
        let numbers: Vec<f32> =
            specials.into_iter().chain((0..1000).map(|i| (i as f32 - 400.0) / 77.7)).collect();
        let mut rounded = vec![0; numbers.len()];
        round(&numbers, &mut rounded);
        let mut back = vec![0.0f32; numbers.len()];
        unround(&rounded, &mut back);
        for (x, back) in numbers.iter().zip(back) {
            assert_eq!(half::bf16::from_f32(*x).to_f32().to_bits(), back.to_bits(), "{x}");
        }
        round(&[f32::from_bits(0x7fff_ffff)], &mut rounded[..1]);
        assert!(half::bf16::from_bits(rounded[0]).is_nan());
    }

    #[test]
    fn every_level_gives_the_same_bytes() {
        let numbers: Vec<f32> = (0..1003).map(|i| ((i * 37) % 211) as f32 / 7.0 - 20.0).collect();
        struct All<'x>(&'x [f32]);
        impl Work for All<'_> {
            type Output = Vec<u32>;

            #[inline(always)]
            fn run(self) -> Vec<u32> {
                let mut out = self.0.to_vec();
                out.iter_mut().for_each(|x| *x = exp_f32(*x) + sigmoid(*x));
                out.push(sum_over(self.0, self.0, self.0, |a, b, c| a * b * c));
                out.into_iter().map(f32::to_bits).collect()
            }
        }
        let run = |cpu: Cpu| cpu.run(All(&numbers));
        for cpu in Cpu::available() {
            assert_eq!(run(cpu), run(Cpu::Portable), "{cpu:?}");
        }
    }

    #[test]
    fn sums_and_the_maximum_take_every_number() {
        for length in [0, 1, 15, 16, 17, 100] {
            let a: Vec<f64> = (0..length).map(|i| f64::from(i) - 3.0).collect();
            assert_eq!(dot(&a, &a), a.iter().map(|x| x * x).sum::<f64>());
            assert_eq!(square_sum(&a), a.iter().map(|x| x * x).sum::<f64>());
            assert_eq!(max(-2.5, &a), a.iter().fold(-2.5, |m, &x| x.max(m)));
        }
    }
}
