//! Searches for the scale of one sub-block that minimizes the weighted squared error, as ggml's reference
//! does.
//!
//! Source: `nearest_int`, `make_qx_quants`, `make_q3_quants`, `make_qkx2_quants`, `make_qkx3_quants` and
//! `make_qp_quants` in ggml-quants.c. Sums run in single precision from the first value to the last, because
//! another order would round differently.

/// A sub-block whose greatest magnitude is below this is stored as zeros.
pub(super) const NEGLIGIBLE: f32 = 1e-15;

/// Adding 1.5 * 2^23 to a number below 2^22 leaves its nearest integer, ties to even, in the low bits of the
/// significand.
const ROUNDER: f32 = 12_582_912.0;

/// The nearest integer, ties to even.
#[inline(always)]
pub(super) fn nearest_int(value: f32) -> i32 {
    let bits = (value + ROUNDER).to_bits() & 0x007f_ffff;
    bits as i32 - 0x0040_0000
}

/// The value of greatest magnitude, with its sign; the first of equals. `None` if all are negligible.
pub(super) fn extreme<const N: usize>(x: &[f32; N]) -> Option<f32> {
    let (mut magnitude, mut extreme) = (0f32, 0f32);
    for &x in x {
        if x.abs() > magnitude {
            (magnitude, extreme) = (x.abs(), x);
        }
    }
    (magnitude >= NEGLIGIBLE).then_some(extreme)
}

/// What [`symmetric_scale`] finds: `x[i] ~ scale * (levels[i] - half)`.
pub(super) struct Symmetric<const N: usize> {
    pub(super) scale: f32,
    pub(super) levels: [u8; N],
}

/// The scale for levels `0..2 * half`. The error of `x[i]` has the weight `weights[i]`. `None` if the weights
/// are so large that sums overflow.
pub(super) fn symmetric_scale<const N: usize>(
    half: u8,
    x: &[f32; N],
    weights: &[f32; N],
) -> Option<Symmetric<N>> {
    /// The scale at which the extreme has the last level, and 9 steps on either side.
    const TRIES: usize = 19;
    /// One more, which is ignored, to fill the SIMD registers.
    const LANES: usize = TRIES + 1;
    let Some(extreme) = extreme(x) else {
        return Some(Symmetric { scale: 0.0, levels: [0; N] });
    };
    let half = f32::from(half);
    let mut inverses = [-half / extreme; LANES];
    for (inverse, step) in inverses[1..].iter_mut().zip((-9i8..=9).filter(|&step| step != 0)) {
        *inverse = -(half + 0.1 * f32::from(step)) / extreme;
    }
    // All tries run side by side as SIMD, so that each can still sum in order. No level is far from the
    // range, so rounding and clamping floats gives the same as `nearest_int`.
    let level = |inverse: f32, x: f32| (inverse * x + ROUNDER - ROUNDER).clamp(-half, half - 1.0);
    let (mut with_x, mut with_l) = ([0f32; LANES], [0f32; LANES]);
    for (&x, &w) in x.iter().zip(weights) {
        for ((inverse, with_x), with_l) in inverses.iter().zip(&mut with_x).zip(&mut with_l) {
            let l = level(*inverse, x);
            *with_x += w * x * l;
            *with_l += w * l * l;
        }
    }
    let mut best_inverse = inverses[0];
    let mut scale = if with_l[0] != 0.0 { with_x[0] / with_l[0] } else { 0.0 };
    let mut best = scale * with_x[0];
    for ((&inverse, &with_x), &with_l) in inverses.iter().zip(&with_x).zip(&with_l).take(TRIES).skip(1) {
        if with_l > 0.0 && with_x * with_x > best * with_l {
            scale = with_x / with_l;
            best = scale * with_x;
            best_inverse = inverse;
        }
    }
    let levels = x.map(|x| (level(best_inverse, x) + half) as u8);
    scale.is_finite().then_some(Symmetric { scale, levels })
}

