#!/usr/bin/env python3
"""Generates greedily with onnxruntime-genai: onnx_genai.py FOLDER OUT COUNT [ADAPTER] < PROMPTS

PROMPTS is a JSON list. Each prompt is a text or a list of token ids. Writes a JSON list of {"prompt",
"tokens"} to OUT, with COUNT tokens each, or fewer if the model ends earlier. ADAPTER is active if it is
given.
"""

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
