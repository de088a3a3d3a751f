//! The weights of ONNX models that curmerge writes, and the GGUF files to compare them with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use curmerge_formats::dtype::DType;
use curmerge_formats::onnx::Onnx;

use super::families::{Container, Family};
use super::remade::Remade;

/// The f32 values of little-endian bytes.
pub fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// The shape and bytes of every weight, by name. Constants of the graph, whose names begin with `/`, are left
/// out.
pub fn weights(path: &Path) -> BTreeMap<String, (Vec<u64>, Vec<u8>)> {
    let onnx = Onnx::open(path).unwrap();
    let weights = onnx.graph().initializers.iter().filter(|tensor| !tensor.name.starts_with('/'));
    weights.map(|t| (t.name.clone(), (t.dims.clone(), onnx.data(t).unwrap().into_owned()))).collect()
}

/// The values `scale * (number - zero)` of a matrix of MatMulNBits, in rows `[out, in]`. Number 2i is in the
/// lower half of byte i.
pub fn four_bits(weights: &BTreeMap<String, (Vec<u64>, Vec<u8>)>, name: &str) -> Vec<f32> {
    let (dims, numbers) = &weights[&format!("{name}_Q4")];
    let scales = f32s(&weights[&format!("{name}_scales")].1);
    let zeros = weights.get(&format!("{name}_zero_points")).map(|(_, bytes)| bytes);
    let (rows, blocks) = (dims[0] as usize, dims[1] as usize);
    let half = |byte: u8, odd: usize| if odd == 0 { byte & 15 } else { byte >> 4 };
    let mut values = Vec::new();
    for (row, block) in (0..rows).flat_map(|row| (0..blocks).map(move |block| (row, block))) {
        let zero = zeros.map_or(8, |zeros| half(zeros[row * blocks.div_ceil(2) + block / 2], block % 2));
        for i in 0..32 {
            let number = half(numbers[(row * blocks + block) * 16 + i / 2], i % 2);
            values.push(scales[row * blocks + block] * (f32::from(number) - f32::from(zero)));
        }
    }
    values
}

/// Writes a fixture's GGUF file with all matrices in this type. Returns its path.
pub fn stored_as(name: &str, dtype: DType, folder: &Path) -> PathBuf {
    let path = folder.join(format!("{name}-{dtype}.gguf"));
    Remade::of(&Family::open(name).path(Container::Gguf)).stored_as(dtype).write(&path);
    path
}
