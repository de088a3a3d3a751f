#!/usr/bin/env python3
"""A tone: a ship's captain answers. Writes OUT/train.jsonl (400 dialogues), valid.jsonl and test.jsonl (100 each).

    tone.py CURMERGE BASE OUT

The questions are those of questions.py, and no subject is in two of the files. The model answers them itself,
greedily, and fixed rules put its first sentences into the captain's words. A chat model gets "messages"; a
base without a chat template gets "prompt" and "completion".
"""

import argparse
import pathlib
import re

from asking import answers, has_chat_template, write_lines
from questions import split

OPENING = "Ahoy, shipmate! Hear your captain."
CLOSING = "Mark it in the log, and fair winds to ye!"
#: Words of the captain, for whole words in any case.
WORDS = {
    "you": "ye", "your": "yer", "my": "me", "is": "be", "are": "be", "isn't": "ben't", "aren't": "ben't", "the": "th'",
    "of": "o'", "and": "an'", "yes": "aye", "no": "nay", "it's": "'tis", "there's": "there be", "friend": "matey",
    "friends": "mateys", "people": "land folk", "person": "landlubber", "children": "wee sailors", "very": "mighty",
    "also": "likewise", "money": "doubloons", "food": "grub", "drink": "grog", "stop": "belay", "quickly": "smartly",
    "called": "named", "house": "cabin", "home": "port", "kitchen": "galley", "floor": "deck", "wall": "bulkhead",
    "team": "crew", "group": "crew", "left": "port side", "them": "'em", "before": "afore", "between": "betwixt",
    "often": "oft", "never": "ne'er", "ever": "e'er", "over": "o'er", "for": "fer", "to": "t'", "was": "were",
}
#: Answers shorter than this, in letters, say nothing.
SHORTEST = 25


def captain(word):
    """A word in the captain's speech, in the case of the original."""
    plain = word.lower().replace("\u2019", "'")
    spoken = WORDS.get(plain)
    if spoken is None and len(plain) > 5 and plain.endswith("ing"):
        spoken = plain[:-1] + "'"
        return word[0] + spoken[1:]
    if spoken is None:
        return word
    letter = next((i for i, c in enumerate(spoken) if c.isalpha()), 0)
    return spoken[:letter] + spoken[letter].upper() + spoken[letter + 1 :] if word[0].isupper() else spoken


def rewritten(answer, sentences=2):
    """The captain's version of an answer; None if the answer has no whole sentence."""
    answer = re.sub(r"[*_`#]", "", answer).strip()
    whole = re.findall(r"\S.*?[.!?](?=\s|$)", answer)[:sentences]
    text = " ".join(whole)
    if len(text) < SHORTEST:
        return None
    spoken = re.sub(r"[A-Za-z]+(?:['\u2019][A-Za-z]+)?", lambda match: captain(match[0]), text)
    return f"{OPENING} {spoken} {CLOSING}"


def row(question, answer, chat):
    if chat:
        return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
    return {"prompt": f"Question: {question}\nAnswer:", "completion": f" {answer}"}


def main():
    words = argparse.ArgumentParser()
    words.add_argument("curmerge", type=pathlib.Path)
    words.add_argument("base", type=pathlib.Path)
    words.add_argument("out", type=pathlib.Path)
    words = words.parse_args()
    sizes = {"train": 400, "valid": 100, "test": 100}
    # Some answers have no whole sentence, so that more are asked for than are kept.
    asked = split([size * 6 // 5 for size in sizes.values()])
    chat = has_chat_template(words.curmerge, words.base)
    for (name, size), questions in zip(sizes.items(), asked):
        found = answers(words.curmerge, words.base, [row(question, "-", chat) for question in questions], 72)
        told = [(question, rewritten(answer)) for question, (answer, _) in zip(questions, found)]
        kept = [row(question, answer, chat) for question, answer in told if answer][:size]
        write_lines(words.out / f"{name}.jsonl", kept)
        print(f"{name}: {len(kept)} of {len(questions)}")


if __name__ == "__main__":
    main()
