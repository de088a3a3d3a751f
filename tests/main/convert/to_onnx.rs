//! GGUF files and Hugging Face folders converted to ONNX models: names and values in curmerge's own reader.
//! tests/clients/to_onnx.rs runs them in onnx's checker and onnxruntime.

use curmerge::base::Base;
use curmerge_formats::SafeTensors;
use curmerge_formats::dtype::DType;
use curmerge_formats::onnx::{ElementType, Onnx};
use serde_json::json;

use crate::support::families::{Container, Family};
use crate::support::onnx_weights::{f32s, four_bits, stored_as, weights};

/// The transpose of a matrix with this many rows.
fn turned<T: Copy>(values: &[T], rows: usize) -> Vec<T> {
    let cols = values.len() / rows;
    (0..cols).flat_map(|c| (0..rows).map(move |r| values[r * cols + c])).collect()
}

/// The shape and values of a tensor of a Hugging Face folder.
fn stored(family: &Family, name: &str) -> (Vec<u64>, Vec<f32>) {
    let file = SafeTensors::open(&family.path(Container::Folder).join("model.safetensors")).unwrap();
    let tensor = file.tensor(name).unwrap_or_else(|| panic!("no {name}"));
    let mut values = vec![0.0; tensor.shape.iter().product::<u64>() as usize];
    curmerge_formats::quant::decode(tensor.dtype, file.data(tensor), &mut values).unwrap();
    (tensor.shape.clone(), values)
}

/// The canonical name of a matrix, or of a bias, that the folder has in groups of rows with others.
fn alone(base: &Base, name: &str) -> Option<String> {
    let module = name.strip_suffix(".weight").or(name.strip_suffix(".bias"))?;
    let (rest, word) = module.strip_suffix("_proj")?.rsplit_once('.')?;
    let (layer, part) = rest.strip_prefix("model.layers.")?.split_once('.')?;
    let own = format!("{}_{word}", if part == "mlp" { "ffn" } else { "attn" });
    let joined = base.architecture().tensors.joined_rows.iter().flat_map(|joined| joined.parts);
    let joined = joined.into_iter().any(|(part, _)| *part == own);
    let in_groups = base.architecture().line("blk.0.attn_qkv").is_some_and(|line| line.groups.is_some());
    match (joined, in_groups) {
        (true, _) => Some(format!("blk.{layer}.{own}")),
        (_, true) => Some(format!("blk.{layer}.attn_qkv[{word}]")),
        _ => None,
    }
}

/// The canonical names of the matrices of a block's experts, in the order of the rows of the tensor of this name: one
/// list for each expert, whose rows take turns. Those of biases, if it has biases.
fn of_experts(base: &Base, name: &str) -> Option<Vec<Vec<String>>> {
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once(".moe.experts.")?;
    let (module, ending) = rest.split_once('.')?;
    let roles: &[&str] = if module == "down_proj" { &["down"] } else { &["gate", "up"] };
    let ending = if ending == "bias" { ".bias" } else { "" };
    let of = |expert| roles.iter().map(move |role| format!("blk.{layer}.ffn_{role}_exps[{expert}]{ending}"));
    Some((0..base.config().experts.unwrap().count).map(|expert| of(expert).collect()).collect())
}

/// The values of such a tensor.
fn in_turn(base: &Base, experts: &[Vec<String>]) -> Vec<f32> {
    let rows_of = |name: &String| -> Vec<Vec<f32>> {
        if name.ends_with(".bias") {
            return base.vector(name).unwrap().into_iter().map(|value| vec![value]).collect();
        }
        let weight = base.weight(name).unwrap();
        weight.vector().chunks(weight.cols()).map(<[f32]>::to_vec).collect()
    };
    let of_expert = |names: &Vec<String>| -> Vec<f32> {
        let matrices: Vec<_> = names.iter().map(rows_of).collect();
        (0..matrices[0].len()).flat_map(|row| matrices.iter().flat_map(move |m| m[row].clone())).collect()
    };
    experts.iter().flat_map(of_expert).collect()
}

/// Rows whose rotary pairs are neighbours, with the halves of these heads apart.
fn in_halves(values: Vec<f32>, rows: usize, heads: Option<usize>) -> Vec<f32> {
    let Some(heads) = heads else { return values };
    let (cols, length) = (values.len() / rows, rows / heads);
    let row =
        |row: usize| row / length * length + row % length % (length / 2) * 2 + row % length / (length / 2);
    (0..rows).flat_map(|stored| values[row(stored) * cols..][..cols].to_vec()).collect()
}

