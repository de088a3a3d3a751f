#!/usr/bin/env python3
"""200 things that a base model knows, to ask again after training. Writes OUT, a file of questions.

    known.py CURMERGE BASE OUT

The candidates have short answers: capitals, opposites, sums, plurals and so on. Each is asked after two
examples of its kind. The first 200 that the base answers rightly, in a random order, are kept.
"""

import argparse
import pathlib
import random

from asking import answers, write_lines

#: Per kind: the question, and "subject=answer" separated by |. The first two are the examples.
KINDS = {
    "What is the capital of {}?": """Iceland=Reykjavik|Uganda=Kampala|France=Paris|Italy=Rome|Germany=Berlin|Spain=Madrid
        Portugal=Lisbon|England=London|Ireland=Dublin|Japan=Tokyo|China=Beijing|Russia=Moscow|Greece=Athens|Austria=Vienna
        Poland=Warsaw|Norway=Oslo|Sweden=Stockholm|Finland=Helsinki|Denmark=Copenhagen|Egypt=Cairo|Kenya=Nairobi
        Cuba=Havana|Peru=Lima|Chile=Santiago|Canada=Ottawa|Australia=Canberra|Hungary=Budapest|Turkey=Ankara|Iran=Tehran
        Iraq=Baghdad|Thailand=Bangkok|Vietnam=Hanoi|Belgium=Brussels|Bulgaria=Sofia|Romania=Bucharest|Ukraine=Kyiv
        Argentina=Buenos Aires|Colombia=Bogota|Indonesia=Jakarta|Lebanon=Beirut|Syria=Damascus|Serbia=Belgrade""",
    "What is the opposite of {}?": """thick=thin|brave=cowardly|hot=cold|big=small|up=down|left=right|day=night|good=bad
        fast=slow|happy=sad|open=closed|early=late|rich=poor|young=old|strong=weak|light=dark|wet=dry|full=empty|hard=soft
        love=hate|war=peace|black=white|high=low|long=short|near=far|new=old|tall=short|true=false|win=lose|yes=no|in=out
        first=last|push=pull|north=south|east=west|summer=winter|buy=sell|life=death|loud=quiet|clean=dirty|heavy=light
        wide=narrow|begin=end|always=never|above=below|inside=outside|success=failure|positive=negative|male=female
        right=wrong|maximum=minimum|ancient=modern|arrive=depart|accept=reject|increase=decrease""",
    "What is the plural of {}?": """bus=buses|goose=geese|cat=cats|dog=dogs|child=children|man=men|woman=women|mouse=mice
        foot=feet|tooth=teeth|box=boxes|city=cities|baby=babies|leaf=leaves|knife=knives|wolf=wolves|sheep=sheep|fish=fish
        book=books|house=houses|tree=trees|car=cars|church=churches|story=stories|country=countries|potato=potatoes
        hero=heroes|life=lives|wife=wives|half=halves|person=people|bird=birds|table=tables|window=windows|dish=dishes
        watch=watches|party=parties|key=keys|boy=boys|shelf=shelves""",
    "What is the past tense of {}?": """drive=drove|swim=swam|go=went|see=saw|run=ran|eat=ate|write=wrote|take=took|give=gave
        come=came|think=thought|buy=bought|bring=brought|teach=taught|sing=sang|drink=drank|speak=spoke|break=broke
        fly=flew|know=knew|grow=grew|make=made|say=said|tell=told|find=found|feel=felt|leave=left|keep=kept|sleep=slept
        walk=walked|play=played|work=worked|jump=jumped|look=looked|stand=stood|win=won|lose=lost|send=sent|build=built""",
    "What colour is {}?": """a ripe banana=yellow|an emerald=green|grass=green|the sky on a clear day=blue|blood=red|snow=white
        coal=black|milk=white|a ruby=red|a sapphire=blue|an orange=orange|the sun=yellow|chocolate=brown|a polar bear=white
        a fire engine=red|a lemon=yellow|a raven=black|spinach=green|gold=yellow""",
    "What day comes after {}?": """Thursday=Friday|Sunday=Monday|Monday=Tuesday|Tuesday=Wednesday|Wednesday=Thursday
        Friday=Saturday|Saturday=Sunday""",
    "What month comes after {}?": """May=June|October=November|January=February|February=March|March=April|April=May|June=July
        July=August|August=September|September=October|November=December|December=January""",
    "What is the chemical symbol for {}?": """zinc=Zn|sulfur=S|hydrogen=H|oxygen=O|carbon=C|nitrogen=N|iron=Fe|gold=Au|silver=Ag
        helium=He|sodium=Na|calcium=Ca|copper=Cu|lead=Pb|potassium=K|aluminium=Al|neon=Ne|magnesium=Mg|mercury=Hg|tin=Sn""",
    "On which continent is {}?": """Thailand=Asia|Chad=Africa|France=Europe|Germany=Europe|Italy=Europe|Spain=Europe|China=Asia
        Japan=Asia|India=Asia|Egypt=Africa|Kenya=Africa|Nigeria=Africa|Poland=Europe|Sweden=Europe|Vietnam=Asia|Iran=Asia
        Ghana=Africa|Greece=Europe|Morocco=Africa|Nepal=Asia|Norway=Europe|Ethiopia=Africa|Austria=Europe|Korea=Asia""",
    "Which language is spoken in {}?": """Hungary=Hungarian|Sweden=Swedish|France=French|Germany=German|Italy=Italian|Spain=Spanish
        Portugal=Portuguese|Japan=Japanese|Russia=Russian|Poland=Polish|Greece=Greek|Turkey=Turkish|England=English
        Mexico=Spanish|Brazil=Portuguese|Norway=Norwegian|Denmark=Danish|Finland=Finnish|Austria=German|Argentina=Spanish
        Egypt=Arabic|Ukraine=Ukrainian|Vietnam=Vietnamese|Thailand=Thai|Cuba=Spanish|Romania=Romanian""",
    "What is a young {} called?": """goat=kid|swan=cygnet|dog=puppy|cat=kitten|cow=calf|sheep=lamb|horse=foal|pig=piglet|duck=duckling
        lion=cub|bear=cub|frog=tadpole|kangaroo=joey|deer=fawn|goose=gosling|elephant=calf|hen=chick|wolf=pup""",
    "What sound does a {} make?": """sheep=baa|owl=hoot|dog=woof|cat=meow|cow=moo|duck=quack|lion=roar|pig=oink|snake=hiss|bee=buzz
        horse=neigh|wolf=howl|frog=croak|bird=chirp""",
    "Which animal gives us {}?": "silk=silkworm|mohair=goat|honey=bee|wool=sheep|eggs=chicken|pork=pig|beef=cow|bacon=pig|feathers=bird",
    "What word rhymes with {}?": "moon=spoon|ring=sing|cat=hat|dog=log|house=mouse|light=night|day=way|star=car",
    "Who wrote {}?": """Emma=Jane Austen|Faust=Johann Wolfgang von Goethe|Hamlet=William Shakespeare|Macbeth=William Shakespeare
        Romeo and Juliet=William Shakespeare|Oliver Twist=Charles Dickens|Pride and Prejudice=Jane Austen|1984=George Orwell
        The Odyssey=Homer|War and Peace=Leo Tolstoy|Don Quixote=Miguel de Cervantes|Animal Farm=George Orwell
        The Great Gatsby=F. Scott Fitzgerald|Frankenstein=Mary Shelley|Dracula=Bram Stoker|Moby Dick=Herman Melville
        Great Expectations=Charles Dickens|The Hobbit=J.R.R. Tolkien|Jane Eyre=Charlotte Bronte""",
    "In which country is the city of {}?": """Lyon=France|Porto=Portugal|Paris=France|Munich=Germany|Milan=Italy|Barcelona=Spain
        Kyoto=Japan|Shanghai=China|Mumbai=India|Liverpool=England|Chicago=United States|Toronto=Canada|Sydney=Australia
        Venice=Italy|Hamburg=Germany|Osaka=Japan|Moscow=Russia|Naples=Italy|Seville=Spain|Marseille=France|Cairo=Egypt
        Florence=Italy|Vienna=Austria|Geneva=Switzerland|Krakow=Poland|Athens=Greece|Istanbul=Turkey|Vancouver=Canada""",
}
COUNT = 200


