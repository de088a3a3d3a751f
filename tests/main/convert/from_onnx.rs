//! ONNX models converted to GGUF files and Hugging Face folders. A model that curmerge wrote from a folder
//! gives the same bytes as the folder. Small exports by other programs (fixtures/onnx_models/tiny) give the
//! values of their folder. tests/real/onnx_conversions.rs runs real exports in onnxruntime, llama.cpp and
//! transformers.

use std::fs;
use std::path::{Path, PathBuf};

use curmerge::base::{Base, resolve};
use curmerge::convert::{
    FileType, FolderOptions, OnnxOptions, OnnxType, to_gguf, to_hugging_face, to_onnx, to_onnx_folder,
};
use curmerge_formats::dtype::DType;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::Value as Json;

use crate::support::families::CONVERTIBLE;
use crate::support::fixture;
use crate::support::folder::{copy, names};

fn family(name: &str) -> PathBuf {
    fixture::family(name, "hf")
}

fn tiny(name: &str) -> PathBuf {
    fixture::path("onnx_models/tiny").join(name)
}

fn open(path: &Path) -> Base {
    Base::open(path).unwrap_or_else(|error| panic!("{error}"))
}

/// The bytes of the GGUF file that a base is converted to.
fn gguf_of(path: &Path, file_type: FileType) -> Vec<u8> {
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("out.gguf");
    let options = to_gguf::Options { file_type: Some(file_type), imatrix: None };
    to_gguf(&open(path), &options, &file, &[], |_, _| ()).unwrap_or_else(|error| panic!("{error}"));
    fs::read(file).unwrap()
}

/// A path that ends in `hf` like those of the fixtures, since GGUF files contain the names of their folders.
fn place(folder: &tempfile::TempDir, name: &str) -> PathBuf {
    let within = folder.path().join(name);
    fs::create_dir_all(&within).unwrap();
    within.join("hf")
}

fn as_onnx(base: &Path, out: &Path, file_type: OnnxType) {
    let options = OnnxOptions { file_type, ..Default::default() };
    to_onnx_folder(&open(base), out, &options, |_, _| ()).unwrap_or_else(|error| panic!("{error}"));
}

