#!/usr/bin/env python3
"""Writes the table of docs/measurements.md that says how far each architecture agrees with other programs.

    python3 tests/agreement.py

It runs the tests of every fixture of fixtures/arch and takes the worst figure that they print, so that a row stands only if
its tests pass. A column:

- logits, gradients: of the folder and of the GGUF file in f32, against transformers and torch in float64, relative to the
  largest number.
- llama.cpp: of log-probabilities of golden numbers, relative to the largest.
- runs, merges, LoRA: the largest difference of log-probabilities (absolute) from llama.cpp, of the base, of the merged GGUF
  file, and of the exported LoRA on the base.
- folder: of the merged folder from the base with the adapter.
- converts: that files of seven types equal those of llama.cpp's converter and llama-quantize byte for byte, and that a folder
  made from the GGUF file equals the original. Files of all fixtures are compared in one test.
"""

import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "measurements.md"
BEGIN, END = "<!-- agreement: made by tests/agreement.py -->\n", "<!-- end of agreement -->\n"
HEAD = """| models | GGUF / `model_type` | fixture | logits | gradients | llama.cpp | runs | merges | LoRA | folder | converts |
|---|---|---|---|---|---|---|---|---|---|---|
"""
FIGURE = r"(\d+(?:\.\d+)?e-?\d+)"
TEST = re.compile(r"test (?:model::)?architectures::(\w+)::\w+ \.\.\. ")


def output(*words):
    ran = subprocess.run(["cargo", "test", "--release", *words, "--", "--nocapture", "--test-threads=1"], cwd=ROOT,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if ran.returncode:
        sys.exit(f"these tests fail:\n{ran.stdout[-3000:]}")
    return ran.stdout


def by_family(text):
    """{fixture: the lines of its tests}."""
    found, own = {}, []
    for line in text.splitlines():
        begun = TEST.match(line)
        if begun:
            own = found.setdefault(begun[1], [])
            line = line[begun.end():]
        elif line.startswith("test "):
            own = []
        own.append(line)
    return found


def worst(lines, pattern):
    """The largest figure of the lines that match."""
    found = [match[1] for line in lines if (match := re.match(pattern + FIGURE, line))]
    return max(found, key=float, default="")


def main():
    goldens = by_family(output("--test", "main", "model::architectures"))
    clients = by_family(output("--test", "clients", "architectures"))
    output("--test", "main", "convert::architectures")
    listed = subprocess.run(["cargo", "run", "-q", "--release", "--", "inspect", "--architectures", "--json"], cwd=ROOT,
                            stdout=subprocess.PIPE, text=True, check=True)
    listed = json.loads(listed.stdout)["architectures"]
    rows = []
    for folder in sorted((ROOT / "fixtures" / "arch").iterdir()):
        name = re.sub(r"\W", "_", folder.name)
        if name not in goldens:
            continue
        config = json.loads((folder / "hf" / "config.json").read_text())
        inspected = subprocess.run(["cargo", "run", "-q", "--release", "--", "inspect", folder / "hf", "--json"], cwd=ROOT,
                                   stdout=subprocess.PIPE, text=True, check=True)
        gguf = json.loads(inspected.stdout)["support"]["line"].split(":")[0]
        known = [(number, entry) for number, entry in enumerate(listed)
                 if (entry["class"], entry["gguf"]) == (config["architectures"][0], gguf)]
        # Of two with the same class, one has experts.
        experts = any(config.get(key) for key in ("num_experts", "num_local_experts"))
        number, entry = next((own for own in known if own[1]["experts"] == experts), known[0])
        own, theirs = goldens[name], clients.get(name, [])
        types = f"{entry['gguf']} / {', '.join(entry['model_types'])}"
        differs = r"{}: log-probabilities differ by at most "
        figures = [worst(own, r"(?:Folder|Gguf), f32, place \d+: "), worst(own, r"(?:Folder|Gguf), blk\.\S+ +"),
                   worst(own, r"llama\.cpp, place \d+: "), *(worst(theirs, differs.format(what)) for what in (
                       "base in llama.cpp", "merged in llama.cpp", "LoRA in llama.cpp", "merged folder"))]
        rows.append((number, folder.name, f"| {entry['models']} | {types} | {folder.name} | {' | '.join(figures)} | equal |\n"))
    text = DOCUMENT.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    table = HEAD + "".join(row for _, _, row in sorted(rows))
    DOCUMENT.write_text(before + BEGIN + table + END + after)
    print(table)


if __name__ == "__main__":
    main()
