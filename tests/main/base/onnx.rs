//! ONNX models as bases: how tensors are found and named, and which models are refused.

use std::fs;

use curmerge::base::{Base, Files};

use crate::support::onnx_llama::*;
use crate::support::onnx_writer::{FLOAT16, Graph, INT8, INT32, UINT8, Value};

fn open(graph: &Graph) -> Result<Base, String> {
    let (_folder, path) = write(graph, Some(CONFIG));
    Base::open(&path).map_err(|error| error.to_string())
}

#[track_caller]
fn refused(graph: &Graph, words: &[&str]) {
    let error = open(graph).expect_err("the model must be refused");
    assert!(words.iter().all(|word| error.contains(word)), "{error}");
    assert!(!error.contains('\n') && error.contains("model.onnx"), "{error}");
}

#[test]
fn names_paths_and_scopes_lead_to_the_same_matrices() {
    let plain = open(&llama()).unwrap();
    assert!(!plain.tensors().contains_key("output"), "the model has a head besides the embedding");
    let names: Vec<&String> = plain.tensors().keys().collect();
    assert_eq!(names.len(), MATRICES.len() + 4, "{names:?}");

    // The same matrix, found by other names and operators.
    let part = "self_attn.k_proj";
    let own = values(&plain, "blk.0.attn_k");
    let transposed: Vec<u8> = {
        let stored = plain.weight("blk.0.attn_k").unwrap().as_stored().0.vector();
        let (inputs, outputs) = (D as usize, D as usize / 2);
        let of = |output: usize, input: usize| stored[input * outputs + output];
        (0..outputs).flat_map(|o| (0..inputs).flat_map(move |i| of(o, i).to_le_bytes())).collect()
    };
    let data: Vec<u8> = {
        let stored = plain.weight("blk.0.attn_k").unwrap().as_stored().0.vector();
        stored.iter().flat_map(|x| x.to_le_bytes()).collect()
    };
    let scopes = "['', 'model', 'model.layers.0', 'model.layers.0.self_attn.k_proj', 'linear_1']";
    let wrapped =
        "['', 'model', 'model.model.layers.0', 'model.model.layers.0.self_attn.k_proj', 'linear_1']";
    let key = "pkg.torch.onnx.name_scopes";
    let mut named = llama_without(&[part]);
    named.tensor("model.layers.0.attn.k_proj.MatMul.weight", 1, &[D, D / 2], &data);
    named.node("MatMul", "node_MatMul_7", &["x", "model.layers.0.attn.k_proj.MatMul.weight"], &[]);
    let mut scoped = llama_without(&[part]);
    scoped.tensor("val_7", 1, &[D, D / 2], &data);
    scoped.node_to("MatMul", "node_linear_7", &["x", "val_7"], "y", &[], &[(key, scopes)]);
    let mut within = llama_without(&[part]);
    within.tensor("val_7", 1, &[D, D / 2], &data);
    within.node_to("MatMul", "node_linear_7", &["x", "val_7"], "y", &[], &[(key, wrapped)]);
    let mut transpose = llama_without(&[part]);
    transpose.tensor("model.model.layers.0.self_attn.k_proj.weight", 1, &[D / 2, D], &transposed);
    let identity = transpose.node("Identity", "i", &["model.model.layers.0.self_attn.k_proj.weight"], &[]);
    let turned = transpose.node("Transpose", "t", &[&identity], &[("perm", Value::Ints(vec![1, 0]))]);
    transpose.node("MatMul", "m", &["x", &turned], &[]);
    let mut gemm = llama_without(&[part]);
    gemm.tensor("onnx::Gemm_7", 1, &[D / 2, D], &transposed);
    let name = format!("{}/Gemm", path_of(part));
    gemm.node("Gemm", &name, &["x", "onnx::Gemm_7"], &[("transB", Value::Int(1))]);
    for (graph, how) in [
        (named, "builder"),
        (scoped, "scopes"),
        (within, "wrapped"),
        (transpose, "transposed"),
        (gemm, "gemm"),
    ] {
        let base = open(&graph).unwrap_or_else(|error| panic!("{how}: {error}"));
        assert_eq!(values(&base, "blk.0.attn_k"), own, "{how}");
        assert!(base.tensors().keys().eq(plain.tensors().keys()), "{how}");
    }
}