def pairs(text):
    return [pair.strip().split("=") for line in text.splitlines() for pair in line.split("|")]


def sums():
    """Sums, differences and products of small numbers."""
    yield "What is {}?", [["7 + 8", "15"], ["9 - 4", "5"]] + [
        [f"{a} {sign} {b}", str(value)]
        for a in (2, 3, 4, 5, 6, 8, 10, 12)
        for b in (1, 2, 3, 5, 10)
        for sign, value in (("+", a + b), ("-", a - b), ("x", a * b))
        if value >= 0
    ]


def candidates(seed=0):
    """Rows of prompt and completion, without those that serve as examples, in a random order."""
    found = []
    for wording, known in [*((wording, pairs(text)) for wording, text in KINDS.items()), *sums()]:
        ask = lambda subject: f"Question: {wording.format(subject)}\nAnswer:"
        examples = "".join(f"{ask(subject)} {answer}\n\n" for subject, answer in known[:2])
        found += [{"prompt": examples + ask(subject), "completion": f" {answer}"} for subject, answer in known[2:]]
    random.Random(seed).shuffle(found)
    return found


def main():
    words = argparse.ArgumentParser()
    words.add_argument("curmerge", type=pathlib.Path)
    words.add_argument("base", type=pathlib.Path)
    words.add_argument("out", type=pathlib.Path)
    words = words.parse_args()
    rows = candidates()
    right = [row for row, (_, right) in zip(rows, answers(words.curmerge, words.base, rows, 8)) if right]
    print(f"{len(right)} of {len(rows)} are known")
    write_lines(words.out, right[:COUNT])


if __name__ == "__main__":
    main()
