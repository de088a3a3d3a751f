#!/usr/bin/env python3
"""Computes the next-token distribution after each prompt with llama.cpp.

    log_probs.py MODEL.gguf OUT.json [--lora LORA.gguf] < PROMPTS.json

PROMPTS.json is a list of strings, or of lists of token ids, of fewer than 256 tokens each. Writes a list of
{"ids", "log_probs"} to OUT.json: the tokens of the prompt, and {id: natural log-probability} over the whole
vocabulary.
"""

import argparse
import json
import sys

import gguf

from llama import Llama


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("model")
    p.add_argument("out")
    p.add_argument("--lora")
    a = p.parse_args()
    vocabulary = len(gguf.GGUFReader(a.model).fields["tokenizer.ggml.tokens"].data)
    llama = Llama(a.model, a.lora, context=256)
    answers = []
    for prompt in json.load(sys.stdin):
        ids = prompt
        if isinstance(prompt, str):
            ids = llama.ask("/tokenize", content=prompt, add_special=True, parse_special=True)["tokens"]
        answers.append({"ids": ids, "log_probs": llama.log_probs(ids, vocabulary)})
    with open(a.out, "w", encoding="utf-8") as out:
        json.dump(answers, out)


if __name__ == "__main__":
    main()