#[test]
fn a_separate_head_and_half_precision_are_read() {
    let mut copied = llama_without(&["self_attn.q_proj", "lm_head"]);
    copied.floats("onnx::MatMul_99", &[D, VOCAB]);
    copied.node("MatMul", "/lm_head/MatMul", &["x", "onnx::MatMul_99"], &[]);
    let halves: Vec<u8> =
        (0..D * D).flat_map(|i| half::f16::from_f32(i as f32 / 64.0).to_le_bytes()).collect();
    copied.tensor("q", FLOAT16, &[D, D], &halves);
    let cast = copied.node("Cast", "c", &["q"], &[("to", Value::Int(1))]);
    copied.node("MatMul", "/model/layers.0/self_attn/q_proj/MatMul", &["x", &cast], &[]);
    let base = open(&copied).unwrap();
    assert_eq!(base.tensors()["output"].stored_name, "onnx::MatMul_99");
    // Heads have 8 rows. Stored rows 0 and 4 are neighbours in the canonical layout.
    let q = values(&base, "blk.0.attn_q");
    assert_eq!((q[0], q[D as usize], q[D as usize + 1]), (0.0, 4.0 / 64.0, 20.0 / 64.0));
}

/// A bias is recognized by its node, not by its name. None is silently left out.
#[test]
fn biases_of_products_are_read_or_refused() {
    let mut added = llama();
    added.floats("b", &[D]);
    let product =
        added.node("MatMul", "/model/layers.0/self_attn/q_proj/MatMul", &["x", "onnx::MatMul_0"], &[]);
    added.node("Add", "n", &["b", &product], &[]);
    let base = open(&added).unwrap();
    assert_eq!(base.tensors()["blk.0.attn_q.bias"].stored_name, "b");
    let mut fused = llama();
    fused.floats("bias", &[2 * D]);
    let inputs = ["q", "k", "v", "bias"];
    fused.node("MultiHeadAttention", "a", &inputs, &[]);
    refused(&fused, &["MultiHeadAttention", "input 3"]);
}

/// PyTorch's exporter stores equal tensors once, under one name.
#[test]
fn a_shared_tensor_is_named_after_each_of_its_nodes() {
    let mut graph = llama();
    graph.remove("model.norm.weight");
    let config = CONFIG;
    let (_folder, path) = write(&graph, Some(config));
    assert!(Base::open(&path).is_err());
    graph.node("Mul", "/model/norm/Mul_1", &["model.layers.0.input_layernorm.weight", "x"], &[]);
    let base = open(&graph).unwrap();
    assert_eq!(base.tensors()["output_norm"].stored_name, "model.layers.0.input_layernorm.weight");
}

/// A llama whose gate matrix is stored in blocks, without the node that multiplies by it.
fn in_blocks(change: impl Fn(&mut Graph)) -> Graph {
    let part = "mlp.gate_proj";
    let mut graph = llama_without(&[part]);
    let codes: Vec<u8> = (0..FF * D / 2).map(|i| (i * 37) as u8).collect();
    graph.tensor("codes", UINT8, &[FF, 1, D / 2], &codes);
    graph.floats("scales", &[FF, 1]);
    graph.tensor("zeros", UINT8, &[FF, 1], &(0..FF).map(|i| i as u8 % 16).collect::<Vec<_>>());
    change(&mut graph);
    graph
}

/// Adds the node that multiplies by the gate matrix.
fn nbits(graph: &mut Graph, inputs: &[&str], n: i64, bits: i64, block: i64) {
    let attributes = [
        ("N", Value::Int(n)),
        ("K", Value::Int(D as i64)),
        ("bits", Value::Int(bits)),
        ("block_size", Value::Int(block)),
    ];
    graph.node("MatMulNBits", "/model/layers.0/mlp/gate_proj/MatMul_Q4", inputs, &attributes);
}

