"""Asks a model through `curmerge eval --generate`, and reads and writes JSON lines."""

import json
import pathlib
import subprocess
import tempfile


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def answers(curmerge, base, rows, max_tokens, options=()):
    """The model's greedy answers to rows of a data file, each of one line: (text, whether it is right)."""
    with tempfile.TemporaryDirectory() as folder:
        data = pathlib.Path(folder) / "questions.jsonl"
        write_lines(data, rows)
        command = [curmerge, "eval", base, "--data", data, "--generate", "--max-tokens", str(max_tokens), "--json"]
        said = subprocess.run([*command, *options], check=True, stdout=subprocess.PIPE).stdout
    return [(answer["text"], answer["right"]) for answer in json.loads(said)["answers"]]


def has_chat_template(curmerge, base):
    command = [curmerge, "run", base, "--chat", "-p", "Hello", "-n", "1"]
    return subprocess.run(command, capture_output=True).returncode == 0
