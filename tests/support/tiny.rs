//! A random llama of one block, small enough to merge in a test, as a GGUF file and as a Hugging Face folder
//! with equal values.

use std::collections::BTreeMap;
use std::path::Path;

use curmerge_formats::dtype::DType;
use curmerge_formats::gguf::{GgufLayout, NewTensor, Value};
use curmerge_formats::quant::{encode, encode_with_fixed_scales};
use curmerge_formats::safetensors::{NewSafeTensor, SafeTensorsLayout};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The width of the model. The largest quantized blocks have 256 values.
pub const D: u64 = 256;
const HEADS: u64 = 4;
const KV: u64 = 2;
const VOCAB: u64 = 12;

/// The canonical name, Hugging Face's name, `[out, in]`, and the heads if rows are rotary, else 0.
const TENSORS: &[(&str, &str, &[u64], u64)] = &[
    ("token_embd", "model.embed_tokens", &[VOCAB, D], 0),
    ("output_norm", "model.norm", &[D], 0),
    ("blk.0.attn_norm", "model.layers.0.input_layernorm", &[D], 0),
    ("blk.0.attn_q", "model.layers.0.self_attn.q_proj", &[D, D], HEADS),
    ("blk.0.attn_k", "model.layers.0.self_attn.k_proj", &[D / 2, D], KV),
    ("blk.0.attn_v", "model.layers.0.self_attn.v_proj", &[D / 2, D], 0),
    ("blk.0.attn_output", "model.layers.0.self_attn.o_proj", &[D, D], 0),
    ("blk.0.ffn_norm", "model.layers.0.post_attention_layernorm", &[D], 0),
    ("blk.0.ffn_gate", "model.layers.0.mlp.gate_proj", &[D, D], 0),
    ("blk.0.ffn_up", "model.layers.0.mlp.up_proj", &[D, D], 0),
    ("blk.0.ffn_down", "model.layers.0.mlp.down_proj", &[D, D], 0),
];

/// A number in [-1, 1).
pub fn uniform(stream: &mut ChaCha20Rng) -> f32 {
    (stream.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0
}

/// The values of a tensor in the canonical layout. They are exact in BF16.
fn values(name: &str, shape: &[u64]) -> Vec<f32> {
    let mut seed = [0; 32];
    seed[..name.len()].copy_from_slice(name.as_bytes());
    let mut stream = ChaCha20Rng::from_seed(seed);
    let count = shape.iter().product::<u64>();
    (0..count).map(|_| f32::from_bits((0.1 * uniform(&mut stream)).to_bits() & 0xffff_0000)).collect()
}

fn encoded(dtype: DType, values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; dtype.bytes_for(values.len() as u64).unwrap() as usize];
    if dtype.can_encode() {
        encode(dtype, values, &mut bytes).unwrap();
        return bytes;
    }
    // Scales that suit the values: 0.05, and 1/128 for NVFP4, whose levels go up to 12.
    let scale = half::f16::from_f32(0.05).to_le_bytes();
    for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
        match dtype {
            DType::NVFP4 => block[..4].fill(8),
            DType::TQ1_0 | DType::TQ2_0 => block[dtype.block_bytes() - 2..].copy_from_slice(&scale),
            _ => block[..2].copy_from_slice(&scale),
        }
    }
    encode_with_fixed_scales(dtype, &bytes.clone(), values, &mut bytes).unwrap();
    bytes
}

/// Writes the model as a GGUF file: the attention matrices in `dtype`, all other tensors in F32.
pub fn write_gguf(path: &Path, dtype: DType) {
    let number = |key: &str, value: u64| (format!("llama.{key}"), Value::U32(value as u32));
    let metadata = vec![
        ("general.architecture".to_string(), Value::String("llama".into())),
        ("general.name".to_string(), Value::String("tiny".into())),
        number("block_count", 1),
        number("embedding_length", D),
        number("feed_forward_length", D),
        number("attention.head_count", HEADS),
        number("attention.head_count_kv", KV),
        number("context_length", 64),
        ("llama.attention.layer_norm_rms_epsilon".to_string(), Value::F32(1e-5)),
    ];
    let dtype_of =
        |name: &str| if name.contains(".attn_") && !name.ends_with("norm") { dtype } else { DType::F32 };
    let tensors = TENSORS.iter().map(|(name, _, shape, _)| NewTensor {
        name: format!("{name}.weight"),
        dtype: dtype_of(name),
        dims: shape.iter().rev().copied().collect(),
    });
    let layout = GgufLayout::new(3, 32, &metadata, tensors.collect()).unwrap();
    let mut file = layout.header().to_vec();
    for (place, (name, _, shape, _)) in layout.tensors().iter().zip(TENSORS) {
        file.resize(place.offset as usize, 0);
        file.extend(encoded(place.dtype, &values(name, shape)));
    }
    file.resize(layout.file_bytes() as usize, 0);
    std::fs::write(path, file).unwrap();
}

/// Writes the model as a folder of three safetensors files in BF16 with an index, a tokenizer and a
/// subfolder.
pub fn write_folder(folder: &Path) {
    std::fs::create_dir_all(folder.join("extra")).unwrap();
    let config = format!(
        "{{\"model_type\": \"llama\", \"hidden_size\": {D}, \"num_attention_heads\": {HEADS}, \
         \"num_key_value_heads\": {KV}, \"num_hidden_layers\": 1, \"intermediate_size\": {D}, \"vocab_size\": {VOCAB}, \
         \"rms_norm_eps\": 1e-5}}"
    );
    std::fs::write(folder.join("config.json"), config).unwrap();
    std::fs::write(folder.join("tokenizer.json"), "{\"any\": \"text\"}").unwrap();
    std::fs::write(folder.join("extra").join("notes.txt"), "carried along").unwrap();
    let mut map = BTreeMap::new();
    let mut total = 0;
    for (number, part) in TENSORS.chunks(5).enumerate() {
        let file_name = format!("model-{:05}-of-00003.safetensors", number + 1);
        let tensors = part.iter().map(|(_, name, shape, _)| NewSafeTensor {
            name: format!("{name}.weight"),
            dtype: DType::BF16,
            shape: shape.to_vec(),
        });
        let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
        let layout = SafeTensorsLayout::new(&metadata, tensors.collect()).unwrap();
        let mut file = layout.header().to_vec();
        for (canonical, name, shape, heads) in part {
            let stored = stored_order(&values(canonical, shape), shape, *heads);
            let bytes = encoded(DType::BF16, &stored);
            total += bytes.len();
            file.extend(bytes);
            map.insert(format!("{name}.weight"), file_name.clone());
        }
        std::fs::write(folder.join(file_name), file).unwrap();
    }
    let index = serde_json::json!({ "metadata": { "total_size": total }, "weight_map": map });
    std::fs::write(folder.join("model.safetensors.index.json"), format!("{index:#}\n")).unwrap();
}

/// Reorders rows from the canonical layout to Hugging Face's: row `2 i + half` of each head becomes row
/// `half * rows / 2 + i`.
fn stored_order(values: &[f32], shape: &[u64], heads: u64) -> Vec<f32> {
    if heads == 0 {
        return values.to_vec();
    }
    let (rows, cols) = (shape[0] / heads, shape[1] as usize);
    let mut stored = vec![0.0; values.len()];
    for head in 0..heads {
        for i in 0..rows / 2 {
            for half in 0..2 {
                let from = (head * rows + 2 * i + half) as usize * cols;
                let to = (head * rows + half * rows / 2 + i) as usize * cols;
                stored[to..to + cols].copy_from_slice(&values[from..from + cols]);
            }
        }
    }
    stored
}