#[test]
fn blocks_are_decoded_and_malformed_ones_refused() {
    let all = ["x", "codes", "scales", "zeros"];
    let good = open(&in_blocks(|graph| nbits(graph, &all, FF as i64, 4, 16))).unwrap();
    let gate = good.weight("blk.0.ffn_gate").unwrap();
    let (mut row, mut scales) = ([0.0; D as usize], [0.0]);
    gate.decode_row(3, &mut row);
    gate.nbits().unwrap().scales_of(3, &mut scales);
    // The first byte of the row's codes is 3 * 8 * 37 = 888 modulo 256, which is 0x78. The zero point is 3.
    assert_eq!(row[..2], [(8.0 - 3.0) * scales[0], (7.0 - 3.0) * scales[0]]);

    let biased = open(&in_blocks(|graph| {
        graph.floats("bias", &[FF]);
        nbits(graph, &["x", "codes", "scales", "", "", "bias"], FF as i64, 4, 16);
    }));
    assert_eq!(biased.unwrap().vector("blk.0.ffn_gate.bias").unwrap().len(), FF as usize);

    let bad = |words: &[&str], change: &dyn Fn(&mut Graph)| refused(&in_blocks(change), words);
    let rows = FF as i64;
    bad(&["MatMulNBits", "scales are missing"], &|g| nbits(g, &["x", "codes", "none"], rows, 4, 16));
    bad(&["MatMulNBits", "scales have 31"], &|g| {
        g.floats("scales", &[FF - 1, 1]);
        nbits(g, &all, rows, 4, 16);
    });
    bad(&["codes have 256"], &|g| nbits(g, &["x", "codes", "scales"], 64, 4, 16));
    bad(&["MatMulNBits", "codes have 256"], &|g| nbits(g, &["x", "codes", "scales"], 1 << 39, 4, 16));
    bad(&["N is missing or out of range"], &|g| nbits(g, &["x", "codes", "scales"], i64::MIN, 4, 16));
    bad(&["3 bits"], &|g| nbits(g, &["x", "codes", "scales"], rows, 3, 16));
    bad(&["block_size is 24"], &|g| nbits(g, &["x", "codes", "scales"], rows, 4, 24));
    bad(&["block_size is 8"], &|g| nbits(g, &["x", "codes", "scales"], rows, 4, 8));
    bad(&["codes have 256"], &|g| nbits(g, &["x", "codes", "scales"], rows, 8, 16));
    bad(&["scales are INT32"], &|g| {
        g.tensor("scales", INT32, &[FF, 1], &[0; 4 * FF as usize]);
        nbits(g, &all, rows, 4, 16);
    });
    bad(&["zero points have 31"], &|g| {
        g.tensor("zeros", UINT8, &[FF - 1], &[0; FF as usize - 1]);
        nbits(g, &all, rows, 4, 16);
    });
    bad(&["g_idx"], &|g| nbits(g, &["x", "codes", "scales", "", "zeros"], rows, 4, 16));
    bad(&["codes are INT8"], &|g| {
        g.tensor("codes", INT8, &[FF, 1, D / 2], &[0; (FF * D / 2) as usize]);
        nbits(g, &all, rows, 4, 16);
    });
}

#[test]
fn parts_of_joined_matrices_are_read_and_must_fit() {
    let parts = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
    let joined = |outputs: u64| {
        let mut graph = llama_without(&parts);
        graph.floats("model.layers.0.attn.qkv_proj.MatMul.weight", &[D, outputs]);
        let inputs = ["x", "model.layers.0.attn.qkv_proj.MatMul.weight"];
        graph.node("MatMul", "/model/layers.0/attn/qkv_proj/MatMul", &inputs, &[]);
        graph
    };
    let base = open(&joined(2 * D)).unwrap();
    let whole = base.stored_weight("blk.0.attn_k").unwrap();
    assert_eq!((whole.rows(), whole.cols()), (2 * D as usize, D as usize));
    // Canonical row 1 of k is stored row 4 of its head. The rows of q come first.
    let mut row = [0.0; D as usize];
    whole.decode_row(D as usize + 4, &mut row);
    assert_eq!(values(&base, "blk.0.attn_k")[D as usize..2 * D as usize], row);
    let digests = ["q", "k", "v"].map(|p| base.weight(&format!("blk.0.attn_{p}")).unwrap().stored_sha256());
    assert!(digests[0] != digests[1] && digests[1] != digests[2]);
    refused(&joined(2 * D + 1), &["33 outputs where the configuration says 32"]);
}

