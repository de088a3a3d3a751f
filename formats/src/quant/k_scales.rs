//! The 12 bytes in which Q4_K and Q5_K store eight 6-bit scales and eight 6-bit minimums.
//!
//! Bytes 0-3 hold scales 0-3 and bytes 4-7 minimums 0-3, in their low six bits. Bytes 8-11 hold the low four
//! bits of scales 4-7 (low half) and minimums 4-7 (high half); their upper two bits are the top bits of bytes
//! 0-3 and 4-7. Source: `get_scale_min_k4` in ggml-quants.c.

/// Scales and minimums, each 0 to 63.
#[inline(always)]
pub(super) fn unpack(packed: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let (mut scales, mut minimums) = ([0; 8], [0; 8]);
    for j in 0..4 {
        scales[j] = packed[j] & 63;
        minimums[j] = packed[j + 4] & 63;
        scales[j + 4] = packed[j + 8] & 15 | packed[j] >> 6 << 4;
        minimums[j + 4] = packed[j + 8] >> 4 | packed[j + 4] >> 6 << 4;
    }
    (scales, minimums)
}

/// The inverse of [`unpack`]. Values are at most 63.
pub(super) fn pack(scales: &[u8; 8], minimums: &[u8; 8]) -> [u8; 12] {
    let mut packed = [0; 12];
    for j in 0..4 {
        packed[j] = scales[j] | scales[j + 4] >> 4 << 6;
        packed[j + 4] = minimums[j] | minimums[j + 4] >> 4 << 6;
        packed[j + 8] = scales[j + 4] & 15 | minimums[j + 4] << 4;
    }
    packed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_loses_nothing() {
        let scales = [0, 63, 17, 32, 63, 0, 48, 5];
        let minimums = [1, 2, 62, 33, 16, 15, 47, 63];
        assert_eq!(unpack(&pack(&scales, &minimums)), (scales, minimums));
    }
}
