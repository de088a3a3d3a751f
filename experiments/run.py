#!/usr/bin/env python3
"""Runs the experiments of a grid file. One run makes one JSON file in results/.

    run.py grids/GRID.json --curmerge PROGRAM --models DIR --data DIR [--work DIR] [--only TEXT] [--jobs N] [--list]

A run trains an adapter and measures it. Its file holds the command lines, what the program printed, seconds,
the peak of the memory (RSS), the seed and the commit. What a file already holds is not done again, so a grid
that was stopped goes on where it ended, and measures that a grid adds later need no second training while the
adapter is still in the work folder. README.md says what a grid holds.
"""

import argparse
import concurrent.futures
import fcntl
import itertools
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
#: Chunks of 512 tokens of each text.
TEXTS = {"wiki": 20, "code": 10, "self": 10}
#: What is measured of a run on each split, besides the task: settings are chosen by the KL on WikiText-2 alone.
MEASURED = {"choose": ["wiki"], "report": ["wiki", "code", "self", "known"]}
#: What is measured of an adapter at another scale than its first: enough for the curve of loss against KL.
MEASURED_SCALED = ["wiki"]


class Places:
    """The folders of a machine, which the files of results name by variables."""

    def __init__(self, words):
        self.models, self.data, self.work = words.models.resolve(), words.data.resolve(), words.work.resolve()
        self.curmerge, self.results = words.curmerge.resolve(), words.results.resolve()
        self.threads = max(1, (os.cpu_count() or 1) // words.jobs)
        self.names = [(self.curmerge, "$CURMERGE"), (self.work, "$WORK"), (self.models, "$MODELS"), (self.data, "$DATA"),
                      (HERE, "$EXPERIMENTS")]

    def portable(self, command):
        def one(word):
            for folder, name in self.names:
                if word == str(folder) or word.startswith(f"{folder}/"):
                    return name + word[len(str(folder)) :]
            return word

        return [one(str(word)) for word in command]

    def file(self, name):
        """A file of a grid: `@x` is in data/ beside this file, others are in the data folder."""
        return HERE / "data" / name[1:] if name.startswith("@") else self.data / name


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part")
    scratch.write_text(json.dumps(value, indent=1) + "\n")
    scratch.rename(path)


def timed(places, command):
    """Runs the program; returns what a result holds of it."""
    start = time.monotonic()
    environment = {**os.environ, "RAYON_NUM_THREADS": str(places.threads)}
    child = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, env=environment)
    said = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(" ".join(places.portable(command)))
    found = json.loads(said) if said.strip() else {}
    for long in ("answers", "losses"):
        found.pop(long, None)
    return {
        "command": places.portable(command),
        "seconds": round(time.monotonic() - start, 2),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "threads": places.threads,
        # Kibibytes on Linux, bytes on macOS.
        "peak_rss_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "result": found,
    }


def commit():
    git = ["git", "-C", HERE]
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "../src", "../formats"]).returncode
    return head + ("+changes" if changed else "")


def listed(value):
    return value if isinstance(value, list) else [value]


def expanded(grid):
    """The single runs of a grid: every combination of the lists of an entry."""
    for entry in grid["runs"]:
        vary = entry.get("vary", {})
        keys = [listed(entry[key]) for key in ("base", "task", "method")] + [listed(entry.get("seed", 0))]
        for base, task, method, seed, *values in itertools.product(*keys, *map(listed, vary.values())):
            settings = dict(zip(vary, map(str, values)))
            yield {"base": base, "task": task, "method": method, "seed": seed, "settings": settings,
                   "splits": listed(entry.get("split", "choose")), "merged": entry.get("merged", False)}


def name_of(run):
    settings = [f"{key.lstrip('-')}={value}" for key, value in run["settings"].items()]
    return ".".join([run["task"], run["method"], str(run["seed"]), run["base"], *settings]).replace("/", "-")


def text_file(places, base, kind, split):
    """The text of this kind for a base."""
    folder = {"wiki": places.work / "wiki", "code": places.work / "code", "self": HERE / "data" / "self" / base}[kind]
    return folder / f"{split}.txt"


def make_texts(places, base, split):
    """Makes the texts that are missing. What a base writes takes long, and is kept in data/."""
    sources = {"wiki": [places.data / "wikitext2" / "wiki.test.raw"], "code": []}
    for kind in filter(TEXTS.get, MEASURED[split]):
        file = text_file(places, base, kind, split)
        if file.exists():
            continue
        if kind not in sources:
            raise SystemExit(f"{file} is missing: tasks/texts.py writes it")
        subprocess.run([sys.executable, HERE / "tasks" / "texts.py", kind, *sources[kind], file.parent], check=True)


def examples_file(places, name, lines):
    """A file of examples, or its first lines."""
    file = places.file(name)
    if lines is None:
        return file
    part = places.work / f"{name.lstrip('@').replace('/', '.')}.{lines}.jsonl"
    if not part.exists():
        part.parent.mkdir(parents=True, exist_ok=True)
        scratch = part.with_suffix(f".{threading.get_ident()}.part")
        # Not splitlines, which also splits at U+2028.
        scratch.write_text("".join(line + "\n" for line in file.read_text(encoding="utf-8").split("\n")[:lines] if line))
        scratch.rename(part)
    return part


def of_base(name, base):
    return name.replace("BASE", base)