/// The scale for levels `0..2 * half`. The error of `x[i]` has the weight `x[i]^2`. The search moves one
/// level at a time while that reduces the error, for at most five rounds.
pub(super) fn symmetric_descent<const N: usize>(half: u8, x: &[f32; N]) -> Option<Symmetric<N>> {
    let Some(extreme) = extreme(x) else {
        return Some(Symmetric { scale: 0.0, levels: [0; N] });
    };
    let half = i32::from(half);
    let within = |level: i32| level.clamp(-half, half - 1) as f32;
    let inverse = -half as f32 / extreme;
    let mut levels = x.map(|x| within(nearest_int(inverse * x)));
    let (mut with_x, mut with_l) = (0f32, 0f32);
    for (&x, &l) in x.iter().zip(&levels) {
        let w = x * x;
        with_x += w * x * l;
        with_l += w * l * l;
    }
    for _ in 0..5 {
        let mut moved = false;
        for (&x, l) in x.iter().zip(&mut levels) {
            let w = x * x;
            let mut others_x = with_x - w * x * *l;
            if others_x > 0.0 {
                let mut others_l = with_l - w * *l * *l;
                let new = within(nearest_int(x * others_l / others_x));
                if new != *l {
                    others_x += w * x * new;
                    others_l += w * new * new;
                    if others_l > 0.0 && others_x * others_x * with_l > with_x * with_x * others_l {
                        (*l, with_x, with_l) = (new, others_x, others_l);
                        moved = true;
                    }
                }
            }
        }
        if !moved {
            break;
        }
    }
    let scale = if with_l > 0.0 { with_x / with_l } else { 0.0 };
    let levels = levels.map(|l| (l as i32 + half) as u8);
    scale.is_finite().then_some(Symmetric { scale, levels })
}

/// What [`affine_scales`] finds: `x[i] ~ scale * levels[i] - minimum`.
pub(super) struct Affine<const N: usize> {
    pub(super) scale: f32,
    /// How far the lowest level is below zero; not negative.
    pub(super) minimum: f32,
    pub(super) levels: [u8; N],
}

/// The error that is minimized.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Least {
    Squares,
    Magnitudes,
}

/// The inverse scales tried: `(first + step * k + top) / (greatest - minimum)` for k from 0 to `steps`.
pub(super) struct Tries {
    pub(super) first: f32,
    pub(super) step: f32,
    pub(super) steps: u32,
    pub(super) least: Least,
    /// Whether a level is clamped before it is rounded. If not, a level beyond 2^22 wraps around. Levels that
    /// large arise when the minimum comes near the greatest value.
    pub(super) bounded: bool,
}

/// What every type tries with an importance matrix.
pub(super) const IMPORTANCE_TRIES: Tries =
    Tries { first: -0.9, step: 0.05, steps: 36, least: Least::Squares, bounded: true };

/// The scale and minimum of each sub-block for levels `0..=top`. The error of `x[j][i]` has the weight
/// `weights[j][i]`.
pub(super) fn affine_scales<const N: usize>(
    top: u8,
    x: &[[f32; N]],
    weights: &[[f32; N]],
    tries: &Tries,
) -> Vec<Affine<N>> {
    let ((eights, rest), (weight_eights, weight_rest)) = (x.as_chunks::<8>(), weights.as_chunks::<8>());
    let mut fits = Vec::with_capacity(x.len());
    for (x, weights) in eights.iter().zip(weight_eights) {
        fits.extend(affine_side_by_side(top, x, weights, tries));
    }
    for (x, weights) in rest.iter().zip(weight_rest) {
        fits.extend(affine_side_by_side(top, &[*x], &[*weights], tries));
    }
    fits
}

