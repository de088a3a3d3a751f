//! Importance matrices, valid and hostile. `goldens/make.py` made the valid ones and read them with libgguf.

use std::path::{Path, PathBuf};

use curmerge_formats::{DType, Error, GgufLayout, Imatrix, NewTensor};
use tempfile::TempDir;

use crate::whole_file::written;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name)
}

fn open(folder: &TempDir, bytes: &[u8]) -> Result<Imatrix, Error> {
    Imatrix::open(written(folder, "imatrix", bytes))
}

/// The error's message, which must be one line that names the file.
fn problem(folder: &TempDir, bytes: &[u8]) -> String {
    let text = open(folder, bytes).unwrap_err().to_string();
    assert!(text.starts_with(folder.path().join("imatrix").to_str().unwrap()), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

/// A `.dat` file of these entries, without the optional trailer.
fn dat(entries: &[(&str, i32, &[f32])]) -> Vec<u8> {
    let mut bytes = (entries.len() as i32).to_le_bytes().to_vec();
    for (name, calls, values) in entries {
        bytes.extend((name.len() as i32).to_le_bytes());
        bytes.extend(name.bytes());
        bytes.extend(calls.to_le_bytes());
        bytes.extend((values.len() as i32).to_le_bytes());
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
    bytes
}

/// A GGUF file of these one-dimensional tensors of F32.
fn gguf(tensors: &[(&str, &[f32])]) -> Vec<u8> {
    let new = |(name, values): &(&str, &[f32])| NewTensor {
        name: (*name).into(),
        dtype: DType::F32,
        dims: vec![values.len() as u64],
    };
    let layout = GgufLayout::new(3, 32, &[], tensors.iter().map(new).collect()).unwrap();
    let mut bytes = layout.header().to_vec();
    for ((_, values), place) in tensors.iter().zip(layout.tensors()) {
        bytes.resize(place.offset as usize, 0);
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
    bytes.resize(layout.file_bytes() as usize, 0);
    bytes
}

#[test]
fn both_forms_are_read_as_libgguf_reads_them() {
    let files = ["imatrix.gguf", "imatrix.dat"].map(|name| Imatrix::open(golden(name)).unwrap());
    let names = |file: &Imatrix| file.names().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(names(&files[0]), ["blk.0.attn_q.weight", "blk.0.ffn_up_exps.weight"]);
    assert_eq!(names(&files[1]), ["blk.0.attn_q.weight", "output.weight"]);
    let found: Vec<u8> = files
        .iter()
        .flat_map(|file| file.names().flat_map(|name| file.weights(name).unwrap()))
        .flat_map(|weight| weight.to_le_bytes())
        .collect();
    assert_eq!(found, std::fs::read(golden("imatrix.f32")).unwrap());
    // The expert without inputs.
    assert_eq!(files[0].weights("blk.0.ffn_up_exps.weight").unwrap()[4..8], [1.0; 4]);
    assert_eq!(files[0].weights("blk.0.ffn_down_exps.weight"), None);
}

#[test]
fn counts_divide_as_in_llama_quantize() {
    let folder = TempDir::new().unwrap();
    let file = open(&folder, &dat(&[("a", 3, &[1.0, 2.0]), ("b", 0, &[5.0]), ("c", -4, &[7.0])])).unwrap();
    assert_eq!(file.weights("a").unwrap(), [1.0 / 3.0, 2.0 / 3.0]);
    assert_eq!(file.weights("b").unwrap(), [5.0]);
    assert_eq!(file.weights("c").unwrap(), [7.0]);

    let sums: &[f32] = &[1.0, 2.0, 3.0, 4.0];
    let of = |counts: &[f32]| {
        let file =
            gguf(&[("w.in_sum2", sums), ("w.in_sum", &[0.5]), ("w.counts", counts), ("other", &[1.0])]);
        open(&folder, &file).map(|file| file.weights("w").unwrap().to_vec()).map_err(|e| e.to_string())
    };
    // Counts are rounded, halves away from zero.
    assert_eq!(of(&[2.5]).unwrap(), [1.0 / 3.0, 2.0 / 3.0, 1.0, 4.0 / 3.0]);
    assert_eq!(of(&[2.0, 0.4]).unwrap(), [0.5, 1.0, 1.0, 1.0]);
    assert_eq!(of(&[-1.0, 4.0]).unwrap(), [1.0, 1.0, 0.75, 1.0]);
    assert!(of(&[1.0, 1.0, 1.0]).unwrap_err().contains("4 sums cannot be divided among 3 counts"));
    assert!(of(&[1.0; 8]).unwrap_err().contains("among 8 counts"));
    assert!(of(&[f32::NAN]).unwrap_err().contains("a count is NaN"));
}

#[test]
fn a_file_cut_short_anywhere_is_refused() {
    let folder = TempDir::new().unwrap();
    let whole = std::fs::read(golden("imatrix.dat")).unwrap();
    // The oldest files lack the chunk count and the name of the text.
    let entries = whole.len() - (4 + 4 + "calibration.txt".len());
    for length in (0..whole.len()).filter(|&length| length != entries) {
        problem(&folder, &whole[..length]);
    }
    assert_eq!(open(&folder, &whole[..entries]).unwrap(), open(&folder, &whole).unwrap());

    let whole = std::fs::read(golden("imatrix.gguf")).unwrap();
    // The last tensor is one float, padded with zeros to 32 bytes.
    for length in 0..whole.len() - 28 {
        problem(&folder, &whole[..length]);
    }
}

#[test]
fn absurd_counts_and_values_are_refused() {
    let folder = TempDir::new().unwrap();
    let valid = dat(&[("name", 1, &[1.0, 2.0])]);
    open(&folder, &valid).unwrap();
    // The offset of each count, and its place in the error.
    for (at, place) in [(0, "entry count"), (4, "entry number 0"), (16, "entry \"name\"")] {
        for count in [-1, i32::MIN, i32::MAX, 1000] {
            let mut bytes = valid.clone();
            bytes[at..at + 4].copy_from_slice(&count.to_le_bytes());
            let text = problem(&folder, &bytes);
            assert!(text.contains(place) && text.contains(&count.to_string()), "{text}");
        }
    }
    let trailer = |length: i32| [&valid[..], &7i32.to_le_bytes(), &length.to_le_bytes(), b"text"].concat();
    open(&folder, &trailer(4)).unwrap();
    assert!(problem(&folder, &trailer(5)).contains("calibration text"));
    assert!(problem(&folder, &trailer(3)).contains("1 bytes follow"));

    let refused = [
        (dat(&[]), "there are no entries"),
        (dat(&[("", 1, &[1.0, 2.0])]), "the name is empty"),
        (dat(&[("a long name", 1, &[])]), "there are no values"),
        (dat(&[("a", 1, &[1.0]), ("a", 1, &[1.0])]), "occurs twice"),
        (dat(&[("a", 2, &[1.0, f32::NAN])]), "weight 1 is NaN"),
        (dat(&[("a", 2, &[f32::INFINITY])]), "weight 0 is inf"),
        (dat(&[("a", 2, &[-1.0])]), "weight 0 is -0.5"),
        (b"\x01\0\0\0\x01\0\0\0\xff\x01\0\0\0\x01\0\0\0\0\0\0\0".to_vec(), "not UTF-8"),
        (gguf(&[("token_embd.weight", &[1.0])]), "this is not an importance matrix"),
        (gguf(&[("a.in_sum2", &[1.0])]), "there is no tensor counts"),
        (gguf(&[("a.counts", &[1.0])]), "there is no tensor in_sum2"),
        (gguf(&[("a.in_sum2", &[1.0, -4.0]), ("a.counts", &[2.0])]), "weight 1 is -2"),
    ];
    for (bytes, expected) in refused {
        let text = problem(&folder, &bytes);
        assert!(text.contains(expected), "{text}");
    }
    assert!(Imatrix::open(Path::new("/nonexistent/imatrix.dat")).is_err());
    assert!(Imatrix::open(folder.path()).is_err());
}
