#!/usr/bin/env python3
"""Texts on which forgetting is measured. Each has two versions: "choose" to choose settings by, "report" to report.

    texts.py wiki RAW OUT          parts of WikiText-2's test text: its second half, and its start
    texts.py code OUT              Rust source of this repository at a fixed commit
    texts.py self CURMERGE BASE OUT   texts that the base writes itself, at a temperature of 1

writes OUT/choose.txt and OUT/report.txt.
"""

import pathlib
import random
import subprocess
import sys

from asking import has_chat_template
from questions import split

HERE = pathlib.Path(__file__).resolve().parent
#: The commit whose sources are read, and how many characters of each file.
COMMIT, LONGEST = "71d5e53", 8000
#: Bytes that hold ten chunks of 512 tokens of any tokenizer: more than six letters a token.
ENOUGH = 40_000
#: Texts of TOKENS tokens that make ten chunks of 512.
TEXTS, TOKENS = 48, 128
#: What a text begins with.
STARTS = """The In When A It He She We They This If After Although Because Once My Our Many Some For On At Every
Yesterday Dear Chapter Table import def # <html> 1. http Q: The\u00a0 [ " Fig Abstract News Recipe To How""".split()


def write(out, texts):
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (out / f"{name}.txt").write_text(text, encoding="utf-8")


def wiki(raw, out):
    text = pathlib.Path(raw).read_text(encoding="utf-8")
    middle = text.index("\n = ", len(text) // 2)
    write(out, {"report": text[:middle], "choose": text[middle:]})


def code(out):
    def git(*words):
        return subprocess.run(["git", "-C", HERE, *words], check=True, stdout=subprocess.PIPE, text=True).stdout

    files = git("ls-tree", "-r", "--name-only", "--full-tree", COMMIT).splitlines()
    files = [name for name in files if name.startswith(("src/", "formats/src/")) and name.endswith(".rs")]
    random.Random(0).shuffle(files)
    texts, files = {}, iter(files)
    for name in ("report", "choose"):
        texts[name] = ""
        while len(texts[name]) < ENOUGH:
            texts[name] += git("show", f"{COMMIT}:{next(files)}")[:LONGEST] + "\n"
    write(out, texts)


def written(curmerge, base, prompt, seed, chat):
    command = [curmerge, "run", base, "-p", prompt, "-n", str(TOKENS), "--seed", str(seed)]
    command += ["--temperature", "1", "--top-k", "0", "--top-p", "1"] + ["--chat"] * chat
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.decode("utf-8", "replace")


def self_written(curmerge, base, out):
    """Half of a chat model's texts answer questions that no other task asks, the rest are free."""
    chat = has_chat_template(curmerge, base)
    asked = split([480, 120, 120])[-1]
    texts = {}
    for place, name in enumerate(("report", "choose")):
        parts = []
        for i in range(TEXTS):
            seed = 1000 + place * TEXTS + i
            if chat and i % 2:
                prompt = asked[place * TEXTS + i]
                parts.append(f"{prompt}\n{written(curmerge, base, prompt, seed, True)}")
            else:
                prompt = STARTS[(place * TEXTS + i) % len(STARTS)]
                parts.append(prompt + written(curmerge, base, prompt, seed, False))
        texts[name] = "\n\n".join(parts) + "\n"
    write(out, texts)


def main():
    kind, *words, out = sys.argv[1:]
    {"wiki": wiki, "code": code, "self": self_written}[kind](*words, pathlib.Path(out))


if __name__ == "__main__":
    main()
