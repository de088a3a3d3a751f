#!/usr/bin/env python3
"""Merging and converting beside their peers, whole processes in turn.

    merge.py CURMERGE MODELS LLAMA_BIN [RUNS]

CURMERGE is the release program, MODELS the folder that shared/models/get.py filled, LLAMA_BIN the folder of
llama-export-lora and llama-quantize; this interpreter has torch, transformers and peft. Each pair runs RUNS (5) times
in turn, A B A B, after one run that does not count; the table gives medians, and the ratio of wall time pair by pair.
CURMERGE syncs what it writes to the disk, the peers do not.
"""

import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

PEFT = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
PeftModel.from_pretrained(model, sys.argv[2]).merge_and_unload().save_pretrained(sys.argv[3])
"""


def timed(words, out):
    """Wall seconds, processor seconds and peak MB of a process; what stands at `out` is removed before."""
    shutil.rmtree(out, ignore_errors=True) if out.is_dir() else out.unlink(missing_ok=True)
    start = time.monotonic()
    process = subprocess.Popen([str(w) for w in words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - start
    if status:
        sys.exit(f"failed: {' '.join(map(str, words))}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


def compare(what, ours, theirs, out, runs):
    timed(ours, out), timed(theirs, out)
    pairs = [(timed(ours, out), timed(theirs, out)) for _ in range(runs)]
    a, b = ([statistics.median(run[i] for run in side) for i in range(3)] for side in zip(*pairs))
    ratio = statistics.median(x[0] / y[0] for x, y in pairs)
    cells = [f"{wall:.2f} s, {cpu:.2f} s, {peak:.0f} MB" for wall, cpu, peak in (a, b)]
    print(f"| {what} | {cells[0]} | {cells[1]} | {ratio:.2f} |", flush=True)


def main():
    curmerge, models, llama = (pathlib.Path(word).resolve() for word in sys.argv[1:4])
    runs = int(sys.argv[4]) if len(sys.argv) > 4 else 5
    quantized, folder = models / "smollm2-135m-instruct.Q4_1.gguf", models / "smollm2-hf"
    print(f"{os.cpu_count()} processors, medians of {runs}: wall, processor, peak resident\n")
    print("| | curmerge | peer | wall, ratio |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=models.parent) as scratch:
        at = lambda name: pathlib.Path(scratch) / name
        run = lambda *words: subprocess.run([str(w) for w in (curmerge, *words)], check=True, stdout=subprocess.DEVNULL)
        at("text.txt").write_text("A merge is measured with an adapter that changes something.\n" * 8)
        run("convert", quantized, at("f32.gguf"), "--type", "f32")
        run("convert", at("f32.gguf"), at("f16.gguf"), "--type", "f16")
        for base, adapter in ((at("f16.gguf"), at("a.st")), (folder, at("hf.st"))):
            run("build", base, "--data", at("text.txt"), "--epochs", "4", "-o", adapter)
        run("export", at("a.st"), "--base", at("f16.gguf"), "--format", "gguf", "-o", at("lora.gguf"))
        run("export", at("hf.st"), "--base", folder, "--format", "peft", "-o", at("peft"))
        out, out_folder = at("out.gguf"), at("out")
        merge = [curmerge, "merge", at("f16.gguf"), at("a.st"), "-o", out, "--threads", 2]
        export_lora = [llama / "llama-export-lora", "-m", at("f16.gguf"), "--lora", at("lora.gguf"), "-o", out, "-t", 2]
        compare("merge into F16, llama-export-lora", merge, export_lora, out, runs)
        compare("the same, cp and sync", merge, ["sh", "-c", f"cp {at('f16.gguf')} {out} && sync {out}"], out, runs)
        merge = [curmerge, "merge", folder, at("hf.st"), "-o", out_folder, "--threads", 2]
        peft = [sys.executable, "-c", PEFT, folder, at("peft"), out_folder]
        compare("merge of a bfloat16 folder, PEFT", merge, peft, out_folder, min(runs, 3))
        for kind in ("Q8_0", "Q4_K_M"):
            convert = [curmerge, "convert", at("f32.gguf"), out, "--type", kind, "--threads", 2]
            quantize = [llama / "llama-quantize", at("f32.gguf"), out, kind, 2]
            compare(f"convert F32 to {kind}, llama-quantize", convert, quantize, out, runs)


if __name__ == "__main__":
    main()
