#!/usr/bin/env python3
"""Asks llama.cpp for the tokens of texts that curmerge has tokenized, and reports each difference.

    tokens.py MODEL.gguf TOKENS.jsonl

TOKENS.jsonl holds one {"text": ..., "ids": [...]} a line, as `cargo run --example tokens` writes it: without BOS and
EOS, special tokens in the text parsed. llama.cpp runs inside the PyPI package xllamacpp, whose server is asked through
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


def tokenize(connection, text):
    body = json.dumps({"content": text, "add_special": False, "parse_special": True})
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
            theirs = tokenize(connection, item["text"])
            texts += 1
            tokens += len(theirs)
            if theirs != item["ids"]:
                wrong += 1
                at = first_difference(item["ids"], theirs)
                if wrong <= 20:
                    print(f"line {number}: {item['text'][:80]!r} differs at token {at}:"
                          f" curmerge {item['ids'][at:at + 8]}, llama.cpp {theirs[at:at + 8]}")
    print(f"{texts} texts, {tokens} tokens, {wrong} texts differ")
    return 1 if wrong or not texts else 0


if __name__ == "__main__":
    sys.exit(main())
