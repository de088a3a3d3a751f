#!/usr/bin/env python3
"""Uses the cache folder of huggingface_hub as its own programs do.

    hub.py OUT.json < ASKED.json

ASKED.json is {"environment": {name: value}, "files": [[kind, repository, file]], "folders": [[kind, repository]]}. Asks
for these files and snapshots, and writes to OUT.json {"files": {file: text in hexadecimal}, "folders": [[files]],
"cache": {repository: {"refs": names, "files": paths, "size": bytes}}, "warnings": texts}.
"""

import json
import os
import sys
from pathlib import Path


def main():
    asked = json.load(sys.stdin)
    for name in list(os.environ):
        if name.startswith("HF_") or name.lower().endswith("_proxy"):
            del os.environ[name]
    os.environ.update(asked["environment"])
    # Reads the environment when it is imported.
    import huggingface_hub as hub

    answer = {"files": {}, "folders": [], "cache": {}}
    for kind, repository, file in asked["files"]:
        path = hub.hf_hub_download(repository, file, repo_type=kind)
        answer["files"][file] = Path(path).read_bytes().hex()
    for kind, repository in asked["folders"]:
        folder = Path(hub.snapshot_download(repository, repo_type=kind))
        files = [path for path in folder.rglob("*") if path.is_file()]
        answer["folders"].append(sorted(path.relative_to(folder).as_posix() for path in files))
    scanned = hub.scan_cache_dir()
    for repository in scanned.repos:
        [revision] = repository.revisions
        answer["cache"][repository.repo_id] = {
            "refs": sorted(repository.refs),
            "files": sorted(file.file_path.relative_to(revision.snapshot_path).as_posix() for file in revision.files),
            "size": repository.size_on_disk,
        }
    answer["warnings"] = [str(warning) for warning in scanned.warnings]
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(answer, file)


if __name__ == "__main__":
    main()
