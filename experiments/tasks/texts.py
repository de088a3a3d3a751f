#!/usr/bin/env python3
"""Texts on which forgetting is measured. Each has two versions: "choose" to choose settings by, "report" to report.

    texts.py wiki RAW OUT            parts of WikiText-2's test text: its second half, and its start
    texts.py code OUT                Rust source of this repository at a fixed commit
    texts.py self PROGRAM BASE OUT   texts that the base writes itself, at a temperature of 1; PROGRAM is
                                     target/release/examples/self_text

writes OUT/choose.txt and OUT/report.txt.
"""

import pathlib
import random
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
#: The commit whose sources are read, and how many characters of each file.
COMMIT, LONGEST = "71d5e53", 8000
#: Bytes that hold ten chunks of 512 tokens of any tokenizer: more than six letters a token.
ENOUGH = 40_000
#: Texts of up to 128 tokens that make ten chunks of 512, though some end early.
TEXTS = 64


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


def self_written(program, base, out):
    """Texts that no anchor has: their seed is not one of the grids'."""
    said = lambda seed: subprocess.run([program, base, str(seed), str(TEXTS)], check=True, stdout=subprocess.PIPE).stdout
    write(out, {name: said(seed).decode() for name, seed in (("report", 1001), ("choose", 1002))})


def main():
    kind, *words, out = sys.argv[1:]
    {"wiki": wiki, "code": code, "self": self_written}[kind](*words, pathlib.Path(out))


if __name__ == "__main__":
    main()
