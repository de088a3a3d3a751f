#!/usr/bin/env python3
"""Computes logits of Hugging Face folders with transformers in float32: hf_logits.py IDS.json OUT.json

IDS.json holds {folder: [{"ids", "places"}, ...]}. Writes {folder: {"rows", "unused"}} to OUT.json: the logits
after each place, and the names of tensors that transformers did not load or did not find.
"""

import json
import sys

import torch
from transformers import AutoModelForCausalLM


def rows(model, sequences):
    with torch.no_grad():
        for sequence in sequences:
            logits = model(torch.tensor([sequence["ids"]])).logits[0]
            yield from (logits[place].tolist() for place in sequence["places"])


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        asked = json.load(file)
    found = {}
    for folder, sequences in asked.items():
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
        odd = [str(name) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for name in info[kind]]
        found[folder] = {"rows": list(rows(model.eval(), sequences)), "unused": odd}
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main()
