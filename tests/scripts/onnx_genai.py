#!/usr/bin/env python3
"""What onnxruntime-genai generates, greedily: onnx_genai.py FOLDER OUT COUNT [ADAPTER] < PROMPTS

PROMPTS is JSON: a list of token ids, or a text, for each prompt. OUT becomes JSON: a list of {"prompt", "tokens"} with
COUNT tokens each, or fewer where the model ends, with the adapter if one is given."""

import json
import sys

import onnxruntime_genai

FOLDER, OUT, COUNT, *ADAPTER = sys.argv[1:]
MODEL = onnxruntime_genai.Model(FOLDER)
if ADAPTER:
    ADAPTERS = onnxruntime_genai.Adapters(MODEL)
    ADAPTERS.load(ADAPTER[0], "adapter")


def generate(prompt):
    ids = prompt if isinstance(prompt, list) else TOKENIZER.encode(prompt).tolist()
    parameters = onnxruntime_genai.GeneratorParams(MODEL)
    parameters.set_search_options(do_sample=False, max_length=len(ids) + int(COUNT))
    generator = onnxruntime_genai.Generator(MODEL, parameters)
    if ADAPTER:
        generator.set_active_adapter(ADAPTERS, "adapter")
    generator.append_tokens(ids)
    tokens = []
    while not generator.is_done():
        generator.generate_next_token()
        tokens.append(int(generator.get_next_tokens()[0]))
    return {"prompt": [int(id) for id in ids], "tokens": tokens}


PROMPTS = json.load(sys.stdin)
if any(isinstance(prompt, str) for prompt in PROMPTS):
    TOKENIZER = onnxruntime_genai.Tokenizer(MODEL)
with open(OUT, "w") as file:
    json.dump([generate(prompt) for prompt in PROMPTS], file)
