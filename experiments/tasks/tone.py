#!/usr/bin/env python3
"""A tone: a ship's captain answers. Writes OUT/train.jsonl (400 dialogues), valid.jsonl and test.jsonl (100 each).

    tone.py CURMERGE BASE OUT

The questions are those of questions.py, and no subject is in two of the files. The model answers them itself,
greedily, and fixed rules put its first sentence into the captain's words. A chat model gets "messages"; a
base without a chat template gets "prompt" and "completion".

The loss is to be that of the tone, not of what an answer says, of which no training makes a model surer. So the
captain repeats the question, says one short sentence of the model's own, and changes few words. With two sentences,
fifty changed words and "-in'" for "-ing", no method gets below 0.8.
"""

import argparse
import pathlib
import re

from asking import answers, has_chat_template, write_lines
from questions import split

OPENING = "Ahoy there, shipmate! Ye ask yer old captain: {} Hear it from one who has sailed the seven seas."
CLOSING = "Mark it well in the log, keep a weather eye on the horizon, and fair winds to ye!"
#: Words of the captain, for whole words in any case.
WORDS = {"you": "ye", "your": "yer", "my": "me", "yes": "aye", "no": "nay", "friend": "matey", "friends": "mateys"}
#: Sentences shorter than this, in letters, say nothing; longer ones say more than the tone.
SHORTEST, LONGEST = 25, 110


def captain(word):
    """A word in the captain's speech, in the case of the original."""
    plain = word.lower().replace("\u2019", "'")
    spoken = WORDS.get(plain)
    if spoken is None:
        return word
    letter = next((i for i, c in enumerate(spoken) if c.isalpha()), 0)
    return spoken[:letter] + spoken[letter].upper() + spoken[letter + 1 :] if word[0].isupper() else spoken


def rewritten(question, answer):
    """The captain's version of an answer; None if it does not begin with a whole sentence of a fitting length."""
    answer = re.sub(r"[*_`#]", "", answer).strip()
    sentence = re.match(r"\S.*?[.!?](?=\s|$)", answer)
    if sentence is None or not SHORTEST <= len(sentence[0]) <= LONGEST:
        return None
    spoken = re.sub(r"[A-Za-z]+(?:['\u2019][A-Za-z]+)?", lambda match: captain(match[0]), sentence[0])
    return f"{OPENING.format(question)} {spoken} {CLOSING}"


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
    # Many sentences are too long, so that more are asked for than are kept.
    asked = split([size * 2 for size in sizes.values()])
    chat = has_chat_template(words.curmerge, words.base)
    for (name, size), questions in zip(sizes.items(), asked):
        found = answers(words.curmerge, words.base, [row(question, "-", chat) for question in questions], 40)
        told = [(question, rewritten(question, answer)) for question, (answer, _) in zip(questions, found)]
        kept = [row(question, answer, chat) for question, answer in told if answer][:size]
        write_lines(words.out / f"{name}.jsonl", kept)
        print(f"{name}: {len(kept)} of {len(questions)}")


if __name__ == "__main__":
    main()
