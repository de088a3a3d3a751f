#!/usr/bin/env python3
"""Measures a model's accuracy in llama.cpp. Each choice of an example must be one token.

    accuracy.py MODEL.gguf EXAMPLES.jsonl OUT.json [--lora LORA.gguf]

EXAMPLES.jsonl holds lines of {"prompt", "completion", "choices"}. Writes {"accuracy", "examples"} to
OUT.json.
"""

import argparse
import json

import gguf

from llama import Llama


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("model")
    p.add_argument("examples")
    p.add_argument("out")
    p.add_argument("--lora")
    a = p.parse_args()
    vocabulary = len(gguf.GGUFReader(a.model).fields["tokenizer.ggml.tokens"].data)
    llama = Llama(a.model, a.lora)

    def tokens(text, begin):
        return llama.ask("/tokenize", content=text, add_special=begin, parse_special=True)["tokens"]

    right = examples = 0
    ids = {}
    for line in open(a.examples, encoding="utf-8"):
        row = json.loads(line)
        for choice in row["choices"]:
            if choice not in ids:
                ids[choice], = tokens(choice, False)
        log_probs = llama.log_probs(tokens(row["prompt"], True), vocabulary)
        right += max(row["choices"], key=lambda choice: log_probs[ids[choice]]) == row["completion"]
        examples += 1
    with open(a.out, "w", encoding="utf-8") as out:
        json.dump({"accuracy": right / examples, "examples": examples}, out)


if __name__ == "__main__":
    main()
