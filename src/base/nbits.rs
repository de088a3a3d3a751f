//! Matrices in the form of onnxruntime's MatMulNBits: codes of 2, 4 or 8 bits in one tensor, a scale per
//! block in a second, and optionally a zero point per block in a third.
//!
//! A value is `(code - zero point) scale`. Codes are packed lowest bits first, and each row is a whole number
//! of blocks. Zero points are packed likewise, each row padded to whole bytes, or are floats
//! (<https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>).

use std::ops::Range;

use curmerge_formats::dtype::DType;
use curmerge_formats::quant;

use super::tensor::{NBitsTensors, StoredTensor, nbits_name};

/// The scales and zero points of a borrowed matrix.
#[derive(Clone, Copy, Debug)]
pub struct NBits<'a> {
    bits: usize,
    block_size: usize,
    blocks_per_row: usize,
    scale_dtype: DType,
    scales: &'a [u8],
    zeros: Option<(DType, &'a [u8])>,
}

impl<'a> NBits<'a> {
    /// For a matrix with `cols` columns. `bytes` gives the bytes of a stored tensor.
    pub(super) fn new(tensors: &NBitsTensors, cols: u64, bytes: impl Fn(&StoredTensor) -> &'a [u8]) -> Self {
        Self {
            bits: tensors.bits,
            block_size: tensors.block_size,
            blocks_per_row: cols.div_ceil(tensors.block_size as u64) as usize,
            scale_dtype: tensors.scales.dtype,
            scales: bytes(&tensors.scales),
            zeros: tensors.zero_points.as_ref().map(|zeros| (zeros.dtype, bytes(zeros))),
        }
    }

    /// Bits of a code.
    pub fn bits(&self) -> usize {
        self.bits
    }

    /// Columns of a block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// The type of the scales.
    pub fn scale_dtype(&self) -> DType {
        self.scale_dtype
    }

    /// The type of the zero points, if there are any; [`DType::U8`] means packed codes.
    pub fn zero_dtype(&self) -> Option<DType> {
        self.zeros.map(|(dtype, _)| dtype)
    }

    /// The stored scales of a stored row.
    pub fn stored_scales(&self, row: usize) -> &'a [u8] {
        let width = self.scale_row_bytes();
        &self.scales[row * width..][..width]
    }

    /// The stored zero points of a stored row; empty if there are none.
    pub fn stored_zero_points(&self, row: usize) -> &'a [u8] {
        self.zeros.map_or(&[], |(dtype, bytes)| {
            let width = self.zero_row_bytes(dtype);
            &bytes[row * width..][..width]
        })
    }

    /// The form's name in reports and adapters.
    pub fn name(&self) -> String {
        nbits_name(self.bits, self.block_size)
    }

    /// The scales and zero points of these stored rows.
    pub(super) fn of_rows(&self, rows: Range<usize>) -> Self {
        let part = |bytes: &'a [u8], row: usize| &bytes[rows.start * row..rows.end * row];
        Self {
            scales: part(self.scales, self.scale_row_bytes()),
            zeros: self.zeros.map(|(dtype, bytes)| (dtype, part(bytes, self.zero_row_bytes(dtype)))),
            ..*self
        }
    }

    fn scale_row_bytes(&self) -> usize {
        self.blocks_per_row * self.scale_dtype.block_bytes()
    }

    fn zero_row_bytes(&self, dtype: DType) -> usize {
        match dtype {
            DType::U8 => (self.blocks_per_row * self.bits).div_ceil(8),
            float => self.blocks_per_row * float.block_bytes(),
        }
    }

    /// The stored bytes of the scales and of the zero points.
    pub(super) fn stored_bytes(&self) -> [&'a [u8]; 2] {
        [self.scales, self.zeros.map_or(&[], |(_, bytes)| bytes)]
    }

    /// Decodes the scales of a stored row, one per block.
    pub fn scales_of(&self, row: usize, out: &mut [f32]) {
        quant::decode(self.scale_dtype, self.stored_scales(row), out).expect(CHECKED);
    }

    /// Decodes the zero points of a stored row, one per block; `2^(bits - 1)` where none are stored.
    pub fn zero_points_of(&self, row: usize, out: &mut [f32]) {
        match self.zeros {
            None => out.fill((1u32 << (self.bits - 1)) as f32),
            Some((DType::U8, _)) => unpack(self.bits, self.stored_zero_points(row), out),
            Some((float, _)) => quant::decode(float, self.stored_zero_points(row), out).expect(CHECKED),
        }
    }

    /// Decodes the codes of a stored row.
    pub(super) fn decode_row(&self, row: usize, codes: &[u8], out: &mut [f32]) {
        let (mut scales, mut zeros) = (vec![0.0; self.blocks_per_row], vec![0.0; self.blocks_per_row]);
        self.scales_of(row, &mut scales);
        self.zero_points_of(row, &mut zeros);
        let blocks = codes.chunks_exact(self.block_size * self.bits / 8).zip(out.chunks_mut(self.block_size));
        for ((codes, out), (scale, zero)) in blocks.zip(scales.into_iter().zip(zeros)) {
            unpack(self.bits, codes, out);
            out.iter_mut().for_each(|value| *value = (*value - zero) * scale);
        }
    }
}

