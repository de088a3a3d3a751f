#!/usr/bin/env python3
"""Trains a LoRA with PEFT and torch in float32, on given batches at given rates.

    peft_train.py FOLDER ADAPTER OUT.json < job.json

ADAPTER is a PEFT folder that training starts from. The job is {"clip", "rates": one a step, "batches": one a
step, each a list of {"ids", "mask"}}. The loss is the mean over a batch's masked tokens, each predicted from
those before it. The optimizer is torch.optim.AdamW without weight decay. Writes {"losses": one a step,
"gradients": {parameter: numbers} of the first step before clipping, "trained": {parameter: numbers}}.
"""

import json
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


def main():
    folder, adapter, out = sys.argv[1:]
    torch.set_num_threads(2)
    job = json.load(sys.stdin)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    model = PeftModel.from_pretrained(model.eval(), adapter, is_trainable=True).eval()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=1.0, weight_decay=0.0)
    answer = {"losses": [], "gradients": {}}
    for rate, batch in zip(job["rates"], job["batches"], strict=True):
        optimizer.zero_grad()
        count = sum(sum(sequence["mask"][1:]) for sequence in batch)
        total = 0.0
        for sequence in batch:
            ids, mask = torch.tensor([sequence["ids"]]), torch.tensor(sequence["mask"][1:], dtype=torch.bool)
            logits = model(input_ids=ids).logits[0, :-1][mask]
            loss = torch.nn.functional.cross_entropy(logits, ids[0, 1:][mask], reduction="sum") / count
            loss.backward()
            total += loss.item()
        answer["losses"].append(total)
        if not answer["gradients"]:
            answer["gradients"] = {name: p.grad.flatten().tolist() for name, p in trained.items()}
        torch.nn.utils.clip_grad_norm_(trained.values(), job["clip"])
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    answer["trained"] = {name: parameter.detach().flatten().tolist() for name, parameter in trained.items()}
    json.dump(answer, open(out, "w", encoding="utf-8"))


if __name__ == "__main__":
    main()
