"""A process that has imported all that train.py imports, and forks a victim for each line of its standard input.

A victim is what `python train.py …` is once Hydra has composed its config: `launch.run(train, config)`, which ends as a
process of its own, with its real exit code. What it skips is six seconds of imports, and one of composing. Requests and answers
are lines of JSON:

    {"config": {…}, "folder": …, "environment": {…}, "faults": [[name, {…}], …]}    ->    {"born": pid}
                                                                   later    {"dead": pid, "status": as of waitpid}
"""

import faulthandler
import json
import os
import random
import select
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

import launch
import train
from running import training  # noqa: F401  # train.py imports it late, and the victims have it already
from tests.faults import injected


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
    """A process group, an environment and files of its own; and the faults that act from inside."""
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
    random.seed()  # each process begins with other random numbers of its own
    np.random.seed()  # noqa: NPY002  # of others, which training leaves alone
    torch.seed()
    sys.modules["__main__"].__spec__ = None  # processes that it starts anew need nothing of this module
    del sys.modules["__main__"].__file__
    faulthandler.register(signal.SIGUSR2)  # where it hangs, if it does
    for name, options in request["faults"]:
        getattr(injected, name)(**options)


def _say(answer: dict[str, int]) -> None:
    os.write(1, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    _say({"born": os.getpid()})
    request = serve()
    become(request)
    HydraConfig.instance().set_config(OmegaConf.create({"hydra": HydraConf(mode=RunMode.RUN)}))
    launch.run(train.train, OmegaConf.create(request["config"]))
