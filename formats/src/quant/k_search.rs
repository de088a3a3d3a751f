//! The search for the scale of one sub-block that makes the weighted squared error least, as ggml's reference has it.
//!
//! Source: `nearest_int`, `make_qx_quants` and `make_qkx2_quants` in ggml-quants.c. Sums run in single precision from
//! the first value to the last: another order would round another way.

/// Sub-blocks whose greatest magnitude is below this are stored as zeros.
pub(super) const NEGLIGIBLE: f32 = 1e-15;

/// The nearest integer, ties to even: adding 1.5 * 2^23 leaves it in the low bits of the significand.
#[inline(always)]
pub(super) fn nearest_int(value: f32) -> i32 {
    let bits = (value + 12_582_912.0).to_bits() & 0x007f_ffff;
    bits as i32 - 0x0040_0000
}

/// What [`symmetric_scale`] finds: `x[i] ~ scale * (levels[i] - half)`.
pub(super) struct Symmetric<const N: usize> {
    pub(super) scale: f32,
    pub(super) levels: [u8; N],
}

/// The scale for levels `0..2 * half` with the error of `x[i]` weighted by `x[i]^2`.
pub(super) fn symmetric_scale<const N: usize>(half: i32, x: &[f32; N]) -> Symmetric<N> {
    let (mut magnitude, mut extreme) = (0f32, 0f32);
    for &x in x {
        if x.abs() > magnitude {
            (magnitude, extreme) = (x.abs(), x);
        }
    }
    if magnitude < NEGLIGIBLE {
        return Symmetric { scale: 0.0, levels: [0; N] };
    }
    let level = |inverse: f32, x: f32| nearest_int(inverse * x).clamp(-half, half - 1);
    let sums = |inverse: f32| {
        let (mut with_x, mut with_l) = (0f32, 0f32);
        for &x in x {
            let l = level(inverse, x) as f32;
            let w = x * x;
            with_x += w * x * l;
            with_l += w * l * l;
        }
        (with_x, with_l)
    };
    let mut best_inverse = -half as f32 / extreme;
    let (with_x, with_l) = sums(best_inverse);
    let mut scale = if with_l != 0.0 { with_x / with_l } else { 0.0 };
    let mut best = scale * with_x;
    for step in (-9..=9).filter(|&step| step != 0) {
        let inverse = -(half as f32 + 0.1 * step as f32) / extreme;
        let (with_x, with_l) = sums(inverse);
        if with_l > 0.0 && with_x * with_x > best * with_l {
            scale = with_x / with_l;
            best = scale * with_x;
            best_inverse = inverse;
        }
    }
    Symmetric { scale, levels: x.map(|x| (level(best_inverse, x) + half) as u8) }
}

/// What [`affine_scale`] finds: `x[i] ~ scale * levels[i] - minimum`.
pub(super) struct Affine<const N: usize> {
    pub(super) scale: f32,
    /// Not negative: how far the lowest level lies below zero.
    pub(super) minimum: f32,
    pub(super) levels: [u8; N],
}

/// The inverse scales tried: `(first + step * k + top) / (greatest - minimum)` for k from 0 to `steps`.
pub(super) struct Tries {
    pub(super) first: f32,
    pub(super) step: f32,
    pub(super) steps: u32,
}

/// Scale and minimum for levels `0..=top` with the error of `x[i]` weighted by `weights[i]`.
pub(super) fn affine_scale<const N: usize>(
    top: u8,
    x: &[f32; N],
    weights: &[f32; N],
    tries: &Tries,
) -> Affine<N> {
    let (mut least, mut greatest) = (x[0], x[0]);
    let mut sum_w = weights[0];
    let mut sum_x = sum_w * x[0];
    for (&x, &w) in x.iter().zip(weights).skip(1) {
        least = if x < least { x } else { least };
        greatest = if x > greatest { x } else { greatest };
        sum_w += w;
        sum_x += w * x;
    }
    // The minimum is stored without a sign, to be taken off.
    if least > 0.0 {
        least = 0.0;
    }
    if greatest == least {
        return Affine { scale: 0.0, minimum: -least, levels: [0; N] };
    }
    let levels_for = |inverse: f32, minimum: f32| {
        x.map(|x| nearest_int(inverse * (x - minimum)).clamp(0, top.into()) as u8)
    };
    let error = |scale: f32, minimum: f32, levels: &[u8; N]| {
        let mut sum = 0f32;
        for ((&l, &x), &w) in levels.iter().zip(x).zip(weights) {
            let difference = scale * f32::from(l) + minimum - x;
            sum += w * (difference * difference);
        }
        sum
    };
    let inverse = f32::from(top) / (greatest - least);
    let (mut scale, mut minimum) = (1.0 / inverse, least);
    let mut levels = levels_for(inverse, minimum);
    let mut best = error(scale, minimum, &levels);
    for k in 0..=tries.steps {
        // From the best minimum so far, not from the least value: the reference keeps both in one variable.
        let inverse = (tries.first + tries.step * k as f32 + f32::from(top)) / (greatest - minimum);
        let tried = levels_for(inverse, minimum);
        let (mut sum_l, mut sum_l2, mut sum_xl) = (0f32, 0f32, 0f32);
        for ((&l, &x), &w) in tried.iter().zip(x).zip(weights) {
            let l = f32::from(l);
            sum_l += w * l;
            sum_l2 += w * l * l;
            sum_xl += w * l * x;
        }
        let determinant = sum_w * sum_l2 - sum_l * sum_l;
        if determinant > 0.0 {
            let mut tried_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
            let mut tried_minimum = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
            if tried_minimum > 0.0 {
                tried_minimum = 0.0;
                tried_scale = sum_xl / sum_l2;
            }
            let tried_error = error(tried_scale, tried_minimum, &tried);
            if tried_error < best {
                (best, scale, minimum, levels) = (tried_error, tried_scale, tried_minimum, tried);
            }
        }
    }
    Affine { scale, minimum: -minimum, levels }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_int_takes_halves_to_even() {
        let found = [-2.5f32, -1.5, -0.5, 0.5, 1.5, 2.5, 3.49].map(nearest_int);
        assert_eq!(found, [-2, -2, 0, 0, 2, 2, 3]);
    }
}
