use super::*;

const ENCODED: [DType; 13] = {
    use DType::*;
    [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, MXFP4]
};
const READ_ONLY: [DType; 5] = [DType::Q1_0, DType::Q2_0, DType::TQ1_0, DType::TQ2_0, DType::NVFP4];

fn types() -> impl Iterator<Item = DType> {
    ENCODED.into_iter().chain(READ_ONLY)
}

/// Pseudo-random numbers in [-1, 1).
fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn noisy_bytes(count: usize, seed: u32) -> Vec<u8> {
    noise(count, seed).iter().map(|x| (x * 128.0).floor() as i8 as u8).collect()
}

fn decoded(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    let mut values = vec![0.0; bytes.len() / dtype.block_bytes() * dtype.block_elements()];
    decode(dtype, bytes, &mut values).unwrap();
    values
}

fn kept(dtype: DType, base: &[u8], values: &[f32]) -> Vec<u8> {
    let mut out = vec![0xaa; base.len()];
    encode_with_fixed_scales(dtype, base, values, &mut out).unwrap();
    out
}

/// Blocks of 1024 values with varied codes and scales: encoded if the type has an encoder, else random bytes
/// with scales of about a half.
fn usual(dtype: DType, seed: u32) -> Vec<u8> {
    if dtype.can_encode() {
        let mut bytes = vec![0; dtype.bytes_for(1024).unwrap() as usize];
        encode(dtype, &noise(1024, seed), &mut bytes).unwrap();
        return bytes;
    }
    let mut bytes = noisy_bytes(dtype.bytes_for(1024).unwrap() as usize, seed);
    for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
        let half = [0x12, 0x38];
        match dtype {
            DType::Q1_0 | DType::Q2_0 => block[..2].copy_from_slice(&half),
            DType::NVFP4 => block[..4].copy_from_slice(&[0x30, 0x2b, 0x11, 0x35]),
            _ => block[dtype.block_bytes() - 2..].copy_from_slice(&half),
        }
    }
    bytes
}

/// The values that each value can become, ascending.
fn reachable(dtype: DType, base: &[u8]) -> Vec<Vec<f32>> {
    let present = decoded(dtype, base);
    let mut found: Vec<Vec<f32>> = present.iter().map(|&value| vec![value]).collect();
    match Grid::read(dtype, base).unwrap().unwrap() {
        Grid::Linear(grid) => {
            for (j, found) in found.iter_mut().enumerate() {
                let moves = -(grid.below[j] as i32)..=grid.above[j] as i32;
                *found = moves.map(|moves| present[j] + moves as f32 * grid.steps[j]).collect();
            }
        }
        Grid::NonLinear(grid) => {
            for (found, scale) in found.iter_mut().zip(&grid.scales) {
                *found = grid.levels.iter().map(|level| scale * level).collect();
            }
        }
    }
    found.iter_mut().for_each(|found| found.sort_by(f32::total_cmp));
    found
}

#[test]
fn unchanged_values_give_the_same_bytes_even_for_arbitrary_blocks() {
    for dtype in types() {
        let mut finite = 0;
        for seed in 0..200 {
            for base in [usual(dtype, seed), noisy_bytes(dtype.block_bytes(), seed)] {
                let values = decoded(dtype, &base);
                if values.iter().all(|v| v.is_finite()) {
                    assert_eq!(kept(dtype, &base, &values), base, "{dtype}");
                    finite += 1;
                }
            }
        }
        assert!(finite > 300, "{dtype} {finite}");
    }
}

#[test]
fn every_code_of_a_block_is_reachable_and_decodes_to_the_grids_value() {
    for dtype in types() {
        let base = usual(dtype, 5);
        let reachable = reachable(dtype, &base);
        for place in 0..256 {
            let wanted: Vec<f32> =
                reachable.iter().map(|values| values[place.min(values.len() - 1)]).collect();
            let found = decoded(dtype, &kept(dtype, &base, &wanted));
            for (j, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
                assert!((found - wanted).abs() < 1e-5, "{dtype} {j} {place}: {found} {wanted}");
            }
        }
        let codes = match dtype {
            DType::Q1_0 => 2,
            DType::TQ1_0 | DType::TQ2_0 => 3,
            DType::Q2_0 | DType::Q2_K => 4,
            DType::Q3_K => 8,
            DType::Q5_0 | DType::Q5_1 | DType::Q5_K => 32,
            DType::Q6_K => 64,
            DType::Q8_0 => 255,
            _ => 16,
        };
        assert_eq!(reachable.iter().map(Vec::len).min(), Some(codes), "{dtype}");
    }
}

