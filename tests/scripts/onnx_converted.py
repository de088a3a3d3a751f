#!/usr/bin/env python3
"""Runs models converted from ONNX in llama.cpp and transformers: onnx_converted.py OUT.json < JOBS

JOBS is a JSON list of {"gguf": file or null, "folder": Hugging Face folder or null, "ids": [tokens], "vocab":
size}. Writes a list with one entry a job to OUT.json: {"llama": log-probabilities of every token after the
ids in llama.cpp, "transformers": the same in transformers in float32, "odd": names that transformers did not
find or did not load}.
"""

import json
import sys

import torch
from transformers import AutoModelForCausalLM

from llama import Llama


def by_llama(file, ids, vocabulary):
    found = Llama(file, context=256).log_probs(ids, vocabulary)
    return [found[token] for token in range(vocabulary)]


def by_transformers(folder, ids):
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    odd = [str(name) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for name in info[kind]]
    with torch.no_grad():
        logits = model.eval()(torch.tensor([ids])).logits[0, -1]
    return logits.double().log_softmax(-1).tolist(), odd


def answer(job):
    found = {}
    if job["gguf"]:
        found["llama"] = by_llama(job["gguf"], job["ids"], job["vocab"])
    if job["folder"]:
        found["transformers"], found["odd"] = by_transformers(job["folder"], job["ids"])
    return found


jobs = json.load(sys.stdin)
with open(sys.argv[1], "w") as out:
    json.dump([answer(job) for job in jobs], out)
