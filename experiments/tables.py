#!/usr/bin/env python3
"""Makes the tables and plots of the results: TABLES.md and figures/*.svg.

    tables.py [--results DIR] [--out DIR] [--no-plots]

A row is a method with its settings, its mean over the seeds, and half of the range of the KL. The plots show
loss against KL, a curve a method: of its points, those that no other point of it beats in both. Only the
plots need matplotlib.
"""

import argparse
import collections
import json
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
SPLITS = {"report": "Reported", "choose": "Used to choose settings"}
TEXTS = ("wiki", "code", "self")


def load(folder):
    """One row for each run, point and split."""
    for file in sorted(folder.glob("*.json")):
        run = json.loads(file.read_text())
        measures = {key: value["result"] for key, value in run["measures"].items()}
        for point, split in dict.fromkeys(tuple(key.split("/")[:2]) for key in measures):
            of = lambda kind: measures.get(f"{point}/{split}/{kind}", {})
            yield {
                "base": run["base"], "task": run["task"], "split": split, "method": run["method"], "point": point,
                "seed": run["seed"], "settings": " ".join(f"{k.lstrip('-')} {v}" for k, v in run["settings"].items()),
                "figures": {
                    "loss": of("task").get("loss"),
                    "right": of("generate").get("exact_match", of("task").get("accuracy")),
                    **{text: of(text).get("kl") for text in TEXTS},
                    "top": of("wiki").get("same_top"),
                    "perplexity": change(of("wiki")),
                    "known": of("known").get("exact_match"),
                    # Other work shares the cores, so not the seconds that passed.
                    "processor": run.get("build", {}).get("processor_seconds"),
                    "memory": scaled(run.get("build", {}).get("peak_rss_bytes"), 1e-6),
                    "numbers": run.get("build", {}).get("result", {}).get("trained_numbers"),
                },
            }


def scaled(value, factor):
    return None if value is None else value * factor


def change(of):
    """By what share the perplexity rose."""
    return of["perplexity"] / of["against_perplexity"] - 1 if "against_perplexity" in of else None


def grouped(rows):
    """The rows of each base, task and split, with seeds joined: (key, seeds, means, half ranges)."""
    groups = collections.defaultdict(lambda: collections.defaultdict(list))
    for row in rows:
        groups[row["base"], row["task"], row["split"]][row["method"], row["settings"], row["point"]].append(row)
    for table, joined in sorted(groups.items()):
        found = []
        for key, same in joined.items():
            means, ranges = {}, {}
            for name in same[0]["figures"]:
                values = [row["figures"][name] for row in same if row["figures"][name] is not None]
                means[name] = sum(values) / len(values) if values else None
                ranges[name] = (max(values) - min(values)) / 2 if len(values) > 1 else None
            found.append((key, sorted(row["seed"] for row in same), means, ranges))
        yield table, sorted(found, key=lambda row: (row[0][0] != "base", row[0]))


#: A column: its title, the figure, how it is written, and whether its range over seeds is.
COLUMNS = [
    ("loss", "loss", "{:.4f}", True), ("right", "right", "{:.3f}", False), ("KL wiki", "wiki", "{:.5f}", True),
    ("KL code", "code", "{:.5f}", False), ("KL self", "self", "{:.5f}", False), ("same top", "top", "{:.4f}", False),
    ("perplexity", "perplexity", "{:+.2%}", False), ("known", "known", "{:.3f}", False), ("CPU s", "processor", "{:.0f}", False),
    ("MB", "memory", "{:.0f}", False), ("numbers", "numbers", "{:,.0f}", False),
]


def cell(means, ranges, figure, form, with_range):
    if means[figure] is None:
        return ""
    spread = form.replace("+", "").format(ranges[figure]) if with_range and ranges[figure] is not None else None
    return form.format(means[figure]) + (f" \u00b1 {spread}" if spread else "")


def markdown(groups, figures):
    lines = ["# Tables", "", "Made by `experiments/tables.py` from `experiments/results/`. Loss: nats a target token of the held-out",
             "examples. Right: accuracy, or answers that match exactly. KL: KL(base || adapted), nats a token. Perplexity:",
             "its change on WikiText-2. Known: of what the base answers rightly, the share still right. CPU s: processor seconds",
             "of `build`, with the anchor and its Fisher where no earlier run left them in the cache. \u00b1: half the range",
             "over seeds.", ""]
    for (base, task, split), rows in groups:
        used = [column for column in COLUMNS if any(means[column[1]] is not None for _, _, means, _ in rows)]
        lines += [f"## {base}, {task}: {SPLITS[split].lower()}", ""]
        name = f"{base}.{task}.{split}.svg"
        if name in figures:
            lines += [f"![Loss against KL](figures/{name})", ""]
        lines += ["| method | settings | point | seeds | " + " | ".join(title for title, *_ in used) + " |"]
        lines += ["|" + "---|" * (4 + len(used))]
        for (method, settings, point), seeds, means, ranges in rows:
            cells = [cell(means, ranges, *column[1:]) for column in used]
            seeds = " ".join(map(str, seeds))
            lines += ["| " + " | ".join([method, settings, point, seeds, *cells]) + " |"]
        lines += [""]
    return "\n".join(lines)


def frontier(points):
    """The points that no other beats in both coordinates, by rising KL."""
    best, kept = float("inf"), []
    for kl, loss in sorted(points):
        if loss < best:
            best = loss
            kept.append((kl, loss))
    return kept


def plot(groups, folder):
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "curmerge"
    from matplotlib import pyplot

    made = set()
    for (base, task, split), rows in groups:
        curves = collections.defaultdict(list)
        for (method, _, point), _, means, _ in rows:
            if point != "merged" and means["wiki"] and means["wiki"] > 0 and means["loss"] is not None:
                curves[method].append((means["wiki"], means["loss"]))
        if not curves:
            continue
        figure, axes = pyplot.subplots(figsize=(7, 4.5))
        for number, (method, points) in enumerate(sorted(curves.items())):
            colour = f"C{number % 10}"
            axes.plot(*zip(*frontier(points)), color=colour, marker="o", markersize=4, label=method)
            axes.scatter(*zip(*points), color=colour, s=10, alpha=0.4)
        axes.set_xscale("log")
        axes.set_xlabel("KL(base || adapted) on WikiText-2, nats a token")
        axes.set_ylabel("held-out loss, nats a target token")
        axes.set_title(f"{base}, {task} ({SPLITS[split].lower()})")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
        figure.tight_layout()
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{base}.{task}.{split}.svg"
        figure.savefig(folder / name, metadata={"Date": None})
        pyplot.close(figure)
        made.add(name)
    return made


def main():
    words = argparse.ArgumentParser()
    words.add_argument("--results", type=pathlib.Path, default=HERE / "results")
    words.add_argument("--out", type=pathlib.Path, default=HERE)
    words.add_argument("--no-plots", action="store_true")
    words = words.parse_args()
    groups = list(grouped(load(words.results)))
    figures = set() if words.no_plots else plot(groups, words.out / "figures")
    (words.out / "TABLES.md").write_text(markdown(groups, figures), encoding="utf-8")


if __name__ == "__main__":
    main()
