//! Rotations of rotary position embeddings (RoPE), compiled for each CPU level.

use super::cpu::{Cpu, Multiversion};
use super::real::Real;

/// Rotates each pair of adjacent entries by its angle, given by cosine and sine; with `sign` -1 by the
/// opposite angle.
pub fn rotate_interleaved<T: Real>(pairs: &mut [T], cos: &[T], sin: &[T], sign: T) {
    struct RotateInterleaved<'x, T>(&'x mut [T], &'x [T], &'x [T], T);
    impl<T: Real> Multiversion for RotateInterleaved<'_, T> {
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
    Cpu::current().dispatch(RotateInterleaved(pairs, cos, sin, sign));
}

/// [`rotate_interleaved`] with pairs of entries half the length apart.
pub fn rotate_half<T: Real>(head: &mut [T], cos: &[T], sin: &[T], sign: T) {
    struct RotateHalf<'x, T>(&'x mut [T], &'x [T], &'x [T], T);
    impl<T: Real> Multiversion for RotateHalf<'_, T> {
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
    Cpu::current().dispatch(RotateHalf(head, cos, sin, sign));
}