fn as_folder(base: &Path, out: &Path, dtype: DType) {
    let options = FolderOptions { dtype: Some(dtype), ..Default::default() };
    to_hugging_face(&open(base), out, &options, |_, _| ()).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn round_trips_keep_the_bytes_of_the_folder() {
    // No GGUF file can express gemma2's scale of attention scores, and no ONNX model MXFP4.
    for name in CONVERTIBLE.iter().filter(|&&name| !["gemma2", "gpt-oss-mxfp4"].contains(&name)) {
        let scratch = tempfile::tempdir().unwrap();
        let [onnx, back] = ["onnx", "back"].map(|n| place(&scratch, n));
        as_onnx(&family(name), &onnx, OnnxType::F32);
        for file_type in [FileType::F32, FileType::Q8_0, FileType::Q4_K_M] {
            let same = gguf_of(&onnx, file_type) == gguf_of(&family(name), file_type);
            assert!(same, "{name} as {file_type}: the ONNX model and the folder give different GGUF files");
        }
        as_folder(&onnx, &back, DType::BF16);
        let same = gguf_of(&back, FileType::F32) == gguf_of(&family(name), FileType::F32);
        assert!(same, "{name}: the folder and the one made from the ONNX model give different GGUF files");
    }
}

#[test]
fn a_folder_made_from_an_onnx_model_has_the_files_beside_it() {
    let scratch = tempfile::tempdir().unwrap();
    let [onnx, back] = ["onnx", "back"].map(|n| place(&scratch, n));
    as_onnx(&family("gemma3"), &onnx, OnnxType::F16);
    for other in ["other.onnx_data", "photograph.jpg", "genai_config.json"] {
        fs::write(onnx.join(other), b"{}").unwrap();
    }
    fs::create_dir(onnx.join("additional_chat_templates")).unwrap();
    fs::write(onnx.join("additional_chat_templates/tools.jinja"), b"{{ tools }}").unwrap();
    as_folder(&onnx, &back, DType::F16);
    let wanted = [
        "additional_chat_templates",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
    ];
    assert_eq!(names(&back), wanted);
    assert!(back.join("additional_chat_templates/tools.jinja").is_file());
    let config: Json = serde_json::from_slice(&fs::read(back.join("config.json")).unwrap()).unwrap();
    assert_eq!((&config["dtype"], &config["torch_dtype"]), (&"float16".into(), &"float16".into()));
    assert_eq!(config["tie_word_embeddings"], true);
    assert!(config.get("transformers.js_config").is_none());
}

/// Exporters split phi3's q, k and v. If embedding and head are tied, they store both, one of them
/// transposed.
#[test]
fn split_matrices_are_joined_and_tied_ones_stored_once() {
    use crate::support::onnx_llama::{CONFIG, D, VOCAB, llama, llama_without, values, write};

    let scratch = tempfile::tempdir().unwrap();
    let config = CONFIG.replace("llama", "phi3");
    let (tied, _) = write(&llama(), Some(&config));
    let embedding = values(&open(tied.path()), "token_embd");
    let (rows, cols) = (VOCAB as usize, D as usize);
    let column = |col: usize| (0..rows).map(move |row| row * cols + col);
    let turned: Vec<u8> = (0..cols).flat_map(column).flat_map(|at| embedding[at].to_le_bytes()).collect();
    let mut graph = llama_without(&["lm_head"]);
    graph.tensor("onnx::head", 1, &[D, VOCAB], &turned);
    graph.node("MatMul", "/lm_head/MatMul", &["x", "onnx::head"], &[]);
    let (twice, _) = write(&graph, Some(&config));
    let (base, made) = (open(twice.path()), place(&scratch, "made"));
    assert!(base.tensors().contains_key("output") && !base.tensors().contains_key("blk.0.attn_qkv"));

    as_onnx(twice.path(), &made, OnnxType::F32);
    let found = open(&made);
    assert!(!found.tensors().contains_key("output"), "the head was stored besides the embedding");
    assert!(found.tensors().contains_key("blk.0.attn_qkv") && found.tensors().contains_key("blk.0.ffn_up"));
    for name in base.targets("all", None).unwrap() {
        assert_eq!(values(&found, &name), values(&base, &name), "{name}");
    }
    // If the configuration says that they are not tied, both are stored.
    let apart = config.replace('{', "{\"tie_word_embeddings\": false,");
    let (apart, _) = write(&graph, Some(&apart));
    let own = place(&scratch, "own");
    as_onnx(apart.path(), &own, OnnxType::F32);
    assert!(open(&own).tensors().contains_key("output"));
}

#[test]
fn onnx_models_convert_to_onnx_models_of_other_types() {
    let scratch = tempfile::tempdir().unwrap();
    let [single, half] = ["single", "half"].map(|n| place(&scratch, n));
    as_onnx(&family("qwen3"), &single, OnnxType::F32);
    as_onnx(&single, &half, OnnxType::F16);
    // Not all bfloat16 weights are exact in float16.
    let (a, b) = (open(&family("qwen3")), open(&half));
    assert_eq!(b.weight("blk.0.attn_q").unwrap().dtype(), DType::F16);
    let far = |name: &str| {
        let [a, b] = [&a, &b].map(|base| base.weight(name).unwrap().vector());
        a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    assert!(far("blk.0.attn_q") < 2e-3 && far("blk.1.ffn_down") < 2e-3);
    let file = scratch.path().join("alone.onnx");
    let error = to_onnx(&open(&single), single.join("model.onnx"), &OnnxOptions::default(), |_, _| ());
    assert!(error.is_err(), "the output overwrote the input");
    to_onnx(&open(&single), &file, &OnnxOptions::default(), |_, _| ()).unwrap();
    assert_eq!(fs::read(file).unwrap(), fs::read(single.join("model.onnx")).unwrap());
}

/// Blocks of Q4_0 and of MatMulNBits hold the same numbers.
#[test]
fn four_bit_blocks_become_blocks_of_q4_0() {
    let scratch = tempfile::tempdir().unwrap();
    let onnx = place(&scratch, "onnx");
    as_onnx(&family("llama2"), &onnx, OnnxType::Q4_0);
    let file = scratch.path().join("four.gguf");
    let options = to_gguf::Options { file_type: Some(FileType::Q4_0), imatrix: None };
    to_gguf(&open(&onnx), &options, &file, &[], |_, _| ()).unwrap();
    let (gguf, onnx) = (open(&file), open(&onnx));
    let mut compared = 0;
    for (name, tensor) in gguf.tensors() {
        let blocks = onnx.tensors().get(name).is_some_and(|tensor| tensor.nbits.is_some());
        if tensor.dtype == DType::Q4_0 && blocks {
            compared += 1;
            let [a, b] = [&gguf, &onnx].map(|base| base.weight(name).unwrap().values_sha256());
            assert_eq!(a, b, "{name}");
        }
    }
    assert_eq!(compared, 14, "seven matrices of two blocks");
}

/// The digest of the values of each tensor.
fn digests(base: &Base) -> Vec<(String, String)> {
    let digest = |name: &String| (name.clone(), base.weight(name).unwrap().values_sha256());
    base.tensors().keys().map(digest).collect()
}

#[test]
fn small_exports_have_the_values_of_their_folder() {
    let right = digests(&open(&tiny("hf")));
    for name in ["optimum", "genai-fp32", "torch-dynamo"] {
        let scratch = tempfile::tempdir().unwrap();
        let out = place(&scratch, "out");
        as_folder(&tiny(name), &out, DType::F32);
        let made = open(&out);
        assert_eq!(digests(&made), right, "{name}");
        let (config, wanted) = (made.config(), open(&tiny("hf")));
        let wanted = wanted.config();
        assert_eq!((config.norm_eps, config.context), (wanted.norm_eps, wanted.context), "{name}");
        assert_eq!(config.rope.as_ref().unwrap().base, wanted.rope.as_ref().unwrap().base, "{name}");
        let json: Json = serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
        assert_eq!(json["tie_word_embeddings"], true, "{name}");
        assert_eq!(json["bos_token_id"], 1, "{name}");
    }
}

#[test]
fn a_small_export_in_four_bits_is_close_to_its_folder() {
    let scratch = tempfile::tempdir().unwrap();
    let out = place(&scratch, "out");
    as_folder(&tiny("genai-int4"), &out, DType::F32);
    let (made, right) = (open(&out), open(&tiny("hf")));
    for name in right.tensors().keys() {
        let [a, b] = [&made, &right].map(|base| base.weight(name).unwrap().vector());
        let largest = b.iter().fold(0.0, |a: f32, b| a.max(b.abs()));
        let far = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far < largest / 8.0, "{name}: {far} of {largest}");
    }
    // The builder stores embedding and head once.
    assert!(!made.tensors().contains_key("output"));
}

#[test]
fn a_model_in_a_subfolder_is_found() {
    let scratch = tempfile::tempdir().unwrap();
    let within = scratch.path().join("onnx");
    fs::create_dir(&within).unwrap();
    fs::copy(tiny("optimum").join("model.onnx"), within.join("model_fp32.onnx")).unwrap();
    fs::copy(tiny("optimum").join("config.json"), scratch.path().join("config.json")).unwrap();
    assert_eq!(resolve(scratch.path()).unwrap(), within.join("model_fp32.onnx"));
    let out = scratch.path().join("out");
    as_folder(scratch.path(), &out, DType::F32);
    assert_eq!(digests(&open(&out)), digests(&open(&tiny("hf"))));
    assert!(!out.join("onnx").exists());
}

/// A few bytes are changed at random places, in ways that matter to protobuf. Each model gives values or one
/// line of error.
#[test]
fn changed_bytes_never_panic() {
    let rounds: u32 = std::env::var("CURMERGE_ROUNDS").map_or(150, |rounds| rounds.parse().unwrap());
    let mut random = ChaCha20Rng::seed_from_u64(7);
    for name in ["optimum", "genai-fp32", "genai-int4", "torch-dynamo"] {
        let scratch = tempfile::tempdir().unwrap();
        copy(&tiny(name), scratch.path());
        let file = scratch.path().join("model.onnx");
        let whole = fs::read(&file).unwrap();
        for round in 0..rounds {
            let mut bytes = whole.clone();
            for _ in 0..1 + random.next_u32() % 3 {
                let at = random.next_u32() as usize % bytes.len();
                bytes[at] = match random.next_u32() % 4 {
                    0 => bytes[at] ^ 1 << (random.next_u32() % 8),
                    1 => bytes[at].wrapping_add(1),
                    2 => [0, 1, 127, 128, 255][random.next_u32() as usize % 5],
                    _ => bytes[random.next_u32() as usize % bytes.len()],
                };
            }
            fs::write(&file, bytes).unwrap();
            match Base::open_any(&file) {
                Ok(base) => {
                    base.tensors().keys().filter_map(|name| base.weight(name).ok()).for_each(|weight| {
                        weight.stream().for_each(drop);
                    })
                }
                Err(error) => assert!(!error.to_string().contains('\n'), "{name}, round {round}: {error}"),
            }
        }
    }
}
