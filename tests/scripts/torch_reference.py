#!/usr/bin/env python3
"""Computes logits, loss and gradients of U with transformers and torch's autograd, in float32.

    torch_reference.py FOLDER ADAPTER IN.json OUT.json

FOLDER is a Hugging Face folder. IN.json is {"logits": [token ids], "train": [{"ids", "mask"}]}. The loss is
the mean over the masked tokens, each predicted from those before it. Writes {"logits": the logits after the
last token, without the adapter, "loss", "gradients": {canonical name: rows of dU}} to OUT.json. The layer
forms C U R as the paper does.
"""

import json
import sys

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from layout import Names, permute, unpermute


class CurLinear(torch.nn.Module):
    """y = x W^T + x (s C U R)^T. Rows are numbered in GGUF's order. `heads` is 0 if both orders agree."""

    def __init__(self, linear, heads, rows, cols, u, scale):
        super().__init__()
        w = permute(linear.weight.detach(), heads) if heads else linear.weight.detach()
        self.linear, self.heads, self.scale = linear, heads, scale
        self.C, self.R, self.U = w[:, cols], w[rows, :], torch.nn.Parameter(u)

    def forward(self, x):
        change = self.scale * (self.C @ self.U @ self.R)
        return self.linear(x) + x @ (unpermute(change, self.heads) if self.heads else change).T


def attach(model, path):
    adapter = safe_open(path, framework="pt")
    heads = {"attn_q": model.config.num_attention_heads, "attn_k": model.config.num_key_value_heads}
    layers = {}
    for name in json.loads(adapter.metadata()["targets"]):
        parent, child = Names.to_hf(name).removesuffix(".weight").rsplit(".", 1)
        parent = model.get_submodule(parent)
        rows, cols = (adapter.get_tensor(f"{name}.{part}").long() for part in ("rows", "cols"))
        layers[name] = CurLinear(getattr(parent, child), heads.get(name.rsplit(".", 1)[-1], 0), rows, cols,
                                 adapter.get_tensor(f"{name}.u"), float(adapter.metadata()["scale"]))
        setattr(parent, child, layers[name])
    return layers


def main():
    folder, adapter, questions, out_path = sys.argv[1:]
    torch.set_num_threads(2)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    model.eval().requires_grad_(False)
    questions = json.load(open(questions, encoding="utf-8"))
    answer = {"logits": model(input_ids=torch.tensor([questions["logits"]])).logits[0, -1].tolist()}
    layers = attach(model, adapter)
    count = sum(sum(sequence["mask"]) for sequence in questions["train"])
    answer["loss"] = 0.0
    for sequence in questions["train"]:
        ids, mask = torch.tensor(sequence["ids"]), torch.tensor(sequence["mask"]).bool()
        logits = model(input_ids=ids[None]).logits[0]
        losses = torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="none")
        loss = losses[mask[1:]].sum() / count
        loss.backward()
        answer["loss"] += loss.item()
    answer["gradients"] = {name: layer.U.grad.tolist() for name, layer in layers.items()}
    with open(out_path, "w", encoding="utf-8") as out:
        json.dump(answer, out)


if __name__ == "__main__":
    main()
