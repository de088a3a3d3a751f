#!/usr/bin/env python3
"""Loads a folder with transformers: log-probabilities in float32, tokens, a rendered conversation.

    transformers_client.py FOLDER OUT.json < QUESTIONS.json

QUESTIONS.json is {"prompts": [...], "texts": [...], "chat": [messages]}. Writes to OUT.json:

- "log_probs": [{"ids", "log_probs": {id: natural log-probability}}], one for each prompt;
- "tokens": the ids of each text, with the special tokens that surround it;
- "chat": the rendered conversation;
- "dtype": the type that transformers loads the model in by default.
"""

import json
import sys

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer


def main():
    folder, out = sys.argv[1:]
    questions = json.load(sys.stdin)
    torch.set_num_threads(2)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    answer = {"log_probs": [], "dtype": str(AutoConfig.from_pretrained(folder).dtype)}
    with torch.no_grad():
        for prompt in questions["prompts"]:
            ids = tokenizer(prompt)["input_ids"]
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
            values = torch.log_softmax(logits.double(), 0).tolist()
            answer["log_probs"].append({"ids": ids, "log_probs": dict(enumerate(values))})
    answer["tokens"] = [tokenizer(text)["input_ids"] for text in questions["texts"]]
    answer["chat"] = tokenizer.apply_chat_template(questions["chat"], tokenize=False, add_generation_prompt=True)
    with open(out, "w", encoding="utf-8") as file:
        json.dump(answer, file)


if __name__ == "__main__":
    main()
