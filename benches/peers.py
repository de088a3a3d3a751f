#!/usr/bin/env python3
"""Compares training with PyTorch on the same work.

    peers.py CURMERGE MODELS DATA TORCH_TRAIN [--runs 3]

CURMERGE is the release program, MODELS the folder that shared/models/get.py filled. DATA holds
sst2/train.jsonl and wikitext2/wiki.test.raw. TORCH_TRAIN is shared/bench/torch_train.py. The interpreter
needs torch, transformers and peft. Both train rank 16 on q, k and v of SmolLM2-135M on all processors. There
are two workloads:

- 4 x 256: four texts of 256 tokens a step, with loss on every token (the peer takes random tokens). Measures
  the fastest step after the first.
- SST-2: 256 examples in steps of 16, with loss on the completions. Measures all steps after the first.

Both count the tokens of the examples without padding.

Each pair of programs runs RUNS times alternately after one warm-up. The table gives medians of tokens per
second, and the median ratio over the pairs.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile


def run(words):
    """The standard output of a process, and its peak resident MB."""
    process = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"failed: {' '.join(map(str, words))}")
    return output, usage.ru_maxrss / 1000


class Ours:
    def __init__(self, curmerge, model, data, precision, batch, scratch, more):
        self.metrics = scratch / "metrics.jsonl"
        self.words = [curmerge, "build", model, "--data", data, "--epochs", 1, "--batch-size", batch, "--precision"]
        self.words += [precision, "--no-append-eos", "--no-hold-out", "--anchor", "none", "--metrics", self.metrics]
        self.words += ["--targets", "q,k,v", "--rank", "16", "-o", scratch / "adapter.st", *more]

    def measure(self, fastest):
        self.metrics.unlink(missing_ok=True)
        _, peak = run(self.words)
        steps = [json.loads(line) for line in self.metrics.read_text().splitlines()]
        steps = [step for step in steps if "tokens" in step][1:]
        if fastest:
            return max(step["tokens"] / step["seconds"] for step in steps), peak
        return sum(step["tokens"] for step in steps) / sum(step["seconds"] for step in steps), peak


class Peer:
    def __init__(self, script, model, precision, batch, more):
        self.words = [sys.executable, script, "--model", model, "--dtype", precision, "--batch", batch, *more]

    def measure(self, fastest):
        output, peak = run(self.words)
        return json.loads(output.splitlines()[-1])["tokens_per_s"], peak


def compare(what, ours, peer, fastest, runs):
    ours.measure(fastest), peer.measure(fastest)
    pairs = [(ours.measure(fastest), peer.measure(fastest)) for _ in range(runs)]
    (rate, peak), (peer_rate, peer_peak) = (
        [statistics.median(pair[side][i] for pair in pairs) for i in range(2)] for side in range(2)
    )
    ratio = statistics.median(a[0] / b[0] for a, b in pairs)
    print(f"| {what} | {rate:.0f}, {peak:.0f} MB | {peer_rate:.0f}, {peer_peak:.0f} MB | {ratio:.2f} |", flush=True)


def main():
    parser = argparse.ArgumentParser()
    for name in ("curmerge", "models", "data", "torch_train"):
        parser.add_argument(name, type=pathlib.Path)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    quantized, folder = args.models / "smollm2-135m-instruct.Q4_1.gguf", args.models / "smollm2-hf"
    print(f"{os.cpu_count()} processors, medians of {args.runs}: tokens per second, peak resident\n")
    print("| | curmerge, Q4_1 file | PEFT LoRA, bfloat16 folder | ratio |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        text = (args.data / "wikitext2/wiki.test.raw").read_text()
        whole, sst2 = scratch / "whole.jsonl", scratch / "sst2.jsonl"
        # Each text is long enough to be cut to 256 tokens. The last token predicts nothing.
        lines = [json.dumps({"text": text[start : start + 2000]}) for start in range(0, 2000 * 24, 2000)]
        whole.write_text("\n".join(lines) + "\n")
        examples = (args.data / "sst2/train.jsonl").read_text().splitlines()[:256]
        sst2.write_text("\n".join(examples) + "\n")
        for precision in ("f32", "bf16"):
            ours = Ours(args.curmerge, quantized, whole, precision, 4, scratch, ["--max-seq-len", 256])
            peer = Peer(args.torch_train, folder, precision, 4, ["--seq", 256])
            compare(f"4 x 256, {precision}", ours, peer, True, args.runs)
        for precision in ("f32", "bf16"):
            ours = Ours(args.curmerge, quantized, sst2, precision, 16, scratch, [])
            peer = Peer(args.torch_train, folder, precision, 16, ["--data", sst2, "--examples", 256])
            compare(f"SST-2, {precision}", ours, peer, False, args.runs)


if __name__ == "__main__":
    main()
