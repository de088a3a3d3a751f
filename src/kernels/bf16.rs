//! Conversion between f32 and bfloat16, compiled for each CPU level.

use super::cpu::{Cpu, Multiversion};
use super::real::Real;

/// Rounds to bfloat16, the upper half of an f32: to nearest, ties to even.
pub fn to_bf16<T: Real>(numbers: &[T], rounded: &mut [u16]) {
    struct ToBf16<'x, T>(&'x [T], &'x mut [u16]);
    impl<T: Real> Multiversion for ToBf16<'_, T> {
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
    Cpu::current().dispatch(ToBf16(numbers, rounded));
}

/// Widens bfloat16, exactly.
pub fn from_bf16<T: Real>(rounded: &[u16], numbers: &mut [T]) {
    struct FromBf16<'x, T>(&'x [u16], &'x mut [T]);
    impl<T: Real> Multiversion for FromBf16<'_, T> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            for (x, &rounded) in self.1.iter_mut().zip(self.0) {
                *x = T::from_f32(f32::from_bits(u32::from(rounded) << 16));
            }
        }
    }
    Cpu::current().dispatch(FromBf16(rounded, numbers));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_bfloat16() {
        let specials = [0.0, -0.0, f32::INFINITY, -1.5e-42, 3.4e38, 1.003_906_3, 1.011_718_8, -7.1];
        let numbers: Vec<f32> =
            specials.into_iter().chain((0..1000).map(|i| (i as f32 - 400.0) / 77.7)).collect();
        let mut rounded = vec![0; numbers.len()];
        to_bf16(&numbers, &mut rounded);
        let mut back = vec![0.0f32; numbers.len()];
        from_bf16(&rounded, &mut back);
        for (x, back) in numbers.iter().zip(back) {
            assert_eq!(half::bf16::from_f32(*x).to_f32().to_bits(), back.to_bits(), "{x}");
        }
        to_bf16(&[f32::from_bits(0x7fff_ffff)], &mut rounded[..1]);
        assert!(half::bf16::from_bits(rounded[0]).is_nan());
    }
}
