#!/usr/bin/env python3
"""Compares merging and converting with other programs.

    merge.py CURMERGE MODELS LLAMA_BIN [--runs 5] [--seven-billion DIR] [--onnx MODEL.onnx]

CURMERGE is the release program, MODELS the folder that shared/models/get.py filled, LLAMA_BIN the folder of
llama-export-lora and llama-quantize. The interpreter needs numpy, gguf, torch, transformers and peft.

Each pair of programs runs alternately, A B A B, after one warm-up. The table gives medians, and the median
ratio of wall time over the pairs. CURMERGE syncs its output to the disk, the peers do not. In rows "without
sync", eatmydata (a Debian package) makes that call do nothing.

--seven-billion measures only merges into files with the shapes of Llama 2 7B. benches/llama_7b.py makes them
in DIR, which needs 21 GB, and as much again for the outputs. --onnx measures only merges into an ONNX model
that holds its weights: first with an adapter on q, k and v, then on all targets.
"""

import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

#: How the tables' adapters are trained: at rank 16 without an anchor, most on q, k and v.
DRAWN = ["--rank", "16", "--anchor", "none"]
QKV = [*DRAWN, "--targets", "q,k,v"]

PEFT = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
PeftModel.from_pretrained(model, sys.argv[2]).merge_and_unload().save_pretrained(sys.argv[3])
"""


def anonymous_mb(pid):
    """The present anonymous memory of a process in MB; 0 once it has ended."""
    try:
        with open(f"/proc/{pid}/status") as status:
            return next((int(line.split()[1]) / 1000 for line in status if line.startswith("RssAnon")), 0)
    except OSError:
        return 0


def timed(words, out):
    """Wall seconds, processor seconds, peak MB and peak anonymous MB of a process. Removes `out` first."""
    shutil.rmtree(out, ignore_errors=True) if out.is_dir() else out.unlink(missing_ok=True)
    os.sync()
    start = time.monotonic()
    process = subprocess.Popen([str(w) for w in words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    anonymous, ended = [0], threading.Event()

    def watch():
        while not ended.wait(0.005):
            anonymous[0] = max(anonymous[0], anonymous_mb(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - start
    ended.set()
    watcher.join()
    if status:
        sys.exit(f"failed: {' '.join(map(str, words))}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000, anonymous[0]


def compare(what, ours, theirs, out, runs):
    timed(ours, out), timed(theirs, out)
    pairs = [(timed(ours, out), timed(theirs, out)) for _ in range(runs)]
    a, b = ([statistics.median(run[i] for run in side) for i in range(4)] for side in zip(*pairs))
    ratio = statistics.median(x[0] / y[0] for x, y in pairs)
    cells = [f"{wall:.2f} s, {cpu:.2f} s, {peak:.0f} MB, {anon:.0f} MB" for wall, cpu, peak, anon in (a, b)]
    print(f"| {what} | {cells[0]} | {cells[1]} | {ratio:.2f} |", flush=True)


def compare_merge(base, adapter, lora, out, curmerge, llama, runs):
    """Compares a merge with llama-export-lora and with a copy."""
    merge = [curmerge, "merge", base, adapter, "-o", out, "--threads", 2]
    export_lora = [llama / "llama-export-lora", "-m", base, "--lora", lora, "-o", out, "-t", 2]
    compare(f"merge into {base.stem}, llama-export-lora", merge, export_lora, out, runs)
    compare_copy(base, merge, out, runs)


def compare_copy(base, merge, out, runs):
    name = base.parent.name if base.suffix == ".onnx" else base.stem
    compare(f"merge into {name}, cp and sync", merge, ["sh", "-c", f"cp {base} {out} && sync {out}"], out, runs)
    compare(f"merge into {name} without sync, cp", ["eatmydata", *merge], ["cp", base, out], out, runs)


def small(curmerge, models, llama, runs, scratch):
    quantized, folder = models / "smollm2-135m-instruct.Q4_1.gguf", models / "smollm2-hf"
    at = lambda name: scratch / name
    run = lambda *words: subprocess.run([str(w) for w in (curmerge, *words)], check=True, stdout=subprocess.DEVNULL)
    at("text.txt").write_text("A merge is measured with an adapter that changes something.\n" * 8)
    run("convert", quantized, at("f32.gguf"), "--type", "f32")
    run("convert", at("f32.gguf"), at("f16.gguf"), "--type", "f16")
    for base, adapter in ((at("f16.gguf"), at("a.st")), (folder, at("hf.st"))):
        run("build", base, "--data", at("text.txt"), "--epochs", "4", *QKV, "-o", adapter)
    run("export", at("a.st"), "--base", at("f16.gguf"), "--format", "gguf", "-o", at("lora.gguf"))
    run("export", at("hf.st"), "--base", folder, "--format", "peft", "-o", at("peft"))
    out, out_folder = at("out.gguf"), at("out")
    compare_merge(at("f16.gguf"), at("a.st"), at("lora.gguf"), out, curmerge, llama, runs)
    merge = [curmerge, "merge", folder, at("hf.st"), "-o", out_folder, "--threads", 2]
    peft = [sys.executable, "-c", PEFT, folder, at("peft"), out_folder]
    compare("merge of a bfloat16 folder, PEFT", merge, peft, out_folder, min(runs, 3))
    for kind in ("Q8_0", "Q4_K_M"):
        convert = [curmerge, "convert", at("f32.gguf"), out, "--type", kind, "--threads", 2]
        quantize = [llama / "llama-quantize", at("f32.gguf"), out, kind, 2]
        compare(f"convert F32 to {kind}, llama-quantize", convert, quantize, out, runs)


def onnx(curmerge, base, runs, scratch):
    (scratch / "text.txt").write_text("A merge is measured with an adapter that changes something.\n" * 8)
    for targets in ("q,k,v", "all"):
        adapter, out = scratch / "onnx.st", scratch / "out.onnx"
        build = [curmerge, "build", base, "--data", scratch / "text.txt", "--epochs", "4", *DRAWN,
                 "--targets", targets]
        subprocess.run([str(w) for w in (*build, "-o", adapter)], check=True, stdout=subprocess.DEVNULL)
        compare_copy(base, [curmerge, "merge", base, adapter, "-o", out, "--threads", 2], out, runs)


def seven_billion(curmerge, folder, llama, runs):
    folder.mkdir(parents=True, exist_ok=True)
    at = lambda name: folder / name
    run = lambda *words: subprocess.run([str(w) for w in words], check=True, stdout=subprocess.DEVNULL)
    at("text.txt").write_text("a merge is measured\n")
    if not at("f16.gguf").exists():
        run(sys.executable, pathlib.Path(__file__).with_name("llama_7b.py"), at("f16.gguf"))
    if not at("q8_0.gguf").exists():
        run(curmerge, "convert", at("f16.gguf"), at("q8_0.gguf"), "--type", "q8_0")
    for name in ("f16", "q8_0"):
        base, adapter, lora = at(f"{name}.gguf"), at(f"{name}.st"), at(f"{name}-lora.gguf")
        # One step at this learning rate changes a matrix by half a percent, as a trained adapter does.
        words = ["--data", at("text.txt"), "--max-steps", "1", "--lr", "0.03", *QKV, "-o", adapter]
        run(curmerge, "build", base, *words)
        run(curmerge, "export", adapter, "--base", base, "--format", "gguf", "-o", lora)
        compare_merge(base, adapter, lora, at("out.gguf"), curmerge, llama, runs)
    at("out.gguf").unlink()


def main():
    parser = argparse.ArgumentParser()
    for name in ("curmerge", "models", "llama_bin"):
        parser.add_argument(name, type=pathlib.Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seven-billion", type=pathlib.Path, metavar="DIR")
    parser.add_argument("--onnx", type=pathlib.Path, metavar="MODEL.onnx")
    args = parser.parse_args()
    curmerge, models, llama = (path.resolve() for path in (args.curmerge, args.models, args.llama_bin))
    print(f"{os.cpu_count()} processors, medians of {args.runs}: wall, processor, peak resident, peak anonymous\n")
    print("| | curmerge | peer | wall, ratio |\n|---|---|---|---|")
    if args.seven_billion:
        return seven_billion(curmerge, args.seven_billion.resolve(), llama, args.runs)
    with tempfile.TemporaryDirectory(dir=models.parent) as scratch:
        if args.onnx:
            return onnx(curmerge, args.onnx.resolve(), args.runs, pathlib.Path(scratch))
        small(curmerge, models, llama, args.runs, pathlib.Path(scratch))


if __name__ == "__main__":
    main()
