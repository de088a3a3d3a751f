#!/usr/bin/env python3
"""Runs the example of README.md with the installed package: readme.py BASE.gguf EXAMPLES.jsonl

The example is taken from README.md, so that it cannot differ from what it says.
"""

import json
import math
import os
import pathlib
import shutil
import sys
import tempfile


def example():
    text = (pathlib.Path(__file__).parent.parent / "README.md").read_text()
    lines = [line[4:] for line in text.splitlines() if line.startswith("    ") or not line.strip()]
    code = "\n".join(lines)
    assert code.count("curmerge.") > 3, "README.md has no example"
    return code


base, examples = map(os.path.abspath, sys.argv[1:3])
with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    shutil.copy(base, "base.gguf")
    with open(examples, encoding="utf-8") as file, open("tone.jsonl", "w", encoding="utf-8") as few:
        few.writelines(line for line, _ in zip(file, range(120)))
    names = {}
    exec(compile(example(), "README.md", "exec"), names)
    curmerge, report, adapter = (names[name] for name in ("curmerge", "report", "adapter"))
    assert math.isfinite(report["loss"]) and adapter.rank == 16, report
    u = adapter.u(adapter.targets[0])
    assert u.shape == (16, 16) and abs(u).max() > 0
    assert sorted(os.listdir("tone-peft"))[0] == "adapter_config.json" or os.path.isfile("tone-peft/adapter_config.json")
    assert os.path.getsize("tone.gguf") > 0.9 * os.path.getsize("base.gguf")
    # A result that is longer than a pipe holds.
    with open("long.jsonl", "w", encoding="utf-8") as file:
        file.write(json.dumps({"text": "a b " * 50000}) + "\n")
    assert len(json.dumps(curmerge.data("long.jsonl", quiet=True))) > 1 << 16
    adapter.merge_into("base.gguf", "again.gguf")
    assert pathlib.Path("again.gguf").read_bytes() == pathlib.Path("tone.gguf").read_bytes()
    for call, kind, says in [
        (lambda: curmerge.merge("base.gguf", "none.safetensors", output="x.gguf"), curmerge.CommandError, "none.safetensors"),
        (lambda: curmerge.Adapter.load("base.gguf"), ValueError, "base.gguf"),
        (lambda: curmerge.Adapter.load("none.safetensors"), OSError, "none.safetensors"),
        (lambda: adapter.u("no such matrix"), KeyError, "no such matrix"),
        (lambda: curmerge.build("base.gguf", data="tone.jsonl", output="y.safetensors", rnk=3), curmerge.CommandError, "rnk"),
    ]:
        try:
            call()
        except kind as error:
            assert says in str(error), error
        else:
            raise AssertionError(f"{says}: no {kind.__name__}")
print("the example of README.md works")
