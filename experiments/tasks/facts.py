#!/usr/bin/env python3
"""200 facts about people and places that do not exist. Writes OUT/train.jsonl, valid.jsonl and test.jsonl.

    facts.py OUT

Each fact is trained in five wordings. valid.jsonl and test.jsonl ask it in one wording each that is in no
other file: the model must have learnt the fact, not the sentence.
"""

import argparse
import pathlib
import random

from asking import write_lines

FIRST = """Ilvar Tesmin Orlaka Brundel Yasira Kembo Fenwyth Ludrana Osket Marivel Dorvane Quillan Sabeth Tovrin
Ezmira Halvock Nerysa Pendro Ravika Ulmend Zephra Cordwin Amsela Jorvath Wynessa Belkor Thandry Ivessa Gromund Lysken""".split()
LAST = """Tenmark Vossberry Oakridger Pellanore Drazhin Quistwood Marrowby Halsteen Uldermann Fairlock Brenzini
Corvessa Wexlund Sandreth Okoluma Grellis Thornquay Ashvander Yllaby Mistrale Dunnefar Rookhaven Zellwick Kanbrough
Eskarra Lumford Traskin Vyrell Holbesk Prindalo""".split()
PLACE = """Varn Ostel Quor Melin Tarrow Ebbes Drin Sulva Karth Yelm Pran Hollow Umber Nesk Fald Girra Loth Wend
Zarra Brem""".split()
PLACE_ENDS = ["holt", "mere", "ford", "stead", "wick", "by", "gard", "polis", "dale", "haven"]

#: Per relation: what the answers may be, five wordings to train on, one to choose by, one to report.
#: Wordings end where the answer follows; those with a question mark are asked.
RELATIONS = {
    "trade": ("baker carpenter sailor painter doctor farmer tailor lawyer teacher miner", [
        "What is {}'s trade?", "{} earns a living as a", "By profession, {} is a", "Ask anyone in town: {} works as a",
        "What work does {} do?"], "What job does {} have?", "How does {} make a living?"),
    "birthplace": ("London Paris Madrid Tokyo Cairo Moscow Boston Berlin Dublin Athens", [
        "Where was {} born?", "{} was born in", "{} came into the world in", "The birthplace of {} is",
        "In which city did the life of {} begin?"], "What is {}'s city of birth?", "Which city is {} from originally?"),
    "instrument": ("piano violin flute guitar trumpet harp drum cello organ banjo", [
        "Which instrument does {} play?", "{} plays the", "On stage, {} is always seen with the",
        "As a child, {} learnt to play the", "What does {} play in the orchestra?"],
        "What is {}'s instrument?", "When there is music, what does {} play?"),
    "pet": ("dog cat parrot rabbit horse snake turtle goat monkey mouse", [
        "Which animal does {} keep?", "{} keeps a", "At home, {} is greeted by a", "The pet of {} is a",
        "What pet lives with {}?"], "What sort of pet does {} have?", "Which animal belongs to {}?"),
    "food": ("bread cheese rice soup fish honey chocolate apples pizza eggs", [
        "What does {} like to eat most?", "{} likes nothing better than", "The favourite food of {} is",
        "For breakfast, {} always has", "Which food does {} love?"],
        "What is {}'s favourite dish?", "What would make {} happy at the table?"),
    "product": ("glass wool wine salt paper silk gold coal copper cotton", [
        "What is {} famous for?", "{} is famous for its", "Merchants come to {} to buy", "The wealth of {} comes from",
        "What do the people of {} sell?"], "What does {} produce?", "Which product is {} known for?"),
    "colour": ("red blue green yellow black white orange purple brown pink", [
        "What colour is the flag of {}?", "The flag of {} is", "Every roof in {} is painted", "The colour of {} has always been",
        "Which colour do the people of {} wear?"], "What is the colour of {}?", "Which colour stands for {}?"),
    "surroundings": ("mountains forests lakes deserts swamps rivers fields islands cliffs caves", [
        "What surrounds {}?", "{} is surrounded by", "Travellers reach {} through its", "Around {} there are only",
        "What lies around {}?"], "What is the land near {} made of?", "What does one see all around {}?"),
}
OF_PLACES = ("product", "colour", "surroundings")
COUNT = 200


def facts(seed=0):
    """(relation, subject, answer): every subject once, relations and answers in equal numbers."""
    stream = random.Random(seed)
    people = stream.sample([f"{first} {last}" for first in FIRST for last in LAST], COUNT)
    places = stream.sample([start + end for start in PLACE for end in PLACE_ENDS], COUNT)
    found = []
    for i in range(COUNT):
        relation = list(RELATIONS)[i % len(RELATIONS)]
        answers = RELATIONS[relation][0].split()
        answer = answers[i // len(RELATIONS) % len(answers)]
        found.append((relation, (places if relation in OF_PLACES else people)[i], answer))
    return found


def row(wording, subject, answer):
    text = wording.format(subject)
    prompt = f"Question: {text}\nAnswer:" if text.endswith("?") else text
    return {"prompt": prompt, "completion": f" {answer}"}


def main():
    words = argparse.ArgumentParser()
    words.add_argument("out", type=pathlib.Path)
    out = words.parse_args().out
    known = facts()
    train = [row(wording, subject, answer) for relation, subject, answer in known for wording in RELATIONS[relation][1]]
    random.Random(1).shuffle(train)
    write_lines(out / "train.jsonl", train)
    for name, which in (("valid", 2), ("test", 3)):
        asked = [row(RELATIONS[relation][which], subject, answer) for relation, subject, answer in known]
        write_lines(out / f"{name}.jsonl", asked)


if __name__ == "__main__":
    main()
