//! Blocks of 32 four-bit numbers in the layout of onnxruntime's MatMulNBits: number 2i is in the lower half
//! of byte i, and number 2i + 1 in the upper; a value is `scale * (number - zero)`. A byte holds two zero
//! points, and each row begins with a new byte.

use curmerge_formats::dtype::DType;
use curmerge_formats::quant::QuantError;

/// Rows of blocks.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Packed {
    /// 16 bytes per block.
    pub(super) numbers: Vec<u8>,
    /// One per block.
    pub(super) scales: Vec<f32>,
    /// Half a byte per block; empty if all are 8.
    pub(super) zero_points: Vec<u8>,
}

/// The values of ggml's Q4_0 blocks, which keep number i beside number i + 16 and whose zero point is 8.
pub(super) fn of_q4_0(stored: &[u8]) -> Packed {
    let blocks = stored.chunks_exact(DType::Q4_0.block_bytes());
    let mut packed = Packed { numbers: Vec::with_capacity(16 * blocks.len()), ..Packed::default() };
    for block in blocks {
        packed.scales.push(half::f16::from_le_bytes([block[0], block[1]]).to_f32());
        let mut numbers = [0; 16];
        for (i, &[even, odd]) in block[2..].as_chunks::<2>().0.iter().enumerate() {
            numbers[i] = even & 15 | odd << 4;
            numbers[i + 8] = even >> 4 | odd & 0xf0;
        }
        packed.numbers.extend(numbers);
    }
    packed
}

/// Values rounded to 16 evenly spaced levels, one of them zero, between the least and the greatest of each
/// block. `cols` is the length of a row.
///
/// # Errors
/// A value that is NaN or infinite.
pub(super) fn rounded(values: &[f32], cols: usize) -> Result<Packed, QuantError> {
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(QuantError::OutOfRange { dtype: DType::Q4_1, index, value: values[index] });
    }
    let mut packed = Packed::default();
    for row in values.chunks_exact(cols) {
        let mut zeros = Vec::with_capacity(cols / 32);
        for block in row.chunks_exact(32) {
            let least = block.iter().fold(0.0f32, |least, &x| least.min(x));
            let greatest = block.iter().fold(0.0f32, |greatest, &x| greatest.max(x));
            let scale = (greatest - least) / 15.0;
            // A block of zeros may have any scale; 1 keeps it finite.
            let scale = if scale > 0.0 { scale } else { 1.0 };
            let zero = (-least / scale).round().clamp(0.0, 15.0);
            let number = |x: f32| ((x / scale).round() + zero).clamp(0.0, 15.0) as u8;
            packed.numbers.extend(block.as_chunks::<2>().0.iter().map(|&[a, b]| number(a) | number(b) << 4));
            packed.scales.push(scale);
            zeros.push(zero as u8);
        }
        packed.zero_points.extend(zeros.chunks(2).map(|pair| pair[0] | pair.get(1).unwrap_or(&0) << 4));
    }
    Ok(packed)
}

impl Packed {
    /// The values that onnxruntime decodes from the blocks. `cols` is the length of a row.
    pub(super) fn values(&self, cols: usize) -> Vec<f32> {
        let blocks = cols / 32;
        let zero = |block: usize| match self
            .zero_points
            .get(block / blocks * blocks.div_ceil(2) + block % blocks / 2)
        {
            Some(pair) => pair >> (4 * (block % blocks % 2)) & 15,
            None => 8,
        };
        let numbers = self.numbers.as_chunks::<16>().0.iter().zip(&self.scales).enumerate();
        numbers
            .flat_map(|(block, (bytes, scale))| {
                let value = move |number: u8| *scale * (f32::from(number) - f32::from(zero(block)));
                bytes.iter().flat_map(move |byte| [value(byte & 15), value(byte >> 4)])
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use curmerge_formats::quant;

    use super::*;

    fn values() -> Vec<f32> {
        // Two rows of three blocks, one all zeros, one of positive numbers.
        let value = |i: usize| match i / 32 {
            1 => 0.0,
            2 => 1.0 + (i % 7) as f32,
            _ => (i as f32 * 0.7).sin() * 3.0 - 0.5,
        };
        (0..192).map(value).collect()
    }

    #[test]
    fn q4_0_keeps_its_values_bit_for_bit() {
        let mut stored = vec![0; 6 * DType::Q4_0.block_bytes()];
        quant::encode(DType::Q4_0, &values(), &mut stored).unwrap();
        let mut right = vec![0.0; 192];
        quant::decode(DType::Q4_0, &stored, &mut right).unwrap();
        let packed = of_q4_0(&stored);
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&packed.values(96)), bits(&right));
        assert_eq!((packed.numbers.len(), packed.scales.len(), packed.zero_points.len()), (96, 6, 0));
    }

    #[test]
    fn rounded_values_are_within_half_a_step() {
        let packed = rounded(&values(), 96).unwrap();
        assert_eq!(packed.zero_points.len(), 4, "a row of three blocks takes two bytes");
        for (i, (found, right)) in packed.values(96).iter().zip(values()).enumerate() {
            // Values and the zero point are rounded to whole steps separately. The ends of a block are 15
            // steps apart, and so are their numbers, unless both ends are halfway between two steps: then one
            // moves the other way.
            assert!((found - right).abs() <= packed.scales[i / 32] * 0.5001, "{found} for {right}");
        }
        assert!(packed.values(96)[32..64].iter().all(|&x| x == 0.0));
        // Both ends between two steps.
        let mut ends = [0.0; 32];
        (ends[0], ends[1]) = (-2.5, 12.5);
        assert_eq!(rounded(&ends, 32).unwrap().values(32)[..3], [-3.0, 12.0, 0.0]);
    }

    #[test]
    fn values_that_no_block_holds_are_refused() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = values();
            values[100] = value;
            let error = rounded(&values, 96).unwrap_err();
            assert!(matches!(error, QuantError::OutOfRange { index: 100, .. }), "{error}");
        }
    }
}
