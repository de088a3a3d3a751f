//! Decoders and encoders compared with ggml's, bit for bit. `goldens/make.py` made the files with its
//! reference code.

use std::path::PathBuf;

use curmerge_formats::{DType, QuantError, decode, encode, encode_weighted};

fn golden(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// The first position at which two slices of equal length differ.
fn first_difference<T: PartialEq>(a: &[T], b: &[T]) -> Option<usize> {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).position(|(a, b)| a != b)
}

#[test]
fn blocks_decode_as_the_references_decode_them() {
    let plain = [DType::F32, DType::F64];
    for dtype in DType::all().filter(|dtype| dtype.can_decode() && !plain.contains(dtype)) {
        let blocks = golden(&format!("{dtype}.blocks"));
        let expected = floats(&golden(&format!("{dtype}.decoded")));
        let mut found = vec![0f32; expected.len()];
        decode(dtype, &blocks, &mut found).unwrap();
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        let difference = first_difference(&bits(&found), &bits(&expected));
        assert!(difference.is_none(), "{dtype}: {:?}", difference.map(|at| (at, found[at], expected[at])));
    }
}

/// The types that use an importance matrix.
const WEIGHTED: [DType; 11] = {
    use DType::*;
    [Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS]
};

#[test]
fn values_encode_by_importance_as_ggmls_reference_encodes_them() {
    let (values, weights) = (floats(&golden("values.f32")), floats(&golden("weights.f32")));
    for dtype in WEIGHTED {
        let expected = golden(&format!("{dtype}.weighted"));
        let mut found = vec![0; expected.len()];
        encode_weighted(dtype, &values, &weights, &mut found).unwrap();
        let difference = first_difference(&found, &expected).map(|at| (at / dtype.block_bytes(), at));
        assert!(difference.is_none(), "{dtype}: first different (block, byte): {difference:?}");
    }
}

#[test]
fn other_types_ignore_importance() {
    use DType::*;
    let (values, weights) = (floats(&golden("values.f32")), floats(&golden("weights.f32")));
    for dtype in [F32, F16, BF16, F64, Q8_0, MXFP4] {
        let mut plain = vec![0; dtype.bytes_for(values.len() as u64).unwrap() as usize];
        encode(dtype, &values, &mut plain).unwrap();
        let mut found = vec![0; plain.len()];
        encode_weighted(dtype, &values, &weights, &mut found).unwrap();
        assert_eq!(first_difference(&found, &plain), None, "{dtype}");
    }
}

#[test]
fn hostile_importance_is_refused() {
    let values = vec![0.5; 1024];
    for dtype in WEIGHTED {
        let mut out = vec![0; dtype.bytes_for(1024).unwrap() as usize];
        let mut weighted = |weights: &[f32]| encode_weighted(dtype, &values, weights, &mut out);
        for count in [0, 16, 768, 2048] {
            let found = weighted(&vec![1.0; count]);
            assert!(matches!(found, Err(QuantError::WeightCount { .. })), "{dtype} {count}: {found:?}");
        }
        for bad in [f32::NAN, f32::INFINITY, -1.0] {
            let mut weights = vec![1.0; 512];
            weights[300] = bad;
            let found = weighted(&weights);
            assert!(matches!(found, Err(QuantError::Weight { column: 300, .. })), "{dtype} {bad}: {found:?}");
        }
        weighted(&[0.0; 512]).unwrap();
        weighted(&[1e-45; 512]).unwrap();
        // The sums overflow, which is an error, unless the search needed none.
        let mut weights = vec![1.0; 512];
        weights[256..].fill(f32::MAX);
        match weighted(&weights) {
            Ok(()) | Err(QuantError::WeightedScale { column: 256, .. }) => {}
            other => panic!("{dtype}: {other:?}"),
        }
    }
}

#[test]
fn values_out_of_range_are_named_whatever_their_importance() {
    for dtype in WEIGHTED {
        let mut out = vec![0; dtype.bytes_for(1024).unwrap() as usize];
        for hostile in [f32::NAN, f32::INFINITY, f32::MAX, -1e9] {
            let mut values = vec![0.5; 1024];
            values[700] = hostile;
            match encode_weighted(dtype, &values, &[1.0; 512], &mut out) {
                Err(QuantError::OutOfRange { index: 700, .. }) => {}
                other => panic!("{dtype} {hostile}: {other:?}"),
            }
        }
    }
}

#[test]
fn any_bytes_decode() {
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    for dtype in DType::all().filter(|dtype| dtype.can_decode()) {
        let blocks = 65_536 / dtype.block_elements();
        let bytes: Vec<u8> = (0..blocks * dtype.block_bytes()).map(|_| random()).collect();
        let unwritten = f32::from_bits(0x7fc0_1234);
        let mut values = vec![unwritten; blocks * dtype.block_elements()];
        decode(dtype, &bytes, &mut values).unwrap();
        assert!(values.iter().all(|value| value.to_bits() != unwritten.to_bits()), "{dtype}");
    }
}

#[test]
fn values_encode_as_ggmls_reference_encodes_them() {
    use DType::*;
    let values = floats(&golden("values.f32"));
    let floats = [F16, BF16];
    for dtype in floats.into_iter().chain(WEIGHTED).chain([Q8_0, MXFP4]) {
        let expected = golden(&format!("{dtype}.encoded"));
        let mut found = vec![0; expected.len()];
        encode(dtype, &values, &mut found).unwrap();
        let difference = first_difference(&found, &expected).map(|at| (at / dtype.block_bytes(), at));
        assert!(difference.is_none(), "{dtype}: first different (block, byte): {difference:?}");
    }
}

#[test]
fn plain_floats_come_back_unchanged() {
    let values = floats(&golden("values.f32"));
    for dtype in [DType::F32, DType::F64] {
        let mut stored = vec![0; dtype.bytes_for(values.len() as u64).unwrap() as usize];
        encode(dtype, &values, &mut stored).unwrap();
        let mut back = vec![0f32; values.len()];
        decode(dtype, &stored, &mut back).unwrap();
        assert_eq!(first_difference(&back, &values), None, "{dtype}");
    }
}
