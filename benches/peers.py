#!/usr/bin/env python3
"""Training beside PyTorch on the same work, whole processes in turn.

    peers.py CURMERGE MODELS DATA TORCH_TRAIN [--runs 3]

CURMERGE is the release program, MODELS the folder that shared/models/get.py filled, DATA has sst2/train.jsonl and
wikitext2/wiki.test.raw, TORCH_TRAIN is shared/bench/torch_train.py; this interpreter has torch, transformers and peft.
Rank 16 on q, k and v of SmolLM2-135M, all processors. Two kinds of work:

- 4 x 256: four texts of 256 tokens a step, loss on every token (the peer: random tokens); the fastest step after the first.
- SST-2: 256 examples in steps of 16, loss on completions; all steps after the first.

Both count the tokens of the examples, no padding.

Each pair runs RUNS times in turn after one run that does not count; the table gives medians of tokens a second, and the
ratio pair by pair.
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
    """Standard output, and the peak resident MB of a process."""
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
        self.words += [precision, "--metrics", self.metrics, "-o", scratch / "adapter", *more]

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
    print(f"{os.cpu_count()} processors, medians of {args.runs}: tokens a second, peak resident\n")
    print("| | curmerge, Q4_1 file | PEFT LoRA, bfloat16 folder | ratio |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        text = (args.data / "wikitext2/wiki.test.raw").read_text()
        whole, sst2 = scratch / "whole.jsonl", scratch / "sst2.jsonl"
        # Long enough to be cut to 256 tokens, and the last of them predicts nothing.
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
