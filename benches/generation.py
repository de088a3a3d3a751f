#!/usr/bin/env python3
"""Reading and writing tokens by `curmerge run` and by llama-bench, in turn: generation.py CURMERGE LLAMA_BENCH MODEL.gguf...

Prints tokens a second of both, and the median ratio of the rounds. Times of curmerge are differences of whole runs, so
that loading does not count.
"""

import argparse
import json
import statistics
import subprocess
import time

PROMPT, WRITTEN = 512, 128


def seconds(program, model, prompt, count, threads, exact):
    words = [program, "run", model, "-p", prompt, "-n", str(count), "--threads", str(threads)]
    start = time.monotonic()
    subprocess.run(words + ["--exact"] * exact, stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - start


def ours(program, model, threads, exact=False):
    least = min(seconds(program, model, "Once", 1, threads, exact) for _ in range(2))
    long = " the" * (PROMPT - 2)
    read = (PROMPT - 2) / (seconds(program, model, long, 1, threads, exact) - least)
    return read, WRITTEN / (seconds(program, model, "Once", WRITTEN + 1, threads, exact) - least)


def theirs(program, model, threads):
    words = [program, "-m", model, "-t", str(threads), "-p", str(PROMPT), "-n", str(WRITTEN), "-r", "1", "-o", "json"]
    answer = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    return [row["avg_ts"] for row in answer]


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("curmerge")
    p.add_argument("llama_bench")
    p.add_argument("models", nargs="+")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--threads", type=int, default=2)
    a = p.parse_args()
    for model in a.models:
        rounds = []
        for _ in range(a.rounds):
            own = ours(a.curmerge, model, a.threads)
            exact = ours(a.curmerge, model, a.threads, exact=True)[1]
            rounds.append((own, theirs(a.llama_bench, model, a.threads), exact))
        print(model)
        for what, i in (("read", 0), ("written", 1)):
            ratios = [own[i] / other[i] for own, other, _ in rounds]
            medians = [statistics.median(row[who][i] for row in rounds) for who in (0, 1)]
            print(f"  {what:8} curmerge {medians[0]:7.1f}, llama.cpp {medians[1]:7.1f} tokens/s, ratio "
                  f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        print(f"  written with --exact: {statistics.median(row[2] for row in rounds):.1f} tokens/s")


if __name__ == "__main__":
    main()