#[test]
fn each_value_gets_the_nearest_code() {
    for dtype in types() {
        let base = usual(dtype, 8);
        let grid = Grid::read(dtype, &base).unwrap().unwrap();
        let reachable = reachable(dtype, &base);
        for size in [0.01, 0.3, 1.0, 4.0] {
            let wanted: Vec<f32> = (decoded(dtype, &base).iter().zip(noise(1024, 6)))
                .map(|(present, noise)| present + size * noise)
                .collect();
            let found = decoded(dtype, &kept(dtype, &base, &wanted));
            // Steps add up within the rounding of f32. Levels are exact.
            let slack = if matches!(grid, Grid::Linear(_)) { 1e-5 } else { 0.0 };
            for j in 0..1024 {
                let distance = |value: f32| (f64::from(value) - f64::from(wanted[j])).abs();
                let least = reachable[j].iter().map(|&value| distance(value)).fold(f64::INFINITY, f64::min);
                assert!(distance(found[j]) <= least + slack, "{dtype} {j} {size}: {}", wanted[j]);
            }
        }
    }
}

#[test]
fn halves_go_away_from_the_present_code() {
    for dtype in [DType::Q4_0, DType::Q2_K, DType::IQ4_NL, DType::MXFP4, DType::NVFP4, DType::TQ1_0] {
        let base = usual(dtype, 4);
        let present = decoded(dtype, &base);
        let reachable = reachable(dtype, &base);
        for sign in [-1.0, 1.0] {
            let next = |j: usize| {
                let beyond = reachable[j].iter().filter(|&&value| sign * value > sign * present[j] + 1e-6);
                beyond.copied().min_by(|a, b| (sign * a).total_cmp(&(sign * b)))
            };
            let wanted: Vec<f32> =
                (0..1024).map(|j| next(j).map_or(present[j], |next| (present[j] + next) / 2.0)).collect();
            for (j, found) in decoded(dtype, &kept(dtype, &base, &wanted)).into_iter().enumerate() {
                let Some(next) = next(j) else { continue };
                // If the midpoint was rounded, either is right.
                if f64::from(wanted[j]) * 2.0 == f64::from(present[j]) + f64::from(next)
                    && (wanted[j] - present[j]) / (next - present[j]) == 0.5
                {
                    assert!((found - next).abs() < 1e-6, "{dtype} {j}: {found} {next}");
                }
            }
        }
    }
}

#[test]
fn both_zeros_of_a_four_bit_float_stay() {
    let base = [&[127u8][..], &[0x80; 16]].concat();
    assert_eq!(decoded(DType::MXFP4, &base), [0.0; 32]);
    let small: Vec<f32> = noise(32, 3).iter().map(|x| x * 0.2).collect();
    assert_eq!(kept(DType::MXFP4, &base, &small), base);
}

#[test]
fn blocks_with_zero_scales_stay() {
    for dtype in types().filter(|&dtype| dtype != DType::MXFP4) {
        let mut base = usual(dtype, 2);
        for block in base.chunks_exact_mut(dtype.block_bytes()) {
            match dtype {
                DType::NVFP4 => block[..4].fill(0),
                // Only the first of its two scales: the second belongs to the minimums.
                DType::Q2_K => block[80..82].fill(0),
                DType::Q3_K | DType::Q6_K | DType::TQ1_0 | DType::TQ2_0 => {
                    block[dtype.block_bytes() - 2..].fill(0);
                }
                _ => block[..2].fill(0),
            }
        }
        assert_eq!(kept(dtype, &base, &noise(1024, 1)), base, "{dtype}");
    }
}

#[test]
fn hostile_blocks_and_values_do_no_harm() {
    for dtype in types() {
        let elements = dtype.block_elements();
        for byte in 0..=0xff {
            let base = vec![byte; dtype.block_bytes()];
            Grid::read(dtype, &base).unwrap();
            for size in [1e-38, 1.0, f32::MAX] {
                let values: Vec<f32> = noise(elements, 2).iter().map(|x| x * size).collect();
                kept(dtype, &base, &values);
            }
        }
        let base = vec![0xff; dtype.block_bytes()];
        let bad = vec![f32::NAN; elements];
        assert!(encode_with_fixed_scales(dtype, &base, &bad, &mut base.clone()).is_err());
        assert!(encode_with_fixed_scales(dtype, &base[1..], &bad, &mut base.clone()).is_err());
    }
    assert_eq!(Grid::read(DType::F16, &[0; 6]), Ok(None));
    assert!(Grid::read(DType::Q4_0, &[0; 17]).is_err());
    assert_eq!(Grid::read(DType::IQ2_S, &[0; 82]), Err(QuantError::CannotEncode(DType::IQ2_S)));
}

#[test]
fn blocks_whose_values_are_not_finite_keep_their_codes() {
    for (dtype, scale) in [(DType::Q4_0, 0), (DType::IQ4_NL, 0), (DType::IQ4_XS, 0), (DType::Q3_K, 108)] {
        for bits in [0x7c00u16, 0xfc00, 0x7e00] {
            let mut base = usual(dtype, 7);
            for block in base.chunks_exact_mut(dtype.block_bytes()) {
                block[scale..scale + 2].copy_from_slice(&bits.to_le_bytes());
            }
            assert_eq!(kept(dtype, &base, &noise(1024, 1)), base, "{dtype} {bits:x}");
        }
    }
}
