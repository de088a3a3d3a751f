#!/usr/bin/env python3
"""Checks with the package safetensors that two sharded Hugging Face folders hold the same tensors.

    hf_shards.py FOLDER OTHER SIZE

No file of OTHER may hold more than SIZE bytes of tensors. Both indices must be right.
"""

import json
import pathlib
import sys

from safetensors import safe_open


def load(folder):
    """The tensors of a folder, and the size of each of its files. Checks the index against the files."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    files = {name: {} for name in index["weight_map"].values()}
    for name, tensors in files.items():
        with safe_open(folder / name, framework="numpy") as opened:
            assert opened.metadata()["format"] == "pt"
            tensors |= {key: opened.get_tensor(key) for key in opened.keys()}
    assert {key: name for name, tensors in files.items() for key in tensors} == index["weight_map"]
    sizes = {name: sum(t.nbytes for t in tensors.values()) for name, tensors in files.items()}
    assert index["metadata"]["total_size"] == sum(sizes.values())
    assert {f.name for f in folder.glob("*.safetensors")} == set(files)
    return {key: t for tensors in files.values() for key, t in tensors.items()}, sizes


def main():
    folder, other = map(pathlib.Path, sys.argv[1:3])
    (a, _), (b, sizes) = load(folder), load(other)
    assert a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and (a[k] == b[k]).all() for k in a)
    assert max(sizes.values()) <= int(sys.argv[3]), sizes
    names = [f"model-{i + 1:05}-of-{len(sizes):05}.safetensors" for i in range(len(sizes))]
    assert len(sizes) > 2 and sorted(sizes) == names


if __name__ == "__main__":
    main()