const CHECKED: &str = "opening the model checked types and lengths";

/// Packs integers into codes, the inverse of [`unpack`]. Unused high bits of the last byte are zero.
pub fn pack(bits: usize, values: &[f32], codes: &mut [u8]) {
    for (code, values) in codes.iter_mut().zip(values.chunks(8 / bits)) {
        *code = values.iter().enumerate().fold(0, |byte, (i, &value)| byte | (value as u8) << (i * bits));
    }
}

/// Unpacks codes into numbers, the lowest bits of each byte first.
pub fn unpack(bits: usize, codes: &[u8], out: &mut [f32]) {
    match bits {
        2 => unpack_bits::<2, 4>(codes, out),
        4 => unpack_bits::<4, 2>(codes, out),
        _ => unpack_bits::<8, 1>(codes, out),
    }
}

fn unpack_bits<const BITS: usize, const A_BYTE: usize>(codes: &[u8], out: &mut [f32]) {
    let code = |byte: u8, i: usize| f32::from(byte >> (i * BITS) & ((1u32 << BITS) - 1) as u8);
    let whole = out.len() / A_BYTE;
    let (out, rest) = out.as_chunks_mut::<A_BYTE>();
    for (out, &byte) in out.iter_mut().zip(codes) {
        for (i, out) in out.iter_mut().enumerate() {
            *out = code(byte, i);
        }
    }
    if let Some(&byte) = codes.get(whole) {
        rest.iter_mut().enumerate().for_each(|(i, out)| *out = code(byte, i));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(dtype: DType) -> StoredTensor {
        StoredTensor { stored_name: String::new(), dtype, file: 0, offset: 0, bytes: 0 }
    }

    #[test]
    fn values_are_code_less_zero_point_times_scale() {
        // Two rows of 20 columns: two blocks of 16 each, the second padded.
        let tensors =
            |zeros| NBitsTensors { bits: 4, block_size: 16, scales: stored(DType::F32), zero_points: zeros };
        let scales: Vec<u8> = [1f32, 2.0, 0.5, -1.0].iter().flat_map(|s| s.to_le_bytes()).collect();
        let codes: Vec<u8> = (0..16).map(|i| i | (15 - i) << 4).collect();
        let plain = NBits::new(&tensors(None), 20, |_| &scales);
        let mut out = [0.0; 20];
        plain.decode_row(0, &codes, &mut out);
        assert_eq!(out[..4], [-8.0, 7.0, -7.0, 6.0]);
        assert_eq!(out[16..], [0.0, -2.0, 2.0, -4.0]);

        let zeros = [0x31u8, 0x0f];
        let bytes = |s: &StoredTensor| if s.dtype == DType::U8 { &zeros[..] } else { &scales[..] };
        let packed = NBits::new(&tensors(Some(stored(DType::U8))), 20, bytes);
        packed.of_rows(1..2).decode_row(0, &codes, &mut out);
        assert_eq!(out[..4], [-7.5, 0.0, -7.0, -0.5]);
        assert_eq!(out[16], -8.0);
    }

    #[test]
    fn codes_of_every_width_are_packed_lowest_bits_first() {
        let mut out = [0.0; 4];
        unpack(2, &[0b11_10_01_00], &mut out);
        assert_eq!(out, [0.0, 1.0, 2.0, 3.0]);
        unpack(8, &[1, 128, 255, 7], &mut out);
        assert_eq!(out, [1.0, 128.0, 255.0, 7.0]);
        for bits in [2, 4, 8] {
            let codes: Vec<u8> = (0..16).map(|i| i * 17).collect();
            let (mut values, mut packed) = (vec![0.0; 128 / bits], vec![0; 16]);
            unpack(bits, &codes, &mut values);
            pack(bits, &values, &mut packed);
            assert_eq!(packed, codes);
        }
    }
}
