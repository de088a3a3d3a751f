//! The codebooks of the IQ1 to IQ3 types: points of the E8 and D4 lattices, and the sign patterns that go
//! with them.
//!
//! The `.bin` files are the points of the tables `iq1s_grid` to `iq3s_grid` in ggml-common.h, two bytes a
//! point. A coordinate is the index of its level. `make.py` made the files.

/// Coordinates of IQ1_S and IQ1_M.
pub(super) static IQ1: [[i8; 8]; 2048] = points(include_bytes!("iq1_s.bin"), &[-1, 0, 1, 0]);
/// Magnitudes of IQ2_XXS.
pub(super) static IQ2_XXS: [[i8; 8]; 256] = points(include_bytes!("iq2_xxs.bin"), &IQ2_LEVELS);
/// Magnitudes of IQ2_XS.
pub(super) static IQ2_XS: [[i8; 8]; 512] = points(include_bytes!("iq2_xs.bin"), &IQ2_LEVELS);
/// Magnitudes of IQ2_S.
pub(super) static IQ2_S: [[i8; 8]; 1024] = points(include_bytes!("iq2_s.bin"), &IQ2_LEVELS);
/// Magnitudes of IQ3_XXS.
pub(super) static IQ3_XXS: [[i8; 4]; 256] =
    points(include_bytes!("iq3_xxs.bin"), &[4, 12, 20, 28, 36, 44, 52, 62, 0, 0, 0, 0, 0, 0, 0, 0]);
/// Magnitudes of IQ3_S.
pub(super) static IQ3_S: [[i8; 4]; 512] =
    points(include_bytes!("iq3_s.bin"), &[1, 3, 5, 7, 9, 11, 13, 15, 0, 0, 0, 0, 0, 0, 0, 0]);

const IQ2_LEVELS: [i8; 4] = [8, 25, 43, 0];

/// Decodes the stored points. An index has `16 / DIMENSIONS` bits and selects one of `LEVELS` levels.
const fn points<const DIMENSIONS: usize, const POINTS: usize, const LEVELS: usize>(
    stored: &[u8],
    levels: &[i8; LEVELS],
) -> [[i8; DIMENSIONS]; POINTS] {
    assert!(stored.len() == 2 * POINTS && LEVELS == 1 << (16 / DIMENSIONS));
    let mut points = [[0; DIMENSIONS]; POINTS];
    let mut point = 0;
    while point < POINTS {
        let places = u16::from_le_bytes([stored[2 * point], stored[2 * point + 1]]) as usize;
        let mut dimension = 0;
        while dimension < DIMENSIONS {
            points[point][dimension] = levels[places >> (dimension * (16 / DIMENSIONS)) & (LEVELS - 1)];
            dimension += 1;
        }
        point += 1;
    }
    points
}

/// The eight sign bits of each byte: -1 for a set bit, 0 for a clear one.
static SIGNS: [[i8; 8]; 256] = {
    let mut signs = [[0; 8]; 256];
    let mut entry = 0;
    while entry < 8 * 256 {
        signs[entry / 8][entry % 8] = -(((entry / 8) >> (entry % 8) & 1) as i8);
        entry += 1;
    }
    signs
};

/// Seven sign bits, with an eighth that makes the number of set bits even: `ksigns_iq2xs` in ggml-common.h.
static EVEN: [u8; 128] = {
    let mut even = [0; 128];
    let mut bits = 0u8;
    while bits < 128 {
        even[bits as usize] = bits | (bits.count_ones() as u8 & 1) << 7;
        bits += 1;
    }
    even
};

/// The magnitudes with signs. Bit j is set if magnitude j becomes negative.
#[inline(always)]
pub(super) fn signed(magnitudes: [i8; 8], signs: u8) -> [i8; 8] {
    let signs = &SIGNS[usize::from(signs)];
    std::array::from_fn(|j| (magnitudes[j] ^ signs[j]).wrapping_sub(signs[j]))
}

/// The magnitudes with an even number of negative signs. The low seven bits give all signs but the last.
#[inline(always)]
pub(super) fn evenly_signed(magnitudes: [i8; 8], signs: u32) -> [i8; 8] {
    signed(magnitudes, EVEN[(signs & 127) as usize])
}

/// Joins two points of four coordinates.
#[inline(always)]
pub(super) fn joined(first: [i8; 4], second: [i8; 4]) -> [i8; 8] {
    let [a, b, c, d] = first;
    let [e, f, g, h] = second;
    [a, b, c, d, e, f, g, h]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_ascend_by_their_coordinates_from_the_last() {
        fn ascending<const DIMENSIONS: usize>(points: &[[i8; DIMENSIONS]]) {
            for pair in points.windows(2) {
                assert!(pair[0].iter().rev().lt(pair[1].iter().rev()), "{pair:?}");
            }
        }
        ascending(&IQ1);
        ascending(&IQ2_XXS);
        ascending(&IQ2_XS);
        ascending(&IQ2_S);
        ascending(&IQ3_XXS);
        ascending(&IQ3_S);
        // No point uses the unused level 0.
        let iq2 = [IQ2_XXS.as_flattened(), IQ2_XS.as_flattened(), IQ2_S.as_flattened()];
        let iq3 = [IQ3_XXS.as_flattened(), IQ3_S.as_flattened()];
        assert!(iq2.into_iter().chain(iq3).flatten().all(|&magnitude| magnitude > 0));
    }

    #[test]
    fn signs_negate_magnitudes_and_are_even() {
        assert_eq!(signed([1, 2, 3, 4, 5, 6, 7, 8], 0b1000_0010), [1, -2, 3, 4, 5, 6, 7, -8]);
        assert_eq!(evenly_signed([1; 8], 0b1_0000_0010), [1, -1, 1, 1, 1, 1, 1, -1]);
        assert_eq!(evenly_signed([1; 8], 0b110), [1, -1, -1, 1, 1, 1, 1, 1]);
    }
}
