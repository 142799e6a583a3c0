"""The processes that train one run together, its ranks: who starts them, and how they end.

    python train.py trainer=ddp trainer.devices=4    this process becomes torchrun's launcher and starts four, on this machine
    torchrun, srun                                   start all of them, on one machine or on many

A rank that is gone takes the others with it: torchrun's launcher sees to that, and `srun --kill-on-bad-exit=1`.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NoReturn
from uuid import uuid4

from gpt_lightning.console import escape_control_characters, say

# The longest that a rank waits for another: rank 0 may be sampling, or writing a checkpoint to a slow disk.
PATIENCE = timedelta(minutes=30)
_LOOK_EVERY = 1.0  # seconds
_OWN_WORDS = 5.0  # seconds that a rank has, when its launcher is gone, to end by itself and say why
_TO_STOP = (
    24 * 3600
)  # seconds that ranks have after a signal: validation may take long, and whoever sent it can kill them
_GOES_ON = "this one ends too, and the same command goes on from the newest checkpoint"


def detect_launcher() -> str | None:
    """Who started this process as one of several: torchrun or srun; None: nobody did.

    Of Slurm only the tasks of the process's own step count: in a batch script, or an interactive shell, which is a step of one
    task in an allocation for several, one process may still start the others.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return "torchrun"
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS") or os.environ.get(
        "SLURM_NTASKS", "1"
    )  # the latter also of the allocation
    return "srun" if "SLURM_STEP_ID" in os.environ and int(tasks) > 1 else None


def is_first_rank() -> bool:
    """Whether this process is the one that writes."""
    variable = {"torchrun": "RANK", "srun": "SLURM_PROCID"}.get(detect_launcher() or "")
    return variable is None or os.environ[variable] == "0"


def check_no_multirun() -> None:
    """A multirun starts its jobs by itself, one after the other, and they their ranks.

    Raises:
        ValueError: this process is one of several, each of which would run all of the jobs.
    """
    if starter := detect_launcher():
        raise ValueError(
            f"a multirun is one process, and {starter} has started several: start it by python; trainer.devices says how many "
            "ranks each of its jobs has."
        )


def run_on_ranks(n_ranks: int) -> None:
    """Run this program again as each of the ranks, by torchrun's launcher; exit as the first of them did that failed."""
    # seconds of imports, which a rank need not wait for
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # as nohup wants it
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=n_ranks,
        run_id=uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        signals_to_handle=",".join(["SIGTERM", "SIGINT", "SIGUSR1", *([] if ignored else ["SIGHUP"])]),
    )
    if hasattr(config, "shutdown_timeout"):  # torch 2.11 has no such field, and kills ranks 30 seconds after a signal
        config.shutdown_timeout = _TO_STOP
    logging.disable(logging.ERROR)  # pages, of what is said below in a sentence
    try:
        elastic_launch(config, sys.executable)(*sys.orig_argv[1:])
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            say(
                f"error: rank {rank} was killed by signal {-failure.exitcode}, and the others ended: the same command goes on "
                "from the newest checkpoint.",
                error=True,
            )
            sys.exit(os.EX_TEMPFAIL)
        sys.exit(failure.exitcode)
    except SignalException as error:
        sys.exit(130 if error.sigval == signal.SIGINT else 143)
    finally:
        logging.disable(logging.NOTSET)


class RankLostError(Exception):
    """A run cannot go on without one of its ranks; the same command can."""

    exit_code = os.EX_TEMPFAIL


@contextmanager
def fail_together() -> Iterator[None]:
    """Inside, a rank that loses another one, or the launcher that would have told it so, ends and says why.

    Raises:
        RankLostError: another rank is gone.
    """
    over = threading.Event()
    if detect_launcher() == "torchrun":
        threading.Thread(target=_watch, args=(os.getppid(), over), daemon=True, name="watch-launcher").start()
    try:
        yield
    except Exception as error:
        if _says_lost(error):
            raise RankLostError(f"another rank is gone: {_GOES_ON}.") from error
        raise
    finally:
        over.set()


def exit_rank(code: int | str) -> NoReturn:
    """End this rank with an exit code, or a sentence, that is the same on all ranks.

    Rank 0 goes first: torchrun and srun end all others as soon as one has failed, and it may still be writing. Those who are
    ended in this way have the same exit code, as srun's own is the highest of all.
    """
    if not is_first_rank():
        signal.signal(signal.SIGTERM, lambda *_: os._exit(code if isinstance(code, int) else 1))
        time.sleep(_OWN_WORDS)
    sys.exit(escape_control_characters(code) if isinstance(code, str) else code)


def _watch(launcher: int, over: threading.Event) -> None:
    """End this process when its launcher is gone: it may wait for other ranks in a place that no error reaches."""
    while not over.wait(_LOOK_EVERY):
        if os.getppid() != launcher and not over.wait(_OWN_WORDS):
            say(f"error: torchrun is gone: {_GOES_ON}.", error=True)
            os._exit(os.EX_TEMPFAIL)


def _says_lost(error: Exception) -> bool:
    """Whether it is an error of torch.distributed, which is not imported here: that takes seconds."""
    return isinstance(error, RuntimeError) and (type(error).__name__.startswith("Dist") or "gloo" in str(error))
