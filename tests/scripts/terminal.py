#!/usr/bin/env python3
"""Runs a program on a terminal of its own: terminal.py OUT.json < ASKED.json

ASKED.json is {"words": [...], "steps": [[text to wait for, text or number of a signal to send], ...]}. Writes {"shown",
"status", "canonical"} to OUT.json: all that the program wrote, its exit status, and whether the terminal gives lines again.
Fails if a text does not come within a minute.
"""

import json
import os
import pty
import select
import sys
import termios
import time


def main():
    asked = json.load(sys.stdin)
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        os.execv(asked["words"][0], asked["words"])
    shown, at = "", 0

    def read(until):
        nonlocal shown
        while True:
            if until is not None and shown.find(until, at) >= 0:
                return True
            ready, _, _ = select.select([terminal], [], [], 1.0)
            if not ready:
                if time.monotonic() > end:
                    return False
                continue
            try:
                more = os.read(terminal, 1 << 16)
            except OSError:
                return until is None
            if not more:
                return until is None
            shown += more.decode("utf-8", "replace")

    for wait, send in asked["steps"]:
        end = time.monotonic() + 60
        if not read(wait):
            raise SystemExit(f"{wait!r} did not come; shown: {shown[-2000:]!r}")
        at = shown.find(wait, at) + len(wait)
        if isinstance(send, int):
            os.kill(pid, send)
        else:
            os.write(terminal, send.encode())
    end = time.monotonic() + 60
    read(None)
    _, status = os.waitpid(pid, 0)
    canonical = bool(termios.tcgetattr(terminal)[3] & termios.ICANON)
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        json.dump({"shown": shown, "status": os.waitstatus_to_exitcode(status), "canonical": canonical}, out)


if __name__ == "__main__":
    main()
