#!/usr/bin/env python3
"""Makes, loads and merges LoRA adapters with PEFT in float32.

    peft_client.py log-probs FOLDER ADAPTER OUT.json < prompts.json
        Writes [{"ids": tokens of the prompt, "log_probs": {token id: natural log-probability after them}}].
    peft_client.py make FOLDER OUT {plain|rslora|patterns}
        Saves a random LoRA on all linear layers.
    peft_client.py merged FOLDER ADAPTER MERGED OUT.json
        Compares the folder MERGED with merge_and_unload. Writes {"error", "changed"}: the greatest
        |found - right| / |right - base| over the changed matrices, and their number.
    peft_client.py same FOLDER ADAPTER MERGED OUT.json
        Writes {"off", "moved"}: the greatest difference of the logits of the folder MERGED from those of
        FOLDER with ADAPTER, and from those of FOLDER alone.
"""

import json
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

KINDS = {
    "plain": {"r": 8, "lora_alpha": 12},
    "rslora": {"r": 8, "lora_alpha": 4, "use_rslora": True},
    "patterns": {"r": 8, "lora_alpha": 8, "rank_pattern": {"q_proj": 4, r"layers\.[0-4]\.mlp\.up_proj": 3},
                 "alpha_pattern": {"down_proj": 32, "model.layers.7.self_attn.v_proj": 1}},
}


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def log_probs(folder, adapter, out):
    model, tokenizer = PeftModel.from_pretrained(load(folder), adapter).eval(), AutoTokenizer.from_pretrained(folder)
    answers = []
    for prompt in json.load(sys.stdin):
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            values = model(input_ids=ids).logits[0, -1].double().log_softmax(-1).tolist()
        answers.append({"ids": ids[0].tolist(), "log_probs": {str(i): value for i, value in enumerate(values)}})
    json.dump(answers, open(out, "w", encoding="utf-8"))


def make(folder, out, kind):
    torch.manual_seed(5)
    config = LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM", **KINDS[kind])
    model = get_peft_model(load(folder), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    model.save_pretrained(out)


def merged(folder, adapter, found, out):
    base = load(folder).state_dict()
    right = PeftModel.from_pretrained(load(folder), adapter).merge_and_unload().state_dict()
    found = load(found).state_dict()
    worst, changed = 0.0, 0
    for name, w in base.items():
        change = (right[name] - w).norm().item()
        error = (found[name] - right[name]).norm().item()
        changed += change > 0
        worst = max(worst, error / change if change else (float("inf") if error else 0.0))
    json.dump({"error": worst, "changed": changed}, open(out, "w", encoding="utf-8"))


def same(folder, adapter, merged, out):
    ids = torch.arange(3, 27).reshape(2, 12)
    with torch.no_grad():
        found = load(merged)(input_ids=ids).logits
        right = PeftModel.from_pretrained(load(folder), adapter).eval()(input_ids=ids).logits
        base = load(folder)(input_ids=ids).logits
    answer = {"off": (found - right).abs().max().item(), "moved": (found - base).abs().max().item()}
    json.dump(answer, open(out, "w", encoding="utf-8"))


if __name__ == "__main__":
    torch.set_num_threads(2)
    {"log-probs": log_probs, "make": make, "merged": merged, "same": same}[sys.argv[1]](*sys.argv[2:])