#[test]
fn models_that_cannot_be_read_are_refused() {
    let q = "/model/layers.0/self_attn/q_proj/MatMul";
    let without = || llama_without(&["self_attn.q_proj"]);
    refused(&without(), &["blk.0.attn_q", "missing"]);

    let mut graph = without();
    graph.floats("cube", &[2, D, D / 2]);
    graph.node("MatMul", q, &["x", "cube"], &[]);
    refused(&graph, &["blk.0.attn_q", "missing"]);

    let mut graph = without();
    graph.floats("q", &[D, D + 2]);
    graph.node("MatMul", q, &["x", "q"], &[]);
    refused(&graph, &["blk.0.attn_q", "shape [18, 16] where the configuration says [16, 16]"]);

    let mut graph = without();
    graph.node_to("Identity", "a", &["two"], "one", &[], &[]);
    graph.node_to("Identity", "b", &["one"], "two", &[], &[]);
    graph.node("MatMul", q, &["x", "one"], &[]);
    refused(&graph, &["q_proj/MatMul", "cycle"]);

    let mut graph = without();
    graph.tensor("q8", INT8, &[D, D], &[1; (D * D) as usize]);
    graph.floats("s", &[1]);
    let dequantized = graph.node("DequantizeLinear", "dq", &["q8", "s"], &[]);
    graph.node("MatMul", q, &["x", &dequantized], &[]);
    refused(&graph, &["q_proj/MatMul", "DequantizeLinear", "MatMulNBits"]);

    let mut graph = without();
    graph.tensor("q8", INT8, &[D, D], &[1; (D * D) as usize]);
    graph.node("MatMulInteger", &format!("{q}_quant"), &["x8", "q8"], &[]);
    refused(&graph, &["MatMulInteger", "export the model"]);

    let mut graph = llama();
    graph.floats("lora", &[D, 4]);
    graph.node("MatMul", "/model/layers.0/self_attn/q_proj/lora_A/MatMul", &["x", "lora"], &[]);
    refused(&graph, &["lora_A", "knows no such matrix of 'llama' models"]);

    let mut graph = llama();
    graph.floats("other", &[D, D]);
    graph.node("MatMul", &format!("{q}_1"), &["x", "other"], &[]);
    refused(&graph, &["blk.0.attn_q", "'onnx::MatMul_0' and 'other'"]);

    let mut graph = llama();
    graph.floats("b", &[D]);
    graph.node("Add", "/model/layers.0/input_layernorm/Add", &["x", "b"], &[]);
    refused(&graph, &["bias", "blk.0.attn_norm"]);

    let mut graph = llama();
    graph.node("RotaryEmbedding", "rope", &["x", "cos", "sin"], &[("interleaved", Value::Int(1))]);
    refused(&graph, &["RotaryEmbedding", "adjacent entries of heads (interleaved)"]);
    // GLM's pairs are neighbours.
    let (folder, path) = write(&graph, Some(&CONFIG.replace("llama", "glm4")));
    let error = Base::open(&path).unwrap_err().to_string();
    assert!(!error.contains("it rotates"), "{error}");
    let mut graph = llama();
    graph.node("RotaryEmbedding", "rope", &["x", "cos", "sin"], &[]);
    drop(folder);
    let (_folder, path) = write(&graph, Some(&CONFIG.replace("llama", "glm4")));
    let error = Base::open(&path).unwrap_err().to_string();
    assert!(error.contains("it rotates halves of heads"), "{error}");

    let mut graph = without();
    graph.floats("q", &[D, D]);
    let attributes = [("alpha", Value::Float(0.5))];
    graph.node("Gemm", "/model/layers.0/self_attn/q_proj/Gemm", &["x", "q"], &attributes);
    refused(&graph, &["Gemm", "alpha is not 1"]);

    let mut graph = Graph::default();
    let branch = [("then_branch", Value::Graph(llama())), ("else_branch", Value::Graph(llama()))];
    graph.node("If", "optimum::if", &["use_cache_branch"], &branch);
    refused(&graph, &["If", "decoder_model_merged"]);
}