fn check_values(name: &str) {
    let original = Base::open(Family::open(name).path(Container::Folder)).unwrap();
    let architecture = original.architecture();
    let embedding = architecture.line("token_embd").unwrap().hugging_face.to_owned() + ".weight";
    let (family, out) = (Family::open(name), tempfile::tempdir().unwrap());
    let [of_folder, of_gguf] = ["folder.onnx", "gguf.onnx"].map(|name| out.path().join(name));
    curmerge!("convert", family.path(Container::Folder), of_folder).done();
    curmerge!("convert", family.path(Container::Gguf), of_gguf).done();
    let found = weights(&of_folder);
    // GGUF takes a Granite 4 without state spaces for a Granite 3, whose folder has other names.
    let same = found == weights(&of_gguf) || name == "granite4";
    assert!(same, "the folder and the GGUF file give different weights");

    let mut matrices = 0;
    for (name, (dims, bytes)) in &found {
        matrices += usize::from(dims.len() == 2);
        if let Some(canonical) = alone(&original, name) {
            // The folder has its rows among others.
            let values = match name.strip_suffix(".bias") {
                Some(_) => original.vector(&format!("{canonical}.bias")).unwrap(),
                None => {
                    let weight = original.weight(&canonical).unwrap();
                    let heads = original.config().onnx_rotary_heads(architecture, &canonical);
                    turned(&in_halves(weight.vector(), weight.rows(), heads), weight.rows())
                }
            };
            assert_eq!(&f32s(bytes), &values, "{name}");
            continue;
        }
        if let Some(experts) = of_experts(&original, name) {
            assert_eq!(dims[0], experts.len() as u64, "{name}");
            assert_eq!(&f32s(bytes), &in_turn(&original, &experts), "{name}");
            continue;
        }
        if name.ends_with(".sinks") {
            assert_eq!(f32s(bytes), stored(&family, name).1, "{name}");
            continue;
        }
        let (mut shape, mut values) = stored(&family, name);
        let module = name.strip_suffix(".weight").unwrap_or(name);
        let line = architecture.of_hugging_face(module).map(|(_, line)| line);
        let looked_up = *name == embedding || module.ends_with(".wpe");
        if shape.len() == 2 && !looked_up && line.is_none_or(|line| !line.transposed) {
            values = turned(&values, shape[0] as usize);
            shape.reverse();
        }
        if shape.len() == 1 && name.ends_with(".weight") && family.has_unit_offset() {
            values.iter_mut().for_each(|value| *value += 1.0);
        }
        assert_eq!(dims, &shape, "{name}");
        assert_eq!(&f32s(bytes), &values, "{name}");
    }
    assert!(matrices > 8, "{matrices} matrices");
}

macro_rules! tests {
    ($($module:ident: $name:literal),* $(,)?) => {
        $(mod $module {
            #[test]
            fn weights_have_the_names_and_values_of_the_folder() {
                super::check_values($name);
            }
        })*
    };
}

each_convertible!(tests);

#[test]
fn blocks_of_q4_0_are_kept_bit_for_bit() {
    let out = tempfile::tempdir().unwrap();
    for name in ["llama2", "qwen3", "phi3"] {
        let (model, four) = (stored_as(name, DType::Q4_0, out.path()), out.path().join("four.onnx"));
        let exact = out.path().join("exact.onnx");
        let answer = curmerge!("convert", model, four, "--type", "q4", "--json").json();
        assert_eq!(answer["notes"], json!([]), "a note says that values are rounded");
        curmerge!("convert", model, exact).done();
        let (found, right) = (weights(&four), weights(&exact));
        let mut matrices = 0;
        for (name, (dims, bytes)) in &right {
            if dims.len() == 1 || name == "model.embed_tokens.weight" {
                assert_eq!(&found[name].1, bytes, "{name}");
                continue;
            }
            let values = turned(&f32s(bytes), dims[0] as usize);
            let same = four_bits(&found, name).iter().zip(&values).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{name}");
            matrices += 1;
        }
        assert!(matrices > 8 && found.len() == right.len() + matrices);
    }
}

#[test]
fn external_weights_and_other_numbers_of_threads_change_nothing() {
    let out = tempfile::tempdir().unwrap();
    let source = Family::open("llama3").path(Container::Gguf);
    let [whole, apart] = ["whole.onnx", "apart.onnx"].map(|name| out.path().join(name));
    curmerge!("convert", source, whole).done();
    curmerge!("convert", source, apart, "--external-data").done();
    assert!(out.path().join("apart.onnx_data").is_file() && !out.path().join("whole.onnx_data").exists());
    assert_eq!(weights(&whole), weights(&apart));
    let onnx = Onnx::open(&apart).unwrap();
    assert_eq!(onnx.external_files()[0].location, "apart.onnx_data");
    curmerge!("convert", source, apart, "--external-data", "--type", "f16").done();
    let halves = Onnx::open(&apart).unwrap();
    assert_eq!(
        halves.initializer("model.layers.0.mlp.up_proj.weight").unwrap().element,
        ElementType::FLOAT16
    );
    // One thread gives the same bytes.
    let again = out.path().join("again.onnx");
    curmerge!("convert", source, again, "--threads", "1").done();
    assert!(std::fs::read(&again).unwrap() == std::fs::read(&whole).unwrap());
}

#[test]
fn parts_of_rows_equal_those_of_decoded_rows() {
    // GPT-2's folder stores matrices as [in, out], the second model in blocks.
    let out = tempfile::tempdir().unwrap();
    let models = [
        Family::open("gpt2").path(Container::Folder),
        stored_as("llama3", DType::Q4_0, out.path()),
        Family::open("phi3").path(Container::Gguf),
    ];
    for (model, name) in models.iter().zip(["blk.0.attn_qkv[k]", "blk.1.attn_q", "blk.1.attn_qkv[v]"]) {
        let base = Base::open(model).unwrap();
        let weight = base.weight(name).unwrap();
        let (mut row, cols) = (vec![0.0; weight.cols()], weight.cols());
        for r in 0..weight.rows() {
            weight.decode_row(r, &mut row);
            for part in [0..cols, 0..cols / 2, cols / 2..cols, 3..7] {
                let mut found = vec![0.0; part.len()];
                weight.decode_part(r, part.clone(), &mut found);
                assert_eq!(found, row[part]);
            }
        }
    }
}
