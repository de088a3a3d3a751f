#!/usr/bin/env python3
"""Writes a GGUF file of 13.5 GB with the shapes of Llama 2 7B and random weights in F16.

    llama_7b.py OUT.gguf [--layers 32]

The weights are normal with a standard deviation of 0.02. Each tensor takes them from another place of one
pool. The vocabulary is a SentencePiece vocabulary of the bytes and made-up words. Needs numpy and gguf.
"""

import argparse

import gguf
import numpy as np

WIDTH, FEED, VOCAB = 4096, 11008, 32000


def vocabulary(writer):
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    letters = [chr(code) for code in range(0x61, 0x7B)]
    pieces = ["\u2581"] + letters + [a + b for a in ["\u2581"] + letters for b in letters]
    pieces += [a + b for a in pieces[-26 * 26 :] for b in letters]
    tokens += pieces
    tokens += [f"[{number}]" for number in range(VOCAB - len(tokens))]
    tokens = tokens[:VOCAB]
    kinds = [2, 3, 3] + [6] * 256 + [1] * (VOCAB - 259)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 259 + [-float(rank) for rank in range(VOCAB - 259)])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)


def shapes(layers):
    yield "token_embd.weight", (VOCAB, WIDTH)
    for layer in range(layers):
        at = f"blk.{layer}."
        yield at + "attn_norm.weight", (WIDTH,)
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield f"{at}{part}.weight", (WIDTH, WIDTH)
        yield at + "ffn_norm.weight", (WIDTH,)
        yield at + "ffn_gate.weight", (FEED, WIDTH)
        yield at + "ffn_up.weight", (FEED, WIDTH)
        yield at + "ffn_down.weight", (WIDTH, FEED)
    yield "output_norm.weight", (WIDTH,)
    yield "output.weight", (VOCAB, WIDTH)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--layers", type=int, default=32)
    args = parser.parse_args()
    writer = gguf.GGUFWriter(args.out, "llama")
    writer.add_name("random 7B")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(4096)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(args.layers)
    writer.add_feed_forward_length(FEED)
    writer.add_rope_dimension_count(128)
    writer.add_head_count(32)
    writer.add_head_count_kv(32)
    writer.add_layer_norm_rms_eps(1e-5)
    vocabulary(writer)
    for name, shape in shapes(args.layers):
        kind = np.float16 if len(shape) == 2 else np.float32
        writer.add_tensor_info(name, shape, np.dtype(kind), int(np.prod(shape)) * np.dtype(kind).itemsize)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    pool = (0.02 * np.random.default_rng(0).standard_normal(1 << 24, dtype=np.float32)).astype(np.float16)
    for number, (name, shape) in enumerate(shapes(args.layers)):
        if len(shape) == 1:
            writer.write_tensor_data(np.ones(shape, np.float32))
            continue
        count = int(np.prod(shape))
        start = 65521 * number % len(pool)
        data = np.concatenate([pool[start:], np.tile(pool, count // len(pool) + 1)])[:count]
        writer.write_tensor_data(data.reshape(shape))
    writer.close()


if __name__ == "__main__":
    main()