#[test]
fn a_configuration_beside_the_model_is_needed_and_found() {
    let (folder, path) = write(&llama(), None);
    let error = Base::open(&path).unwrap_err().to_string();
    assert!(error.contains("put the model's config.json beside it"), "{error}");
    fs::write(folder.path().join("genai_config.json"), "{").unwrap();
    assert!(Base::open(&path).unwrap_err().to_string().contains("genai_config.json"));
    fs::write(folder.path().join("config.json"), CONFIG).unwrap();
    assert_eq!(Base::open(&path).unwrap().container(), "onnx");
    // A folder with one ONNX file stands for that file. Of two, one must be named.
    assert_eq!(Base::open(folder.path()).unwrap().path(), path);
    fs::copy(&path, folder.path().join("other.onnx")).unwrap();
    let error = Base::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("model.onnx and other.onnx"), "{error}");
    // The layout of transformers.js.
    let below = folder.path().join("onnx");
    fs::create_dir(&below).unwrap();
    fs::rename(&path, below.join("model.onnx")).unwrap();
    fs::remove_file(folder.path().join("other.onnx")).unwrap();
    assert!(Base::open(folder.path()).is_ok() && Base::open(below.join("model.onnx")).is_ok());
}

const GENAI: &str = r#"{"model": {"type": "llama", "context_length": 64, "vocab_size": 6, "decoder": {"head_size": 8,
    "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "num_key_value_heads": 1}}}"#;

/// The llama with what onnxruntime-genai's builder adds: epsilon, attention nodes, and tables of cosines and
/// sines for this RoPE base.
fn genai(base: f64, window: i64) -> Graph {
    let mut graph = llama();
    let epsilon = [("epsilon", Value::Float(1e-5))];
    graph.node("SimplifiedLayerNormalization", "n", &["x", "model.norm.weight"], &epsilon);
    for (name, function) in [("cos", f64::cos as fn(f64) -> f64), ("sin", f64::sin)] {
        let angles = (0..64).flat_map(|p| (0..4).map(move |i| f64::from(p) * base.powf(-f64::from(i) / 4.0)));
        let data: Vec<u8> = angles.flat_map(|angle| (function(angle) as f32).to_le_bytes()).collect();
        graph.tensor(&format!("{name}_cache"), 1, &[64, 4], &data);
    }
    let inputs = ["q", "", "", "pk", "pv", "s", "t", "cos_cache", "sin_cache"];
    let attributes = [
        ("scale", Value::Float(0.25)),
        ("local_window_size", Value::Int(window)),
        ("do_rotary", Value::Int(1)),
    ];
    graph.node("GroupQueryAttention", "/model/layers.0/attn/GroupQueryAttention", &inputs, &attributes);
    graph
}