class Run:
    def __init__(self, places, grid, run):
        self.places, self.grid, self.run = places, grid, run
        self.base = places.models / grid["bases"][run["base"]]
        task = grid["tasks"][run["task"]]
        self.task = {key: of_base(value, run["base"]) if isinstance(value, str) else value for key, value in task.items()}
        self.method = grid["methods"][run["method"]]
        self.name = name_of(run)
        self.file = places.results / f"{self.name}.json"
        self.adapter = places.work / "adapters" / (self.name + self.method.get("ending", ".safetensors"))
        self.found = self.load()

    def load(self):
        """What the run's file holds."""
        if self.file.exists():
            return json.loads(self.file.read_text())
        kept = ("base", "task", "method", "seed", "settings")
        return {**{key: self.run[key] for key in kept}, "commit": commit(), "measures": {}}

    def points(self):
        """What is measured: the adapter at several scales, the merged model, or the base alone."""
        if not self.trains():
            return [("base", [self.base])]
        points = [(f"scale {s:g}", [self.base, "--adapter", self.adapter, "--scale", f"{s:g}"])
                  for s in self.method.get("scales", [1.0])]
        return points + [("merged", [self.merged()])] * self.run["merged"]

    def trains(self):
        return self.method.get("train", True)

    def merged(self):
        return self.places.work / f"{self.name}.merged.gguf"

    def measures(self):
        """Every measure: its key, the model that it needs, and the rest of the command."""
        scaled = [f"scale {s:g}" for s in self.method.get("scales", [])[1:]]
        for (point, model), split in itertools.product(self.points(), self.run["splits"]):
            examples = ["--data", examples_file(self.places, self.task[split], self.task.get("scored"))]
            yield f"{point}/{split}/task", model, examples
            if self.task.get("generate"):
                yield f"{point}/{split}/generate", model, [*examples, "--generate"]
            for kind in MEASURED_SCALED if point in scaled else MEASURED[split]:
                if kind == "known":
                    known = HERE / "data" / "known" / f"{self.run['base']}.jsonl"
                    yield f"{point}/{split}/known", model, ["--data", known, "--generate", "--max-tokens", "8"]
                elif self.trains():
                    file = text_file(self.places, self.run["base"], kind, split)
                    against = ["--perplexity", file, "--against", self.base, "--chunks", str(TEXTS[kind])]
                    yield f"{point}/{split}/{kind}", model, against

    def missing(self):
        return [measure for measure in self.measures() if measure[0] not in self.found["measures"]]

    def train(self):
        settings = [word for pair in self.run["settings"].items() for word in pair]
        examples = examples_file(self.places, self.task["train"], self.task.get("lines"))
        data = ["--data", examples, "-o", self.adapter, "--seed", str(self.run["seed"])]
        flags = [*self.grid.get("build", []), *self.task.get("build", []), *self.method.get("build", []), *settings]
        flags = [self.places.file(of_base(word, self.run["base"])) if word.startswith("@") else word for word in flags]
        self.adapter.parent.mkdir(parents=True, exist_ok=True)
        self.found["build"] = timed(self.places, [self.places.curmerge, "build", self.base, *data, *flags, "--json"])
        self.found["build"]["adapter_bytes"] = sum(
            file.stat().st_size for file in [self.adapter, *self.adapter.rglob("*")] if file.is_file())
        self.found["commit"] = commit()
        self.found["measures"] = {}
        write(self.file, self.found)

    def carry_out(self):
        # An earlier entry of the grid may have made it.
        self.found = self.load()
        if not self.missing():
            return
        print(self.name, flush=True)
        if self.trains() and not ("build" in self.found and self.adapter.exists()):
            self.train()
        for key, model, words in self.missing():
            if model == [self.merged()] and not self.merged().exists():
                command = [self.places.curmerge, "merge", self.base, self.adapter, "-o", self.merged(), "--json"]
                self.found["merge"] = timed(self.places, command)
            command = [self.places.curmerge, "eval", *model, *words, *self.grid.get("eval", []), "--json"]
            self.found["measures"][key] = timed(self.places, command)
            write(self.file, self.found)
        self.merged().unlink(missing_ok=True)


def main():
    words = argparse.ArgumentParser()
    words.add_argument("grid", type=pathlib.Path)
    words.add_argument("--curmerge", type=pathlib.Path, required=True)
    words.add_argument("--models", type=pathlib.Path, required=True)
    words.add_argument("--data", type=pathlib.Path, required=True)
    words.add_argument("--work", type=pathlib.Path, default=HERE / "work")
    words.add_argument("--results", type=pathlib.Path, default=HERE / "results")
    words.add_argument("--only", default="", help="runs whose name contains this")
    words.add_argument("--jobs", type=int, default=1, help="runs at a time, which share the cores [default: 1]")
    words.add_argument("--list", action="store_true", help="print what is missing, and run nothing")
    words = words.parse_args()
    places, grid = Places(words), json.loads(words.grid.read_text())
    runs = [Run(places, grid, run) for run in expanded(grid)]
    runs = [run for run in runs if words.only in run.name]
    if words.list:
        for run in runs:
            print(f"{run.name}: {len(run.missing())} measures are missing")
        return
    places.work.mkdir(parents=True, exist_ok=True)
    with (places.work / "lock").open("w") as lock:
        # A second grid beside this one would spoil the times.
        fcntl.flock(lock, fcntl.LOCK_EX)
        for base, split in sorted({(run.run["base"], split) for run in runs if run.missing() for split in run.run["splits"]}):
            make_texts(places, base, split)
        with concurrent.futures.ThreadPoolExecutor(words.jobs) as pool:
            failed = sum(pool.map(fails, runs))
    if failed:
        raise SystemExit(f"{failed} of {len(runs)} runs failed")


def fails(run):
    """Carries out a run, and tells whether it failed."""
    try:
        run.carry_out()
    except RuntimeError as error:
        print(f"{run.name} failed: {error}", flush=True)
        return True
    return False


if __name__ == "__main__":
    main()