/// [`affine_scales`] of `L` sub-blocks, one a SIMD lane, so that each can still sum in order.
fn affine_side_by_side<const L: usize, const N: usize>(
    top: u8,
    x: &[[f32; N]; L],
    weights: &[[f32; N]; L],
    tries: &Tries,
) -> [Affine<N>; L] {
    let across = |subs: &[[f32; N]; L]| -> [[f32; L]; N] {
        std::array::from_fn(|i| std::array::from_fn(|lane| subs[lane][i]))
    };
    let (x, weights) = (across(x), across(weights));
    let (mut least, mut greatest) = (x[0], x[0]);
    let mut sum_w = weights[0];
    let mut sum_x: [f32; L] = std::array::from_fn(|lane| sum_w[lane] * x[0][lane]);
    for (x, w) in x.iter().zip(&weights).skip(1) {
        for lane in 0..L {
            least[lane] = if x[lane] < least[lane] { x[lane] } else { least[lane] };
            greatest[lane] = if x[lane] > greatest[lane] { x[lane] } else { greatest[lane] };
            sum_w[lane] += w[lane];
            sum_x[lane] += w[lane] * x[lane];
        }
    }
    // The minimum is stored without a sign and subtracted, so it cannot lie above zero.
    for least in &mut least {
        *least = if *least > 0.0 { 0.0 } else { *least };
    }
    let errors = |scale: &[f32; L], minimum: &[f32; L], levels: &[[f32; L]; N]| {
        let mut sums = [0f32; L];
        for ((l, x), w) in levels.iter().zip(&x).zip(&weights) {
            for lane in 0..L {
                let difference = scale[lane] * l[lane] + minimum[lane] - x[lane];
                let error = match tries.least {
                    Least::Squares => difference * difference,
                    Least::Magnitudes => difference.abs(),
                };
                sums[lane] += w[lane] * error;
            }
        }
        sums
    };
    let top = f32::from(top);
    let (mut scale, mut minimum, mut levels) = ([0f32; L], least, [[0f32; L]; N]);
    for lane in 0..L {
        let inverse = top / (greatest[lane] - least[lane]);
        scale[lane] = 1.0 / inverse;
        for (level, x) in levels.iter_mut().zip(&x) {
            level[lane] = level_at(inverse * (x[lane] - least[lane]), top);
        }
    }
    let mut best = errors(&scale, &minimum, &levels);
    for k in 0..=tries.steps {
        let span = tries.first + tries.step * k as f32 + top;
        // The span begins at the best minimum so far, not at the least value: the reference keeps both in one
        // variable.
        let inverse: [f32; L] = std::array::from_fn(|lane| span / (greatest[lane] - minimum[lane]));
        let mut tried = [[0f32; L]; N];
        let (mut sum_l, mut sum_l2, mut sum_xl) = ([0f32; L], [0f32; L], [0f32; L]);
        for ((tried, x), w) in tried.iter_mut().zip(&x).zip(&weights) {
            for lane in 0..L {
                let place = inverse[lane] * (x[lane] - minimum[lane]);
                let l = if tries.bounded { bounded_level(place, top) } else { level_at(place, top) };
                tried[lane] = l;
                sum_l[lane] += w[lane] * l;
                sum_l2[lane] += w[lane] * l * l;
                sum_xl[lane] += w[lane] * l * x[lane];
            }
        }
        let (mut tried_scale, mut tried_minimum, mut sound) = ([0f32; L], [0f32; L], [false; L]);
        for lane in 0..L {
            let (sum_l, sum_l2, sum_xl) = (sum_l[lane], sum_l2[lane], sum_xl[lane]);
            let determinant = sum_w[lane] * sum_l2 - sum_l * sum_l;
            sound[lane] = determinant > 0.0;
            tried_scale[lane] = (sum_w[lane] * sum_xl - sum_x[lane] * sum_l) / determinant;
            tried_minimum[lane] = (sum_l2 * sum_x[lane] - sum_l * sum_xl) / determinant;
            if tried_minimum[lane] > 0.0 {
                (tried_scale[lane], tried_minimum[lane]) = (sum_xl / sum_l2, 0.0);
            }
        }
        let tried_errors = errors(&tried_scale, &tried_minimum, &tried);
        for lane in 0..L {
            if sound[lane] && tried_errors[lane] < best[lane] {
                best[lane] = tried_errors[lane];
                scale[lane] = tried_scale[lane];
                minimum[lane] = tried_minimum[lane];
                for (level, tried) in levels.iter_mut().zip(&tried) {
                    level[lane] = tried[lane];
                }
            }
        }
    }
    std::array::from_fn(|lane| {
        if greatest[lane] <= least[lane] {
            return Affine { scale: 0.0, minimum: -least[lane], levels: [0; N] };
        }
        let levels = std::array::from_fn(|i| levels[i][lane] as u8);
        Affine { scale: scale[lane], minimum: -minimum[lane], levels }
    })
}

