#!/usr/bin/env python3
"""Types the commands of docs/journeys.md in a terminal (tmux), as a new user would:

    journeys.py PROGRAM MODELS DATA [--only N] [--keep FOLDER]

PROGRAM is the installed program, MODELS a folder with smollm2-135m-instruct.Q4_1.gguf and smollm2-hf, DATA the folder with
sst2/. Prints the seconds of each command, and fails if one fails. A command whose program is not installed is skipped, and
said so.
"""

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/journeys.md"
CHATS = ROOT / "experiments/data/tone/smollm2"
DROPS = "# the connection drops"
LONGEST = 1800


def journeys():
    """Titles and lines."""
    for section in re.split(r"^## ", PAGE.read_text(), flags=re.M)[1:]:
        title, rest = section.split("\n", 1)
        blocks = re.findall(r"^```\n(.*?)^```", rest, flags=re.M | re.S)
        assert len(blocks) == 1, title
        yield title, blocks[0].splitlines()


class Terminal:
    """A shell in tmux that tells the status of each command."""

    def __init__(self, folder, program):
        self.folder, self.program, self.name = folder, program, f"journey{os.getpid()}"
        self.statuses = folder / ".statuses"
        self.tmux = ["tmux", "-L", self.name, "-f", "/dev/null"]
        self.start()

    def start(self):
        self.statuses.write_text("")
        rc = self.folder / ".rc"
        bin_folder = self.program.parent
        rc.write_text(f"PATH={bin_folder}:$PATH\nPS1='$ '\nPROMPT_COMMAND='echo $? >> {self.statuses}'\n")
        shell = ["bash", "--noprofile", "--rcfile", str(rc), "-i"]
        new = ["new-session", "-d", "-x", "120", "-y", "45", "-s", "shell", "-c", str(self.folder)]
        subprocess.run([*self.tmux, *new, *shell], check=True)
        subprocess.run([*self.tmux, "set-option", "-g", "history-limit", "20000"], check=True)
        self.wait(1, 30)

    def stop(self):
        subprocess.run([*self.tmux, "kill-server"], capture_output=True)
        time.sleep(2)

    def count(self):
        return len(self.statuses.read_text().split())

    def wait(self, count, longest):
        end = time.monotonic() + longest
        while self.count() < count:
            if time.monotonic() > end:
                raise SystemExit(f"no end after {longest} s; shown:\n{self.shown()}")
            time.sleep(0.1)

    def send(self, text):
        subprocess.run([*self.tmux, "send-keys", "-t", "shell", "-l", text], check=True)
        subprocess.run([*self.tmux, "send-keys", "-t", "shell", "Enter"], check=True)

    def shown(self):
        pane = [*self.tmux, "capture-pane", "-p", "-J", "-S", "-500", "-t", "shell"]
        return subprocess.run(pane, capture_output=True, text=True).stdout.rstrip()

    def prompt(self, count, longest=LONGEST):
        """Waits for the chat's prompt, for the `count`-th time."""
        end = time.monotonic() + longest
        while sum(line.startswith(">>>") for line in self.shown().splitlines()) < count:
            if time.monotonic() > end:
                raise SystemExit(f"no prompt after {longest} s; shown:\n{self.shown()}")
            time.sleep(0.2)


def prepare(folder, models, data):
    """The files that the page names."""
    os.symlink(models / "smollm2-135m-instruct.Q4_1.gguf", folder / "smollm2.gguf")
    os.symlink(models / "smollm2-hf", folder / "smollm2-hf")
    chats = (CHATS / "train.jsonl").read_text().splitlines()[:300]
    (folder / "chats.jsonl").write_text("\n".join(chats) + "\n")
    for name, source, count in [("reviews.csv", "train.jsonl", 800), ("more.csv", "test.jsonl", 400)]:
        with open(data / "sst2" / source, encoding="utf-8") as file:
            rows = [json.loads(line) for line, _ in zip(file, range(count))]
        with open(folder / name, "w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(["sentence", "label"])
            table.writerows(row_of(row) for row in rows)


def row_of(row):
    """A sentence and 0 or 1, of a row of the data folder's SST-2."""
    sentence = row["prompt"].removeprefix("Review: ").removesuffix("\nSentiment:")
    return [sentence, int(row["completion"].strip() == "positive")]


def travel(title, lines, terminal):
    """Types the lines; returns the seconds of each command."""
    times, position = [], 0
    while position < len(lines):
        line = lines[position]
        position += 1
        if line == DROPS:
            # In the middle of training, if it has begun.
            time.sleep(30)
            terminal.stop()
            terminal.start()
            times.append((line, 0.0))
            continue
        command = line.removeprefix("$ ")
        assert command != line, line
        tool = command.split()[0]
        known = tool in ("curmerge", "printf", "tail") or shutil.which(tool)
        if not known:
            print(f"  SKIPPED, {tool} is not installed: {command}")
            continue
        before, began = terminal.count(), time.monotonic()
        subprocess.run([*terminal.tmux, "clear-history", "-t", "shell"])
        subprocess.run([*terminal.tmux, "send-keys", "-t", "shell", "-R", "C-l"])
        terminal.send(command)
        asked = 0
        while position < len(lines) and lines[position].startswith(">>> "):
            asked += 1
            terminal.prompt(asked)
            terminal.send(lines[position].removeprefix(">>> "))
            position += 1
        terminal.wait(before + 1, LONGEST)
        seconds = time.monotonic() - began
        status = terminal.statuses.read_text().split()[before]
        shown = terminal.shown()
        (terminal.folder / f"shown-{len(times):02}.txt").write_text(shown + "\n")
        print(f"  {seconds:7.1f} s  {command[:96]}")
        if status != "0":
            raise SystemExit(f"{title}: status {status}; shown:\n{shown[-3000:]}")
        if "warning:" in shown:
            print("    " + "\n    ".join(line for line in shown.splitlines() if "warning:" in line))
        times.append((command, seconds))
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path)
    parser.add_argument("models", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", type=int)
    parser.add_argument("--keep", type=Path, help="a new folder for what the journeys write")
    given = parser.parse_args()
    folder = given.keep or Path(tempfile.mkdtemp(prefix="journeys"))
    for number, (title, lines) in enumerate(journeys(), 1):
        if given.only not in (None, number):
            continue
        own = folder / str(number)
        own.mkdir(parents=True)
        prepare(own, given.models.resolve(), given.data.resolve())
        print(title, flush=True)
        terminal = Terminal(own, given.program.resolve())
        try:
            total = sum(seconds for _, seconds in travel(title, lines, terminal))
        finally:
            terminal.stop()
        print(f"  {total:7.1f} s  together", flush=True)
    if not given.keep:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