#[test]
fn the_configuration_is_read_from_genai_config_and_graph() {
    let open = |graph: &Graph, genai: &str| {
        let (folder, path) = write(graph, None);
        fs::write(folder.path().join("genai_config.json"), genai).unwrap();
        Base::open(&path).map_err(|error| error.to_string())
    };
    let base = open(&genai(50_000.0, -1), GENAI).unwrap();
    let config = base.config();
    let rope = config.rope.as_ref().unwrap();
    assert_eq!((rope.base, rope.dim, rope.amplitude, &rope.factors), (50_000.0, 8, 1.0, &None));
    assert_eq!((config.norm_eps, config.attention_scale, config.attention_cap), (1e-5, 0.25, None));
    assert_eq!((config.ff, config.context, config.window), (FF as usize, 64, None));
    let windowed = open(&genai(10_000.0, 16), GENAI).unwrap();
    assert_eq!((windowed.config().window, &windowed.config().windowed), (Some(16), &vec![true]));

    let bad = |graph: &Graph, genai: &str, words: &[&str]| {
        let error = open(graph, genai).expect_err("the model must be refused");
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    let mut moved = genai(50_000.0, -1);
    moved.tensor("sin_cache", 1, &[64, 4], &[0; 1024]);
    bad(&moved, GENAI, &["cos_cache", "put the model's config.json beside it"]);
    let mut wide = genai(50_000.0, -1);
    ["cos_cache", "sin_cache"].iter().for_each(|name| wide.floats(name, &[16, 16]));
    bad(&wide, GENAI, &["wider than a head"]);
    let mut second = genai(50_000.0, -1);
    let epsilon = [("epsilon", Value::Float(1e-6))];
    second.node("SimplifiedLayerNormalization", "m", &["x", "model.norm.weight"], &epsilon);
    bad(&second, GENAI, &["norms", "different ones"]);
    bad(&llama(), GENAI, &["attention", "0 nodes of 1 blocks"]);
    bad(&genai(50_000.0, -1), &GENAI.replace("\"head_size\": 8", "\"head_size\": -8"), &["head_size"]);
    bad(&genai(50_000.0, -1), &GENAI.replace("16", "18"), &["shape"]);
    bad(&genai(50_000.0, -1), &GENAI.replace("_layers\": 1", "_layers\": 99999999999"), &["99999999999"]);
    bad(&genai(50_000.0, -1), &GENAI.replace("\"llama\"", "\"gpt2\""), &["not say enough about gpt2"]);
    bad(&genai(50_000.0, -1), &GENAI.replace("\"llama\"", "\"whale\""), &["'whale' is not known"]);
}

#[test]
fn an_adapter_beside_the_model_is_not_taken_for_a_model() {
    let (folder, _) = write(&llama(), Some(CONFIG));
    fs::write(folder.path().join("adapter.safetensors"), "").unwrap();
    assert_eq!(Base::open(folder.path()).unwrap().container(), "onnx");
}

/// The layout of transformers.js has the model in a subfolder called onnx, and its configuration in the
/// parent folder.
#[test]
fn only_a_folder_called_onnx_counts_as_a_subfolder() {
    let (folder, path) = write(&llama(), Some(CONFIG));
    let within = |path: &std::path::Path| match Base::open(path).unwrap().files() {
        Files::Onnx(model) => model.is_in_subfolder(),
        _ => unreachable!(),
    };
    fs::create_dir(folder.path().join("below")).unwrap();
    assert!(!within(&path) && !within(&folder.path().join("below/../model.onnx")));
    fs::create_dir(folder.path().join("onnx")).unwrap();
    fs::rename(&path, folder.path().join("onnx/model.onnx")).unwrap();
    assert!(within(&folder.path().join("onnx/model.onnx")));
}

#[test]
fn every_way_of_reading_gives_the_same_numbers() {
    let parts = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
    let mut joined = llama_without(&parts);
    joined.floats("model.layers.0.attn.qkv_proj.MatMul.weight", &[D, 2 * D]);
    let inputs = ["x", "model.layers.0.attn.qkv_proj.MatMul.weight"];
    joined.node("MatMul", "/model/layers.0/attn/qkv_proj/MatMul", &inputs, &[]);
    let blocks = in_blocks(|graph| nbits(graph, &["x", "codes", "scales", "zeros"], FF as i64, 4, 16));
    for (graph, names) in [
        (llama(), vec!["blk.0.attn_q", "blk.0.attn_k", "blk.0.attn_v", "token_embd"]),
        (joined, vec!["blk.0.attn_q", "blk.0.attn_k", "blk.0.attn_v"]),
        (blocks, vec!["blk.0.ffn_gate"]),
    ] {
        let base = open(&graph).unwrap();
        for name in names {
            let weight = base.weight(name).unwrap();
            let (rows, cols) = (weight.rows(), weight.cols());
            let mut all = vec![0.0; rows * cols];
            all.chunks_exact_mut(cols).enumerate().for_each(|(row, out)| weight.decode_row(row, out));
            // Ranges within a head and across heads, short and long.
            for range in [0..rows, 1..rows, 3..rows.min(5), 2..rows - 1] {
                let mut some = vec![0.0; range.len() * cols];
                weight.decode_rows(range.clone(), &mut some);
                assert_eq!(some, all[range.start * cols..range.end * cols], "{name} {range:?}");
                let Some(transpose) = weight.stored_transpose(range.clone()) else { continue };
                let mut column = vec![0.0; range.len()];
                transpose.decode_row(7, &mut column);
                let right: Vec<f32> = range.map(|row| all[row * cols + 7]).collect();
                assert_eq!(column, right, "{name}");
            }
            let streamed: Vec<f32> = weight.stream().flat_map(|(_, values)| values).collect();
            assert_eq!(streamed, all, "{name}");
            let rows = [&all[2 * cols..3 * cols], &all[5 * cols..6 * cols]].concat();
            assert_eq!(weight.gather_rows(&[2, 5]), rows, "{name}");
            let columns: Vec<f32> = all.chunks_exact(cols).flat_map(|row| [row[1], row[9]]).collect();
            assert_eq!(weight.gather_columns(&[1, 9]), columns, "{name}");
        }
    }
}
