#!/usr/bin/env python3
"""Asks llama.cpp for the tokens of texts that curmerge has tokenized, and reports each difference.

    tokens.py MODEL.gguf TOKENS.jsonl

TOKENS.jsonl holds one {"text": ..., "ids": [...]} a line, as `cargo run --example tokens` writes it: without BOS and
EOS, special tokens in the text parsed; and "ordinary": [...], if asked for, with control tokens as ordinary text. llama.cpp runs inside the PyPI package xllamacpp, whose server is asked through
/tokenize. Exit status: 0 all equal, 1 any difference, 2 wrong usage.
"""

import http.client
import json
import sys
import urllib.parse

import xllamacpp


def serve(model):
    """llama.cpp's server over the model, on a free port of this machine."""
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx = 256
    params.n_parallel = 1
    params.warmup = False
    params.port = 0
    return xllamacpp.Server(params)


def tokenize(connection, text, parse_special=True):
    body = json.dumps({"content": text, "add_special": False, "parse_special": parse_special})
    connection.request("POST", "/tokenize", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"llama.cpp answered {answer.status} to {text[:80]!r}: {content[:200]!r}")
    return json.loads(content)["tokens"]


def first_difference(ours, theirs):
    for at, (a, b) in enumerate(zip(ours, theirs)):
        if a != b:
            return at
    return min(len(ours), len(theirs))


def main():
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    server = serve(sys.argv[1])
    address = urllib.parse.urlsplit(server.listening_address)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=300)
    texts = tokens = wrong = 0
    with open(sys.argv[2], encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            item = json.loads(line)
            texts += 1
            for name, parse_special in (("ids", True), ("ordinary", False)):
                ours = item.get(name)
                if ours is None:
                    continue
                theirs = tokenize(connection, item["text"], parse_special)
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
