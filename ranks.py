"""The processes that train one run together, its ranks: who starts them, and how they end.

    python train.py trainer=ddp trainer.devices=4    this process is rank 0 and starts the other three
    torchrun, srun                                   start all of them, on one machine or on many

A rank that is gone takes the others with it. Whoever started them sees to that: torchrun, `srun --kill-on-bad-exit=1`; or
rank 0, which watches the ranks that it started, as they watch rank 0.
"""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

_LOOK_EVERY = 1.0  # seconds
_OWN_WORDS = 5.0  # seconds that a rank has, when another one is gone, to end by itself and say why
_AGREED = 30.0  # seconds within which ranks that end for one reason have all ended
_RANK_0 = "GPT_LIGHTNING_RANK_0"  # in a rank that rank 0 started: its process id
_GOES_ON = "this one ends too, and the same command goes on from the newest checkpoint"

Process = subprocess.Popen[bytes]


def started_by() -> str | None:
    """Who started this process as one of several: torchrun, srun or "rank 0"; None: nobody did.

    Of Slurm only the tasks of a step count: in a batch script, or a shell, one process may still start the others.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return "torchrun"
    if _RANK_0 in os.environ:
        return "rank 0"
    is_task = "SLURM_STEP_ID" in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) > 1
    return "srun" if is_task else None


def is_first_rank() -> bool:
    """Whether this process is the one that writes."""
    variable = {"srun": "SLURM_PROCID", None: None}.get(started_by(), "RANK")
    return variable is None or os.environ[variable] == "0"


def refuse_multirun() -> None:
    """A multirun starts its jobs by itself, one after the other, and they their ranks.

    Raises:
        ValueError: this process is one of several, each of which would run all of the jobs.
    """
    if starter := started_by():
        raise ValueError(
            f"a multirun is one process, and {starter} has started several: start it by python; trainer.devices says how many "
            "ranks each of its jobs has."
        )


@contextmanager
def together(*, devices: int, num_nodes: int) -> Iterator[None]:
    """Inside, a run has all its ranks: where nobody has started them, this process starts the others and becomes rank 0.

    Raises:
        ConnectionError: another rank is gone.
    """
    if devices * num_nodes == 1:
        yield
        return
    others = [] if started_by() else _start_others(devices)
    over = threading.Event()
    threading.Thread(target=_watch, args=(others, over), daemon=True, name="watch-other-ranks").start()
    patience = _AGREED
    try:
        yield
    except Exception as error:
        if _says_lost(error):  # the watch goes on: torch may wait for the others once more as this process ends
            patience = _OWN_WORDS / 2
            raise ConnectionError(f"{_who_is_gone(others, wait=_LOOK_EVERY)}: {_GOES_ON}.") from error
        if not hasattr(error, "exit_code"):  # this rank ends alone
            patience = _OWN_WORDS
        over.set()
        raise
    else:
        over.set()
    finally:
        _await(others, patience)


def leave(code: int) -> NoReturn:
    """End this rank with an exit code on which all ranks agree.

    Rank 0 goes first: torchrun and srun kill all others as soon as one has failed, and it may still be writing.
    """
    if not is_first_rank() and started_by() in ("torchrun", "srun"):
        time.sleep(_OWN_WORDS)
    sys.exit(code)


def _start_others(n_ranks: int) -> list[Process]:
    """Run this program again as each of the other ranks, which find this one by the environment."""
    if not hasattr(sys.modules["__main__"], "__file__"):
        raise ValueError(
            f"trainer.devices is {n_ranks}, and a notebook has one process: set trainer.devices=1, or run train.py in a shell."
        )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": "0"}
    command = [sys.executable, *sys.orig_argv[1:]]
    of_rank = ({"RANK": str(rank), "LOCAL_RANK": str(rank), _RANK_0: str(os.getpid())} for rank in range(1, n_ranks))
    return [subprocess.Popen(command, env=os.environ | variables) for variables in of_rank]


def _watch(others: Sequence[Process], over: threading.Event) -> None:
    """End this process when it cannot go on: it may wait for the others in a place that no error reaches."""
    starter = {"rank 0": int(os.environ.get(_RANK_0, 0)), "torchrun": os.getppid()}.get(started_by() or "")
    while not over.wait(_LOOK_EVERY):
        failed = [other.returncode for other in others if other.poll()]
        if not failed and starter in (None, os.getppid()):
            continue
        # an exit code of the run's own, which this rank may be about to give too
        by_agreement = failed and min(failed) > 1
        if not over.wait(_AGREED if by_agreement else _OWN_WORDS):
            print(f"error: {_who_is_gone(others)}: {_GOES_ON}.", file=sys.stderr, flush=True)
            _await(others, 0.0)
            os._exit(1)


def _who_is_gone(others: Sequence[Process], *, wait: float = 0.0) -> str:
    """Which rank it is, if that shows within `wait` seconds: a connection breaks a moment before its process is gone."""
    until = time.monotonic() + wait
    while True:
        for rank, other in enumerate(others, start=1):
            if other.poll():
                how = f"was killed by signal {-other.returncode}" if other.returncode < 0 else "ended with an error"
                return f"rank {rank} {how}"
        if _RANK_0 in os.environ and os.getppid() != int(os.environ[_RANK_0]):
            return "rank 0 is gone"
        if time.monotonic() >= until or (started_by() != "rank 0" and not others):
            return "another rank is gone"
        time.sleep(0.05)


def _await(others: Sequence[Process], patience: float) -> None:
    """Leave no rank behind."""
    until = time.monotonic() + patience
    for other in others:
        try:
            other.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            other.kill()


def _says_lost(error: Exception) -> bool:
    """Whether it is an error of torch.distributed, which is not imported here: that takes seconds."""
    return isinstance(error, RuntimeError) and (type(error).__name__.startswith("Dist") or "gloo" in str(error))
