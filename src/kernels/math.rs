//! Functions of one number in arithmetic that the compiler can vectorize, in place of calls of the C library.

/// e^x, within 2 units in the last place: the polynomial of Cephes' expf on the remainder of x after
/// multiples of ln 2. It has no branch, so loops over it vectorize.
#[inline(always)]
pub fn exp_f32(x: f32) -> f32 {
    // Beyond these the result is 0 or infinite; NaN passes through both.
    let x = if x < -104.0 { -104.0 } else { x };
    let x = if x > 89.0 { 89.0 } else { x };
    // Adding this to a number leaves its nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts; the first one times n is exact.
    let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1] {
        p = p * r + coefficient;
    }
    let p = p * (r * r) + r + 1.0;
    // In two steps: 2^n alone may overflow or underflow where the result does not.
    let n = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let half = n >> 1;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    p * power(half) * power(n.wrapping_sub(half))
}

/// The hyperbolic tangent, within 3 units in the last place: Cephes' tanhf, with its polynomial near 0. It
/// has no branch, so loops over it vectorize.
#[inline(always)]
pub fn tanh_f32(x: f32) -> f32 {
    let z = x * x;
    let mut p = -5.704_988_7e-3;
    for coefficient in [2.063_908_8e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1] {
        p = p * z + coefficient;
    }
    let near = p * z * x + x;
    let far = (1.0 - 2.0 / (exp_f32(2.0 * x.abs()) + 1.0)).copysign(x);
    if x.abs() < 0.625 { near } else { far }
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
}