/// The nearest of the levels `0..=top`; an arbitrary one if `|x|` exceeds 2^22.
#[inline(always)]
fn level_at(place: f32, top: f32) -> f32 {
    (nearest_int(place) as f32).clamp(0.0, top)
}

/// The nearest of the levels `0..=top`; 0 for NaN.
#[inline(always)]
fn bounded_level(place: f32, top: f32) -> f32 {
    let place = if place > 0.0 { place } else { 0.0 };
    (if place < top { place } else { top }) + ROUNDER - ROUNDER
}

/// What [`positive_scale`] finds: `x[i] ~ scale * levels[i]`.
pub(super) struct Positive<const N: usize> {
    pub(super) scale: f32,
    pub(super) levels: [u8; N],
}

/// The scale for levels `0..=top` of numbers that are not negative, except by rounding errors. The error of
/// `x[i]` has the weight `weights[i]`. `None` if the weights are so large that sums overflow.
///
/// A negative number gets a negative level, which wraps around to 256 more, as in the reference.
pub(super) fn positive_scale<const N: usize>(
    top: u8,
    x: &[f32; N],
    weights: &[f32; N],
) -> Option<Positive<N>> {
    let greatest = x.iter().fold(0f32, |greatest, &x| if greatest > x { greatest } else { x });
    if greatest < NEGLIGIBLE {
        return Some(Positive { scale: 0.0, levels: [0; N] });
    }
    let level = |inverse: f32, x: f32| nearest_int(inverse * x).min(top.into());
    let error = |scale: f32, level: &dyn Fn(f32) -> f32| {
        let mut sum = 0f32;
        for (&x, &w) in x.iter().zip(weights) {
            let difference = x - scale * level(x);
            sum += w * difference * difference;
        }
        sum
    };
    let mut best_inverse = f32::from(top) / greatest;
    let mut best = error(1.0 / best_inverse, &|x| f32::from(nearest_int(best_inverse * x) as u8));
    for step in (-4i8..=4).filter(|&step| step != 0) {
        let inverse = (0.1 * f32::from(step) + f32::from(top)) / greatest;
        let tried = error(1.0 / inverse, &|x| level(inverse, x) as f32);
        if tried < best {
            (best, best_inverse) = (tried, inverse);
        }
    }
    let mut levels = [0u8; N];
    let (mut with_x, mut with_l) = (0f32, 0f32);
    for ((&x, &w), stored) in x.iter().zip(weights).zip(&mut levels) {
        let l = level(best_inverse, x);
        *stored = l as u8;
        with_x += w * x * l as f32;
        with_l += w * l as f32 * l as f32;
    }
    for _ in 0..5 {
        let mut moved = false;
        for ((&x, &w), stored) in x.iter().zip(weights).zip(&mut levels) {
            let l = f32::from(*stored);
            let mut others_x = with_x - w * x * l;
            let mut others_l = with_l - w * l * l;
            if others_x > 0.0 && others_l > 0.0 {
                let new = nearest_int(x * others_l / others_x).min(top.into());
                if new != i32::from(*stored) {
                    others_x += w * x * new as f32;
                    others_l += w * new as f32 * new as f32;
                    if others_x * others_x * with_l > with_x * with_x * others_l {
                        (*stored, with_x, with_l) = (new as u8, others_x, others_l);
                        moved = true;
                    }
                }
            }
        }
        if !moved {
            break;
        }
    }
    let scale = if with_l > 0.0 { with_x / with_l } else { 0.0 };
    (with_x.is_finite() && with_l.is_finite() && scale.is_finite()).then_some(Positive { scale, levels })
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
