#!/usr/bin/env python3
"""Measures merges into mixtures of experts of true shapes, with random weights.

    mixtures.py CURMERGE DIR [--layers 4] [--only gpt-oss|qwen35moe]

It writes two GGUF files into DIR: gpt-oss 20B's shape with experts in MXFP4 and the rest in BF16, and Qwen 3.5
35B-A3B's shape in Q4_K. It writes a GGUF LoRA of rank 16 for each, on every matrix of attention, of the recurrent
layers and of every expert. It merges the LoRA and prints the sizes of both, wall seconds, processor seconds and the peak
of anonymous memory. All layers need --layers 24 and --layers 40, 13 and 20 GB, and as much for the output. The
vocabulary is made up. Needs numpy and gguf.
"""

import argparse
import pathlib

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from merge import timed

RANK = 16


def gpt_oss(layers):
    width, feed, experts, heads, kv, head = 2880, 2880, 32, 64, 8, 64
    keys = {
        "context_length": 131072, "embedding_length": width, "block_count": layers, "feed_forward_length": feed,
        "expert_feed_forward_length": feed, "expert_count": experts, "expert_used_count": 4,
        "attention.head_count": heads, "attention.head_count_kv": kv, "attention.key_length": head,
        "attention.value_length": head, "attention.sliding_window": 128, "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 150000.0, "rope.scaling.type": "yarn", "rope.scaling.factor": 32.0,
        "rope.scaling.original_context_length": 4096,
    }
    vocabulary = 201088
    tensors = [("token_embd.weight", (vocabulary, width), Type.BF16), ("output.weight", (vocabulary, width), Type.BF16)]
    tensors.append(("output_norm.weight", (width,), Type.F32))
    for layer in range(layers):
        at = f"blk.{layer}."
        for part, rows, columns in (("q", heads * head, width), ("k", kv * head, width), ("v", kv * head, width),
                                    ("output", width, heads * head)):
            tensors.append((f"{at}attn_{part}.weight", (rows, columns), Type.BF16))
            tensors.append((f"{at}attn_{part}.bias", (rows,), Type.F32))
        tensors.append((f"{at}attn_sinks.weight", (heads,), Type.F32))
        for part, rows, columns in (("gate", feed, width), ("up", feed, width), ("down", width, feed)):
            tensors.append((f"{at}ffn_{part}_exps.weight", (experts, rows, columns), Type.MXFP4))
            tensors.append((f"{at}ffn_{part}_exps.bias", (experts, rows), Type.F32))
        tensors.append((f"{at}ffn_gate_inp.weight", (experts, width), Type.F32))
        tensors.append((f"{at}ffn_gate_inp.bias", (experts,), Type.F32))
        tensors += [(f"{at}{norm}.weight", (width,), Type.F32) for norm in ("attn_norm", "post_attention_norm")]
    return keys, vocabulary, "gpt-4o", tensors


def qwen35moe(layers):
    width, feed, experts, heads, kv, head = 2048, 512, 256, 16, 2, 256
    key_heads, value_heads, state, kernel = 16, 32, 128, 4
    keys = {
        "context_length": 262144, "embedding_length": width, "block_count": layers,
        "expert_feed_forward_length": feed, "expert_shared_feed_forward_length": feed, "expert_count": experts,
        "expert_used_count": 8, "attention.head_count": heads, "attention.head_count_kv": kv,
        "attention.key_length": head, "attention.value_length": head, "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.freq_base": 1e7, "rope.dimension_count": 64, "rope.dimension_sections": [11, 11, 10, 0],
        "ssm.conv_kernel": kernel, "ssm.state_size": state, "ssm.group_count": key_heads,
        "ssm.time_step_rank": value_heads, "ssm.inner_size": value_heads * state, "full_attention_interval": 4,
        "attention.recurrent_layers": [layer % 4 != 3 for layer in range(layers)],
    }
    vocabulary = 248320
    tensors = [("token_embd.weight", (vocabulary, width), Type.Q4_K), ("output.weight", (vocabulary, width), Type.Q4_K)]
    tensors.append(("output_norm.weight", (width,), Type.F32))
    inner = value_heads * state
    joined = 2 * key_heads * state + inner
    for layer in range(layers):
        at = f"blk.{layer}."
        if layer % 4 == 3:
            parts = [("attn_q", 2 * heads * head, width), ("attn_k", kv * head, width), ("attn_v", kv * head, width),
                     ("attn_output", width, heads * head)]
            vectors = [("attn_q_norm.weight", (head,)), ("attn_k_norm.weight", (head,))]
        else:
            parts = [("attn_qkv", joined, width), ("attn_gate", inner, width), ("ssm_out", width, inner),
                     ("ssm_alpha", value_heads, width), ("ssm_beta", value_heads, width)]
            vectors = [("ssm_a", (value_heads,)), ("ssm_dt.bias", (value_heads,)), ("ssm_norm.weight", (state,)),
                       ("ssm_conv1d.weight", (joined, kernel))]
        parts += [("ffn_gate_shexp", feed, width), ("ffn_up_shexp", feed, width), ("ffn_down_shexp", width, feed)]
        tensors += [(f"{at}{part}.weight", (rows, columns), Type.Q4_K) for part, rows, columns in parts]
        for part, rows, columns in (("gate", feed, width), ("up", feed, width), ("down", width, feed)):
            tensors.append((f"{at}ffn_{part}_exps.weight", (experts, rows, columns), Type.Q4_K))
        vectors += [("ffn_gate_inp.weight", (experts, width)), ("ffn_gate_inp_shexp.weight", (width,))]
        vectors += [("attn_norm.weight", (width,)), ("post_attention_norm.weight", (width,))]
        tensors += [(at + name, shape, Type.F32) for name, shape in vectors]
    return keys, vocabulary, "qwen35", tensors


