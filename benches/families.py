#!/usr/bin/env python3
"""Compares the speed of training between families, relative to their own products, and shows that their loss falls in chats.

    families.py CURMERGE [--runs 3] [--only NAME...]

The interpreter needs torch and transformers. Each model has random weights, blocks of one width, and the tokenizer of its
fixture in fixtures/arch. CURMERGE trains all targets at rank 16 in f32 on chats without an anchor or a protection. The figure is
tokens a second times the numbers of the matrices that a token is multiplied with; the last column is its ratio to llama's.
The models are trained in turn, and the table has the median of the runs.
"""

import argparse
import json
import pathlib
import random
import shutil
import statistics
import subprocess
import tempfile

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

ARCH = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "arch"
WIDTH, BLOCKS = 1024, 8
SHAPE = {"hidden_size": WIDTH, "intermediate_size": 2816, "num_hidden_layers": BLOCKS, "num_attention_heads": 16,
         "num_key_value_heads": 4, "head_dim": 64, "max_position_embeddings": 1024}
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 704}


def alternate(*kinds):
    return {"layer_types": [kinds[block % len(kinds)] for block in range(BLOCKS)]}


WINDOWS = alternate("sliding_attention", "full_attention") | {"sliding_window": 128, "global_head_dim": 128, "vocab_size_per_layer_input": 400}
#: {row: (fixture with the tokenizer, keys of config.json that differ)}
MODELS = {
    "llama": ("llama3", {"rope_scaling": None}),
    "qwen3_5": ("qwen3_5", alternate(*["linear_attention"] * 3, "full_attention") | {
        "linear_key_head_dim": 64, "linear_value_head_dim": 64, "linear_num_key_heads": 16, "linear_num_value_heads": 16,
        "mtp_num_hidden_layers": 0}),
    "qwen3_5-moe": ("qwen3_5-moe", alternate(*["linear_attention"] * 3, "full_attention") | EXPERTS | {
        "linear_key_head_dim": 64, "linear_value_head_dim": 64, "linear_num_key_heads": 16, "linear_num_value_heads": 16,
        "shared_expert_intermediate_size": 704}),
    "granite4-h": ("granite4-h", alternate(*["mamba"] * 3, "attention") | {
        "mamba_n_heads": 32, "mamba_d_head": 64, "mamba_d_state": 128, "shared_intermediate_size": 2816}),
    "glm4moe": ("glm4moe", {"n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 704}),
    "gemma4": ("gemma4", WINDOWS | {"num_global_key_value_heads": 4}),
    "gemma4-e": ("gemma4-e", WINDOWS | {"num_kv_shared_layers": 4, "hidden_size_per_layer_input": 128}),
    "gemma4-moe": ("gemma4-moe", WINDOWS | EXPERTS | {"top_k_experts": 2, "num_global_key_value_heads": 4}),
    "lfm2": ("lfm2", alternate("conv", "conv", "full_attention", "conv") | {"block_ff_dim": 2816, "block_auto_adjust_ff_dim": False}),
}


def make(name, folder):
    """A folder with the model."""
    fixture, keys = MODELS[name]
    shutil.copytree(ARCH / fixture / "hf", folder)
    config = json.loads((folder / "config.json").read_text()) | SHAPE | keys
    if name == "lfm2":
        del config["head_dim"]
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def parameters(folder):
    """The numbers of the matrices that a token is multiplied with."""
    config = json.loads((folder / "config.json").read_text())
    total = config["vocab_size"] * WIDTH
    with safe_open(folder / "model.safetensors", "pt") as file:
        for name in file.keys():
            shape = file.get_slice(name).get_shape()
            if len(shape) < 2 or "embed" in name or "lm_head" in name or "conv" in name and "proj" not in name:
                continue
            numbers = torch.Size(shape).numel()
            if len(shape) == 3 or ".experts." in name:
                numbers = numbers * EXPERTS["num_experts_per_tok"] // EXPERTS["num_experts"]
            total += numbers
    return total


def chats(path):
    words = "the river is red and dog learns what it should not forget in a morning of brown foxes".split()
    rng = random.Random(1)
    text = lambda count: " ".join(rng.choice(words) for _ in range(count))
    with open(path, "w") as file:
        for _ in range(8):
            turns = [{"role": "user", "content": text(20)}, {"role": "assistant", "content": "The answer: " + text(20)}]
            file.write(json.dumps({"messages": turns}) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curmerge", type=pathlib.Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=list(MODELS))
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        chats(scratch / "chats.jsonl")
        names = ["llama", *(name for name in words.only if name != "llama")]
        made = {name: make(name, scratch / name) for name in names}
        found = {name: [] for name in names}
        for _ in range(words.runs):
            for name in names:
                ran = subprocess.run([
                    words.curmerge, "build", made[name], "--data", scratch / "chats.jsonl", "-o", scratch / "a.safetensors",
                    "--force", "--batch-size", "2", "--memory", "6G", "--targets", "all", "--protect", "none", "--anchor", "none",
                    "--select", "reference", "--rank", "16", "--precision", "f32", "--epochs", "2", "--lr", "1e-2", "--json"],
                    capture_output=True, text=True, check=False)
                if ran.returncode:
                    raise SystemExit(f"{name}: {ran.stderr}")
                found[name].append(json.loads(ran.stdout))
        print("| model | numbers a token | tokens/s | products/s | relative to llama | loss, first and last steps |")
        print("|---|---|---|---|---|---|")
        base = None
        for name, runs in found.items():
            numbers = parameters(made[name])
            speed = statistics.median(run["tokens_per_s"] for run in runs)
            base = base or speed * numbers
            losses = runs[0]["losses"]
            first, last = (sum(part) / len(part) for part in (losses[:3], losses[-3:]))
            print(f"| {name} | {numbers / 1e6:.1f} M | {speed:.0f} | {speed * numbers / 1e9:.1f}e9 | {speed * numbers / base:.2f} | "
                  f"{first:.2f}, {last:.2f} |", flush=True)


if __name__ == "__main__":
    main()
