"""Shows that two builds of curmerge write the same bytes.

    python tests/same_bytes.py OLD NEW [--models DIR --data DIR] [--only WORD]

OLD and NEW are two curmerge programs. The script runs both on the models of fixtures/: select, build, merge,
export, convert, run and eval in every form. With --models (a folder that ../shared/models/get.py filled) and
--data (../shared/data) it runs them on SmolLM2 too. It compares every output file, the answers of run and
eval, and which commands are refused. It exits with 1 if anything differs. It needs only Python 3.11.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
DEMO = FIXTURES / "demo/model.gguf"
FILE_TYPES = ["f32", "f16", "bf16", "q8_0", "q4_0", "q5_1", "q4_k_m", "q6_k", "q2_k", "iq4_xs"]
EXPORTS = {"gguf": ".lora.gguf", "peft": ".peft", "ollama": ".ollama", "onnx-adapter": ".onnx_adapter"}
# Other commands print paths, times and prose, which may change.
COMPARED_PRINTS = {"run", "eval"}
TEXTS = ["The cat sat on the mat.", "A dog ran after the cat.", "Where is the mat? On the floor.", "The end of it."] * 2


class Plan:
    """Commands in the order they run. `{out}` is replaced by the folder of one program's outputs."""

    def __init__(self, name):
        self.name = name
        self.commands = []

    def add(self, *words):
        self.commands.append([str(word) for word in words])

    def remove(self, *names):
        """Compares all files here, then removes these, which later commands do not need."""
        self.add("#remove", *names)

    def exports(self, base, adapter, out):
        for kind, end in EXPORTS.items():
            self.add("export", adapter, "--base", base, "--format", kind, "-o", out + end)

    def selections(self, base, out):
        for selection in ["reference", "inverse", "uniform", "leverage"]:
            self.add("select", base, "-o", f"{out}.{selection}.safetensors", "--rank", "4", "--select", selection)

    def small_model(self, base):
        """Every form of one small GGUF file or Hugging Face folder."""
        out = "{out}/" + base.name.removesuffix(".gguf")
        adapter, merged = f"{out}.adapter.safetensors", out + (".merged.gguf" if base.is_file() else ".merged")
        self.selections(base, out)
        self.add("build", base, "--data", "{out}/train.jsonl", "-o", adapter, "--rank", "2", "--targets", "all",
                 "--max-steps", "4", "--batch-size", "4", "--lr", "0.02", "--max-seq-len", "48")
        self.add("run", base, "--adapter", adapter, "-p", "The", "-n", "16", "--json")
        self.add("eval", base, "--adapter", adapter, "--data", "{out}/train.jsonl", "--json")
        self.add("merge", base, adapter, "-o", merged)
        self.add("run", merged, "-p", "The", "-n", "16", "--json")
        self.add("merge", base, adapter, "-o", f"{out}.whole.gguf", "--type", "q4_k_m")
        self.add("merge", base, adapter, "-o", f"{out}.adapted.gguf", "--type-adapted", "q8_0")
        self.add("merge", base, adapter, "-o", f"{out}.auto.gguf", "--type", "auto")
        self.add("merge", base, f"{adapter}=0.5", f"{adapter}=0.25", "-o", f"{out}.two.gguf")
        self.add("merge", base, adapter, "-o", f"{out}.shards", "--max-shard-size", "100K")
        self.exports(base, adapter, out)
        self.add("merge", base, f"{out}.lora.gguf", "-o", f"{out}.lora-merged.gguf")
        self.add("merge", base, f"{out}.peft", "-o", f"{out}.peft-merged.gguf")
        for file_type in FILE_TYPES:
            self.add("convert", base, f"{out}.{file_type}.gguf", "--type", file_type)
            self.add("merge", f"{out}.{file_type}.gguf", adapter, "-o", f"{out}.{file_type}.merged.gguf",
                     "--allow-other-base")
        if base.is_file():
            self.add("convert", base, f"{out}.folder")
        else:
            self.add("convert", base, f"{out}.plain.gguf")
        self.add("convert", f"{out}.f16.gguf", f"{out}.back")
        self.add("convert", f"{out}.q4_k_m.gguf", f"{out}.back-f32", "--type", "f32")
        self.add("convert", f"{out}.back-f32", f"{out}.again.gguf")
        for file_type in ["f32", "f16", "q4_0", "q4_1"]:
            self.add("convert", base, f"{out}.{file_type}.onnx", "--type", file_type)
        self.add("convert", base, f"{out}.external", "--format", "onnx", "--external-data")
        self.add("convert", base, f"{out}.inputs.onnx", "--lora-inputs", "q,v")
        self.add("convert", base, f"{out}.optimum", "--format", "onnx")
        self.add("convert", base, f"{out}.genai", "--format", "onnx", "--genai", "--type", "q4")
        for folder in ["optimum", "external", "genai"]:
            self.onnx(f"{out}.{folder}/model.onnx", adapter, f"{out}.{folder}")

    def onnx(self, model, adapter, out):
        """An ONNX model as a base."""
        self.add("convert", model, f"{out}.onnx.gguf")
        self.add("convert", model, f"{out}.onnx.folder")
        self.add("merge", model, adapter, "-o", f"{out}.onnx.merged", "--allow-other-base")
        self.add("merge", model, adapter, "-o", f"{out}.merged.onnx", "--allow-other-base")

    def exported(self, model):
        """An ONNX model that another program exported. It has no tokenizer, so it cannot be trained."""
        out = "{out}/exported"
        self.selections(model, out)
        self.onnx(model, f"{out}.uniform.safetensors", out)
        self.exports(model, f"{out}.uniform.safetensors", out)

    def demo(self):
        """Every option of build that changes an adapter."""
        common = ["--data", FIXTURES / "demo/train.jsonl", "--valid", FIXTURES / "demo/valid.jsonl",
                  "--batch-size", "8", "--max-steps", "12"]
        for name, words in {
            "defaults": [],
            "all": ["--targets", "all", "--lr", "5e-3", "--rank", "8", "--seed", "3"],
            "layers": ["--layers", "2-3", "--batch-size", "512", "--epochs", "2"],
            "patience": ["--valid-every", "3", "--patience", "2", "--grad-accum", "2"],
            "memory": ["--memory", "1M", "--threads", "1", "--append-eos"],
            "init": ["--init", "{out}/defaults.safetensors", "--weight-decay", "0.1", "--shrink", "0.9"],
            "bf16": ["--precision", "bf16"],
            "inverse": ["--select", "inverse", "--scale", "0.5", "--clip", "0.1"],
        }.items():
            given = {word for word in words if word.startswith("--")}
            pairs = zip(common[::2], common[1::2])
            kept = [word for pair in pairs if pair[0] not in given for word in pair]
            self.add("build", DEMO, *kept, *words, "-o", "{out}/" + name + ".safetensors")
        self.add("eval", DEMO, "--perplexity", FIXTURES / "demo/text.txt", "--ctx", "64", "--chunks", "4", "--json")
        self.add("eval", DEMO, "--data", FIXTURES / "demo/test.jsonl", "--json")
        self.small_model(DEMO)

    def smollm2(self, base):
        out = "{out}/smollm2"
        adapter = f"{out}.adapter.safetensors"
        self.add("build", base, "--data", "{out}/sst2.jsonl", "-o", adapter, "--max-steps", "4")
        self.add("run", base, "--adapter", adapter, "-p", "Once", "-n", "16", "--json")
        self.add("merge", base, adapter, "-o", f"{out}.merged" + (".gguf" if base.is_file() else ""))
        self.add("merge", base, adapter, "-o", f"{out}.whole.gguf", "--type", "q4_k_m")
        self.exports(base, adapter, out)
        self.add("convert", base, f"{out}.f16.gguf", "--type", "f16")
        self.add("convert", base, f"{out}.folder")
        self.add("convert", base, f"{out}.optimum", "--format", "onnx")
        self.onnx(f"{out}.optimum/model.onnx", adapter, f"{out}.optimum")
        self.remove("smollm2.optimum", "smollm2.optimum.onnx.gguf", "smollm2.optimum.onnx.folder",
                    "smollm2.optimum.onnx.merged", "smollm2.optimum.merged.onnx", "smollm2.optimum.merged.onnx.data")
        self.add("convert", base, f"{out}.genai", "--format", "onnx", "--genai", "--type", "q4")
        self.onnx(f"{out}.genai/model.onnx", adapter, f"{out}.genai")


