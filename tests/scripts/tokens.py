#!/usr/bin/env python3
"""Compares the tokens that curmerge and llama.cpp give for the same texts.

    tokens.py MODEL.gguf TOKENS.jsonl

TOKENS.jsonl holds a {"text", "ids", "ordinary"} a line, as `cargo run --example tokens` writes it. "ids" are
the tokens without BOS and EOS, with special tokens of the text parsed. "ordinary", which may be missing, are
the tokens with control tokens read as ordinary text. The exit status is 0 if all are equal, 1 if any differ,
2 for wrong usage.
"""

import json
import sys

from llama import Llama


def first_difference(ours, theirs):
    for at, (a, b) in enumerate(zip(ours, theirs)):
        if a != b:
            return at
    return min(len(ours), len(theirs))


def main():
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    llama = Llama(sys.argv[1], context=256)
    texts = tokens = wrong = 0
    with open(sys.argv[2], encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            item = json.loads(line)
            texts += 1
            for name, parse_special in (("ids", True), ("ordinary", False)):
                ours = item.get(name)
                if ours is None:
                    continue
                answer = llama.ask("/tokenize", content=item["text"], add_special=False, parse_special=parse_special)
                theirs = answer["tokens"]
                tokens += len(theirs)
                if theirs != ours:
                    wrong += 1
                    at = first_difference(ours, theirs)
                    if wrong <= 20:
                        print(f"line {number}: {name} of {item['text'][:80]!r} differ at token {at}:"
                              f" curmerge {ours[at:at + 8]}, llama.cpp {theirs[at:at + 8]}")
    print(f"{texts} texts, {tokens} tokens, {wrong} differences")
    return 1 if wrong or not texts else 0


if __name__ == "__main__":
    sys.exit(main())
