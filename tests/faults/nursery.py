"""A process that has imported all that train.py imports, and forks a victim for each line of its standard input.

A victim is what `python train.py …` is from there on: it runs that file as `__main__`, and the interpreter ends it with its real
exit code. It only skips six seconds of imports. Requests and answers are lines of JSON:

    {"arguments": […], "folder": …, "environment": {…}, "faults": [[name, {…}], …]}    ->    {"born": pid}
                                                                      later    {"dead": pid, "status": as of waitpid}
"""

import faulthandler
import json
import os
import random
import runpy
import select
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.faults import injected

ROOT = Path(__file__).resolve().parents[2]


def serve() -> dict[str, Any]:
    """Fork until standard input ends; returns in the victims alone, with what was asked for."""
    wake, woken = os.pipe()
    for end in (wake, woken):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    alive: set[int] = set()
    while True:
        ready, _, _ = select.select([sys.stdin, wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
            for pid in sorted(alive):
                died, status = os.waitpid(pid, os.WNOHANG)
                if died:
                    alive.remove(pid)
                    _say({"dead": pid, "status": status})
        if sys.stdin in ready:
            line = sys.stdin.readline()  # one request at a time: there is never a second one in the buffer
            if not line:
                for pid in alive:
                    os.killpg(pid, signal.SIGKILL)
                os._exit(0)
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.close(wake)
                os.close(woken)
                request: dict[str, Any] = json.loads(line)
                return request
            alive.add(pid)
            _say({"born": pid})


def become(request: dict[str, Any]) -> None:
    """A process group, an environment, a command line and files of its own; and the faults that act from inside."""
    os.setsid()
    folder = Path(request["folder"])
    for stream, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, folder / "stdout", os.O_WRONLY | os.O_CREAT | os.O_APPEND),
        (2, folder / "stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND),
    ):
        opened = os.open(path, flags, 0o644)
        os.dup2(opened, stream)
        os.close(opened)
    os.environ.update(request["environment"])
    sys.argv = [str(ROOT / "train.py"), *request["arguments"]]
    random.seed()  # each process begins with other random numbers of its own
    np.random.seed()  # noqa: NPY002
    torch.seed()
    faulthandler.register(signal.SIGUSR2)  # where it hangs, if it does
    for name, options in request["faults"]:
        getattr(injected, name)(**options)


def _say(answer: dict[str, int]) -> None:
    os.write(1, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    import train  # noqa: F401  # what these import stays imported in the victims
    import training  # noqa: F401

    _say({"born": os.getpid()})
    become(serve())
    runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