def pool(kind):
    """Rows of random bytes of one type, as many as one block has, with scales that give values of about 0.02."""
    random = np.random.default_rng(0)
    if kind in (Type.F32, Type.BF16):
        values = (0.02 * random.standard_normal((1 << 20, 1))).astype(np.float32)
        return values.view(np.uint8) if kind == Type.F32 else values.view(np.uint8)[:, 2:].copy()
    _, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (1 << 16, size), dtype=np.uint8)
    if kind == Type.MXFP4:
        blocks[:, 0] = random.integers(120, 122, len(blocks))
    else:
        blocks[:, :4] = np.array([1e-4, 8e-4], np.float16).view(np.uint8)
    return blocks



def start(path, name, keys):
    writer = gguf.GGUFWriter(path, name)
    for key, value in keys.items():
        add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
        add.get(type(value), writer.add_array)(f"{name}.{key}", value)
    return writer


def finish(writer, tensors):
    """Writes the tensors one after the other, from blocks of one pool a type."""
    for name, shape, kind in tensors:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        count = int(np.prod(shape)) // block * size
        writer.add_tensor_info(name, [*shape[:-1], shape[-1] // block * size], np.dtype(np.uint8), count, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    pools = {kind: pool(kind) for kind in {kind for _, _, kind in tensors}}
    for number, (_, shape, kind) in enumerate(tensors):
        blocks, length = pools[kind], gguf.GGML_QUANT_SIZES[kind][0]
        count = int(np.prod(shape)) // length
        begin = 65521 * number % len(blocks)
        repeated = np.concatenate([blocks[begin:], np.tile(blocks, (count // len(blocks) + 1, 1))])[:count]
        writer.write_tensor_data(repeated)
    writer.close()


def write_base(path, name, shape):
    keys, vocabulary, pre, tensors = shape
    writer = start(path, name, keys)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([f"[{number}]" for number in range(vocabulary)])
    writer.add_token_types([1] * vocabulary)
    writer.add_token_merges(["[ 0"])
    writer.add_eos_token_id(0)
    finish(writer, tensors)


def write_lora(path, name, shape):
    """A LoRA on every matrix of the blocks, in F32."""
    writer = start(path, name, {})
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", RANK)
    tensors = []
    for tensor, (*experts, rows, columns), _ in (t for t in shape[3] if len(t[1]) > 1):
        if tensor.startswith("blk.") and tensor.endswith(".weight") and "inp" not in tensor and "conv" not in tensor:
            tensors.append((f"{tensor}.lora_a", (*experts, RANK, columns), Type.F32))
            tensors.append((f"{tensor}.lora_b", (*experts, rows, RANK), Type.F32))
    finish(writer, tensors)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("curmerge", type=pathlib.Path)
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--only")
    args = parser.parse_args()
    print("| shape | layers | base | LoRA | seconds | processor | peak anonymous memory |\n|---|---|---|---|---|---|---|")
    for name, shape in (("gpt-oss", gpt_oss), ("qwen35moe", qwen35moe)):
        if args.only and args.only != name:
            continue
        base, lora, out = (args.dir / f"{name}{end}.gguf" for end in ("", "-lora", "-out"))
        described = shape(args.layers)
        write_base(base, name, described)
        write_lora(lora, name, described)
        wall, processor, _, anonymous = timed([args.curmerge, "merge", base, lora, "-o", out, "--threads", 2], out)
        sizes = [f"{path.stat().st_size / 1e9:.1f} GB" for path in (base, lora)]
        print(f"| {name} | {args.layers} | {' | '.join(sizes)} | {wall:.0f} | {processor:.0f} | {anonymous:.0f} MB |", flush=True)
        out.unlink()


if __name__ == "__main__":
    main()
