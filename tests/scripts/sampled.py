#!/usr/bin/env python3
"""Computes what llama.cpp's samplers leave to draw from.

    sampled.py MODEL.gguf OUT.json < ASKED.json

ASKED.json is {"tokens": ids, "options": [{llama.cpp's name: value}]}. Writes a list of {id: probability} to OUT.json, one
for each of the options: the tokens that remain after all samplers, and their probabilities.
"""

import json
import sys

from llama import Llama


def candidates(llama, tokens, options):
    # The server tells nothing of a token that ends the text or is part of a character: another seed draws another.
    for seed in range(20):
        answer = llama.ask("/completion", prompt=tokens, n_predict=1, n_probs=2000, post_sampling_probs=True, seed=seed,
                           cache_prompt=False, **options)
        for token in answer.get("completion_probabilities", []):
            return {t["id"]: t["prob"] for t in token["top_probs"] if t["prob"] > 0.0}
    raise RuntimeError(f"llama.cpp gives no probabilities: {answer}")


def main():
    model, out = sys.argv[1:]
    asked = json.load(sys.stdin)
    llama = Llama(model, context=256)
    answers = [candidates(llama, asked["tokens"], options) for options in asked["options"]]
    with open(out, "w", encoding="utf-8") as file:
        json.dump(answers, file)


if __name__ == "__main__":
    main()