def perform(program, command, out):
    """Runs one command. Returns its exit status, and its output if that is compared."""
    words = [word.replace("{out}", str(out)) for word in command]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CURMERGE_")}
    done = subprocess.run([program, *words], stdin=subprocess.DEVNULL, capture_output=True, env=environment)
    return done.returncode, done.stdout if command[0] in COMPARED_PRINTS else b""


def digests(folder):
    """SHA-256 of every file below the folder, by its name within it."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with open(path, "rb") as file:
            found[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


class Comparison:
    """Runs plans with both programs and collects the differences."""

    def __init__(self, programs, data):
        self.programs = [program.resolve() for program in programs]
        self.data = data
        self.commands = self.refused = self.files = 0
        self.different = []

    def run(self, plan):
        with tempfile.TemporaryDirectory() as scratch:
            # The names have the same length, since some messages contain them.
            sides = [Path(scratch, side) for side in ["old", "new"]]
            for side in sides:
                self.fill(side)
            for command in plan.commands:
                if command[0] == "#remove":
                    self.compare_files(plan, sides)
                    for side in sides:
                        for name in command[1:]:
                            path = side / name
                            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
                    continue
                self.compare_command(plan, command, sides)
            self.compare_files(plan, sides)

    def fill(self, side):
        side.mkdir()
        (side / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
        if self.data:
            lines = (self.data / "sst2/train.jsonl").read_text().splitlines(keepends=True)[:64]
            (side / "sst2.jsonl").write_text("".join(lines))

    def compare_command(self, plan, command, sides):
        (old, said), (new, says) = [perform(p, command, side) for p, side in zip(self.programs, sides)]
        self.commands += 1
        self.refused += old != 0
        if old != new or said.replace(b"/old/", b"/new/") != says:
            what = "prints differ" if old == new else f"exit statuses {old} and {new}"
            self.different.append(f"{plan.name}: {' '.join(command)}: {what}")

    def compare_files(self, plan, sides):
        old, new = map(digests, sides)
        self.files += len(old)
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                self.different.append(f"{plan.name}: {name}: {old.get(name)} and {new.get(name)}")


def plans(models):
    """All plans: the demo, every fixture, and SmolLM2 if `models` is given."""
    demo = Plan("demo")
    demo.demo()
    yield demo
    folders = sorted(path.parent for path in FIXTURES.glob("[!o]*/**/config.json"))
    for base in folders + sorted(FIXTURES.glob("arch/*/model.gguf")):
        plan = Plan(str(base.relative_to(FIXTURES)))
        plan.small_model(base)
        yield plan
    for model in sorted(FIXTURES.glob("onnx_models/tiny/*/*.onnx")):
        plan = Plan(str(model.relative_to(FIXTURES)))
        plan.exported(model)
        yield plan
    if models:
        for base in [*models.glob("*SmolLM2*.gguf"), *models.glob("smollm2*.gguf"), *models.glob("smollm2-hf")]:
            plan = Plan(base.name)
            plan.smollm2(base)
            yield plan


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", default="", help="only plans whose name contains this")
    args = parser.parse_args()
    if bool(args.models) != bool(args.data):
        parser.error("--models and --data go together")
    comparison = Comparison([args.old, args.new], args.data)
    for plan in plans(args.models):
        if args.only in plan.name:
            before = len(comparison.different)
            comparison.run(plan)
            print(f"{plan.name}: {len(plan.commands)} commands", flush=True)
            print("".join(f"  {line}\n" for line in comparison.different[before:]), end="", flush=True)
    c = comparison
    print(f"{c.commands} commands, {c.refused} of them refused; {c.files} files; {len(c.different)} differences")
    return bool(c.different)


if __name__ == "__main__":
    sys.exit(main())
