#!/usr/bin/env python3
"""Compares a merged model with its base and adapter, with gguf, safetensors and numpy in float64.

    merged.py BASE ADAPTER MERGED OUT.json

BASE and MERGED are two GGUF files or two Hugging Face folders. Writes to OUT.json:

- "metadata": the names of keys or files that differ;
- "unadapted": the names of tensors that are not targets and differ in type or bytes;
- "adapted": {name: {"type", "error", "noise", "change"}} for each target. In Frobenius norms, the error is
  |found - (W + s C U R)| / |s C U R| and the noise |found - (W + s C U R)| / |W + s C U R|. The change is the
  largest element of s C U R.
"""

import json
import pathlib
import sys

import gguf
import numpy as np
from safetensors import safe_open

from layout import Names, permute


class GgufModel:
    def __init__(self, path):
        self.reader = gguf.GGUFReader(path)
        self.tensors = {t.name.removesuffix(".weight"): t for t in self.reader.tensors}

    def metadata(self):
        """Every key with its position, type and value."""
        return {name: (i, [int(t) for t in field.types], field.contents())
                for i, (name, field) in enumerate(self.reader.fields.items())}

    def stored(self, name):
        tensor = self.tensors[name]
        return tensor.tensor_type.name, tuple(tensor.shape.tolist()), tensor.data.tobytes()

    def values(self, name):
        tensor = self.tensors[name]
        return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float64)


class FolderModel:
    def __init__(self, path):
        self.path = pathlib.Path(path)
        config = json.loads((self.path / "config.json").read_text())
        self.heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
        names = [f"blk.{i}.{part}" for i in range(config["num_hidden_layers"]) for part in Names.PARTS]
        to_ours = {Names.to_hf(name): name for name in names + list(Names.WHOLE)}
        self.tensors = {}
        for file in sorted(self.path.glob("*.safetensors")):
            opened = safe_open(file, framework="numpy")
            self.tensors |= {to_ours[name]: (opened, name) for name in opened.keys()}

    def metadata(self):
        """The bytes of every file that is no shard, and each shard's metadata and order of tensors."""
        # A model card is of its own model.
        ours = (f for f in self.path.iterdir() if f.suffix != ".safetensors" and f.name != "README.md")
        files = {f.name: f.read_bytes() for f in ours}
        for file in sorted(self.path.glob("*.safetensors")):
            opened = safe_open(file, framework="numpy")
            files[file.name] = (opened.metadata(), opened.offset_keys())
        return files

    def stored(self, name):
        opened, stored = self.tensors[name]
        return opened.get_slice(stored).get_dtype(), opened.get_slice(stored).get_shape(), opened.get_tensor(stored).tobytes()

    def values(self, name):
        opened, stored = self.tensors[name]
        w = opened.get_tensor(stored).astype(np.float64)
        part = name.rsplit(".", 1)[-1]
        return permute(w, self.heads[part]) if part in self.heads else w


def open_model(path):
    return FolderModel(path) if pathlib.Path(path).is_dir() else GgufModel(path)


def differing(a, b):
    return sorted(key for key in a.keys() | b.keys() if key not in a or key not in b or a[key] != b[key])


def main():
    base_path, adapter_path, merged_path, out_path = sys.argv[1:]
    base, merged = open_model(base_path), open_model(merged_path)
    adapter = safe_open(adapter_path, framework="numpy")
    scale = float(adapter.metadata()["scale"])
    targets = json.loads(adapter.metadata()["targets"])
    answer = {"metadata": differing(base.metadata(), merged.metadata()), "adapted": {}}
    if list(base.tensors) != list(merged.tensors):
        answer["metadata"].append("the names or order of tensors")
    answer["unadapted"] = [name for name in base.tensors
                           if name not in targets and base.stored(name) != merged.stored(name)]
    for name in targets:
        cols, rows, u = (adapter.get_tensor(f"{name}.{part}") for part in ("cols", "rows", "u"))
        w = base.values(name)
        change = scale * (w[:, cols] @ u.astype(np.float64) @ w[rows, :])
        found = merged.values(name) - w
        answer["adapted"][name] = {
            "type": merged.stored(name)[0],
            "error": np.linalg.norm(found - change) / np.linalg.norm(change),
            "noise": np.linalg.norm(found - change) / np.linalg.norm(w + change),
            "change": np.abs(change).max(),
        }
    with open(out_path, "w", encoding="utf-8") as out:
        json.dump(answer, out)


if __name__ == "__main__":
    main()
