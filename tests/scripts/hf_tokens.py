#!/usr/bin/env python3
"""Compares the tokens that the package `tokenizers` and llama.cpp give for the same texts.

    hf_tokens.py MODEL.gguf FOLDER [MODEL.gguf FOLDER]... < TEXTS.json

`tokenizers` reads tokenizer.json of FOLDER, llama.cpp the GGUF file. TEXTS.json is a list of strings. Each is
tokenized with and without the special tokens that surround a text. The exit status is 1 if any tokens differ.
"""

import json
import pathlib
import sys

from tokenizers import Tokenizer

from llama import Llama


def differences(model, folder, texts):
    llama, library = Llama(model), Tokenizer.from_file(str(pathlib.Path(folder) / "tokenizer.json"))
    wrong = 0
    for text in texts:
        for around in (False, True):
            theirs = llama.ask("/tokenize", content=text, add_special=around, parse_special=True)["tokens"]
            ours = library.encode(text, add_special_tokens=around).ids
            if ours != theirs:
                wrong += 1
                at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
                print(f"{model}: {text[:60]!r} differs at {at}: tokenizers {ours[at:at + 6]}, "
                      f"llama.cpp {theirs[at:at + 6]}", file=sys.stderr)
    return wrong


def main():
    texts, pairs = json.load(sys.stdin), sys.argv[1:]
    wrong = sum(differences(m, f, texts) for m, f in zip(pairs[::2], pairs[1::2]))
    return 1 if wrong or not texts or not pairs else 0


if __name__ == "__main__":
    sys.exit(main())
