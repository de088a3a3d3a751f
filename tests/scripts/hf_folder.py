#!/usr/bin/env python3
"""Writes a llama GGUF file as a Hugging Face folder with the same values: hf_folder.py IN.gguf FOLDER

The weights become float32 in two shards with an index. The tokenizer is byte-level BPE with GPT-2's
pre-tokenizer. It is rebuilt from the GGUF file's vocabulary and merges.
"""

import json
import pathlib
import sys

import gguf
import numpy as np
from safetensors.numpy import save_file

from layout import Names, unpermute


def tokenizer_json(tokens, types, merges, bos):
    special = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
                "special": True} for i, (t, kind) in enumerate(zip(tokens, types)) if kind == gguf.TokenType.CONTROL]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    begin = {"SpecialToken": {"id": tokens[bos], "type_id": 0}}
    sequence = lambda name, kind: {"Sequence": {"id": name, "type_id": kind}}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
        "pre_tokenizer": byte_level, "decoder": byte_level,
        "post_processor": {
            "type": "TemplateProcessing", "single": [begin, sequence("A", 0)],
            "pair": [begin, sequence("A", 0), sequence("B", 1)],
            "special_tokens": {tokens[bos]: {"id": tokens[bos], "ids": [bos], "tokens": [tokens[bos]]}}},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {t: i for i, t in enumerate(tokens)}, "merges": [m.split(" ") for m in merges]},
    }


def save_weights(reader, heads, folder):
    tensors = {}
    for tensor in reader.tensors:
        w = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        name = tensor.name.removesuffix(".weight")
        part = name.rsplit(".", 1)[-1]
        w = unpermute(w, heads[part]) if part in heads else w
        tensors[Names.to_hf(name)] = np.ascontiguousarray(w, np.float32)
    names = sorted(tensors)
    middle, weight_map = len(names) // 2, {}
    for number, part in enumerate((names[:middle], names[middle:]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({n: tensors[n] for n in part}, folder / file, metadata={"format": "pt"})
        weight_map |= {n: file for n in part}
    total = sum(w.nbytes for w in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def main():
    folder = pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    reader = gguf.GGUFReader(sys.argv[1])
    field = lambda name: reader.fields[name].contents()
    heads, kv_heads = field("llama.attention.head_count"), field("llama.attention.head_count_kv")
    save_weights(reader, {"attn_q": heads, "attn_k": kv_heads}, folder)
    tokens, bos = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.bos_token_id")
    eos = field("tokenizer.ggml.eos_token_id")
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "vocab_size": len(tokens),
        "hidden_size": field("llama.embedding_length"), "intermediate_size": field("llama.feed_forward_length"),
        "num_hidden_layers": field("llama.block_count"), "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "max_position_embeddings": field("llama.context_length"),
        "rms_norm_eps": field("llama.attention.layer_norm_rms_epsilon"), "rope_theta": field("llama.rope.freq_base"),
        "tie_word_embeddings": True, "bos_token_id": bos, "eos_token_id": eos, "torch_dtype": "float32"}
    write = lambda name, value: (folder / name).write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    write("config.json", config)
    write("tokenizer.json", tokenizer_json(
        tokens, field("tokenizer.ggml.token_type"), field("tokenizer.ggml.merges"), bos))
    settings = {"bos_token": tokens[bos], "eos_token": tokens[eos], "tokenizer_class": "PreTrainedTokenizerFast"}
    if "tokenizer.chat_template" in reader.fields:
        settings["chat_template"] = field("tokenizer.chat_template")
    write("tokenizer_config.json", settings)


if __name__ == "__main__":
    main()
