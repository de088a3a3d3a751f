#!/usr/bin/env python3
"""Compares measuring perplexity with llama-perplexity on the same model and text.

    perplexity.py CURMERGE LLAMA_PERPLEXITY MODEL.gguf TEXT [--chunks 20] [--runs 3]

Both take chunks of 512 tokens and all processors. They run RUNS times alternately after one warm-up. Prints
the medians of seconds, and the median ratio over the pairs.
"""

import argparse
import os
import re
import statistics
import subprocess
import time


def run(words, pattern):
    """The wall seconds of a process, and the perplexity that it prints."""
    start = time.monotonic()
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=True)
    seconds = time.monotonic() - start
    return seconds, re.search(pattern, done.stdout + done.stderr)[1]


def main():
    parser = argparse.ArgumentParser()
    for name in ("curmerge", "llama_perplexity", "model", "text"):
        parser.add_argument(name)
    parser.add_argument("--chunks", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    threads = os.cpu_count()
    peer = [args.llama_perplexity, "-m", args.model, "-f", args.text, "-c", 512, "-t", threads, "--chunks", args.chunks]
    ours = [args.curmerge, "--threads", threads, "eval", args.model, "--perplexity", args.text, "--chunks", args.chunks]
    print(f"{threads} threads, {args.chunks} chunks, medians of {args.runs}\n")
    print("| products | curmerge | llama-perplexity | ratio | perplexity, ours | theirs |\n|---|---|---|---|---|---|")
    for precision in ("f32", "bf16"):
        pairs = [
            (run([*ours, "--precision", precision], r"perplexity ([\d.]+)"), run(peer, r"PPL = ([\d.]+)"))
            for _ in range(args.runs + 1)
        ][1:]
        (our_time, our_value), (their_time, their_value) = (
            (statistics.median(pair[side][0] for pair in pairs), pairs[0][side][1]) for side in range(2)
        )
        ratio = statistics.median(b[0] / a[0] for a, b in pairs)
        print(f"| {precision} | {our_time:.1f} s | {their_time:.1f} s | {ratio:.1f} | {our_value} | {their_value} |")


if __name__ == "__main__":
    main()
