"""curmerge in Python: its commands as functions, and its adapters as objects.

A function runs the program that the package carries, waits for it and returns what it prints with --json. Its keyword
arguments are the program's long options with `_` for `-`: `True` for one without a value, a list for one that is given
several times, `None` to leave it out. `curmerge --help` and `curmerge COMMAND --help` say what there is.

    report = curmerge.build("base.gguf", data="tone.jsonl", output="tone.safetensors", rank=16)
    curmerge.merge("base.gguf", "tone.safetensors", output="tone.gguf")
    curmerge.Adapter.load("tone.safetensors").to_peft("base-hf", "tone-peft")
"""

import json
import os
import subprocess
import sys
import sysconfig
import tempfile

from ._native import Adapter as _Adapter
from ._native import __version__

__all__ = [
    "Adapter",
    "CommandError",
    "build",
    "convert",
    "data",
    "evaluate",
    "export",
    "inspect",
    "merge",
    "program",
    "run_command",
    "select",
    "verify",
]


class CommandError(RuntimeError):
    """The program failed. Its text is the program's own line; `status` is its exit status."""

    def __init__(self, message, status):
        super().__init__(message)
        self.status = status


def program():
    """The path of the program that the package carries.

    CURMERGE_PROGRAM names another one. FileNotFoundError if there is none.
    """
    given = os.environ.get("CURMERGE_PROGRAM")
    if given:
        return given
    name = "curmerge" + (sysconfig.get_config_var("EXE") or "")
    schemes = [None, sysconfig.get_preferred_scheme("user")] if hasattr(sysconfig, "get_preferred_scheme") else [None]
    folders = [sysconfig.get_path("scripts", scheme) if scheme else sysconfig.get_path("scripts") for scheme in schemes]
    # pip install --target puts programs beside the packages.
    folders.append(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bin"))
    for folder in folders:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return path
    raise FileNotFoundError(f"no {name} in {', '.join(folders)}: install the package again, or set CURMERGE_PROGRAM")


def _words(options):
    for key, value in options.items():
        option = "--" + key.replace("_", "-")
        if value is None or value is False:
            continue
        if value is True:
            yield option
            continue
        values = value if isinstance(value, (list, tuple)) else [value]
        for one in values:
            # One word, so that a value may begin with a dash.
            yield f"{option}={os.fspath(one) if isinstance(one, os.PathLike) else one}"


def run_command(command, *paths, quiet=False, **options):
    """Runs `curmerge COMMAND PATHS --OPTIONS --json` and returns its result.

    Progress and warnings go to standard error, unless `quiet`. A terminal's Ctrl-C reaches the program: a training stops
    after its step and keeps what it has learnt. CommandError if the program fails.
    """
    words = [program(), command, "--json", *_words(options)]
    if paths:
        words += ["--", *map(os.fspath, paths)]
    # A file takes a result of any length while standard error is read.
    with tempfile.TemporaryFile() as result:
        with subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=result,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as started:
            try:
                last = _followed(started, quiet)
            except KeyboardInterrupt:
                # A terminal has sent it to the program, too, which ends after its step. A second one would stop it at once.
                _followed(started, quiet)
                started.wait()
                raise
            status = started.wait()
        if status != 0:
            raise CommandError(last or f"curmerge {command} ended with status {status}", status)
        result.seek(0)
        out = result.read().decode("utf-8")
    return json.loads(out) if out.strip() else None


def _followed(started, quiet):
    """Shows the program's lines until it ends; returns its error."""
    last = ""
    for line in started.stderr:
        if line.startswith("error: "):
            last = line[len("error: ") :].strip()
        elif not quiet:
            sys.stderr.write(line)
    return last


def build(base, *, data, output, **options):
    """Trains an adapter for `base` on examples and writes it to `output`; see `curmerge build --help`."""
    return run_command("build", base, data=data, output=output, **options)


def select(base, *, output, **options):
    """Chooses an adapter's columns and rows, with U = 0."""
    return run_command("select", base, output=output, **options)


def merge(base, *adapters, output, **options):
    """Writes W + C U R of `base` and adapters into a new model."""
    return run_command("merge", base, *adapters, output=output, **options)


def export(adapter, *, base, format, output, **options):
    """Writes an adapter in the form that another program loads: gguf, peft, ollama or onnx-adapter."""
    return run_command("export", adapter, base=base, format=format, output=output, **options)


def convert(source, output, **options):
    """Writes a model in other types, or in the other container."""
    return run_command("convert", source, output, **options)


def evaluate(base, **options):
    """Measures perplexity and accuracy: `curmerge eval`."""
    return run_command("eval", base, **options)


def data(*files, **options):
    """What files of examples hold."""
    return run_command("data", *files, **options)


def verify(adapter, **options):
    """Checks every checksum of an adapter, and of its base. CommandError if one is wrong."""
    return run_command("verify", adapter, **options)


def inspect(path, **options):
    """What a model file or adapter holds."""
    return run_command("inspect", path, **options)


class Adapter:
    """A CURLoRA adapter: W + scale C U R with C = W[:, columns] and R = W[rows, :]."""

    __slots__ = ("_inner",)

    def __init__(self, inner):
        self._inner = inner

    @classmethod
    def load(cls, path):
        """Reads an adapter file and verifies every checksum. ValueError names what is damaged."""
        return cls(_Adapter.load(os.fspath(path)))

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def __repr__(self):
        return repr(self._inner)

    def u(self, name):
        """U of a matrix as a numpy array [columns, rows] of float32."""
        import numpy

        shape = (len(self._inner.columns(name)), len(self._inner.rows(name)))
        return numpy.frombuffer(self._inner._u(name), dtype="<f4").reshape(shape).copy()
