"""The processes that train one run together (ranks): how the ranks start and end.

    python train.py trainer=ddp trainer.devices=4    this process becomes torchrun's launcher and starts four local ranks
    torchrun, srun                                   start all ranks, on one machine or on many

If one rank ends, the others must end too. torchrun's launcher and `srun --kill-on-bad-exit=1` do this.
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
_OWN_WORDS = 5.0  # seconds for a rank to end and print why, after its launcher has ended
# seconds for ranks to end after a signal: validation may take long, and the user can still kill them
_TO_STOP = 24 * 3600
_GOES_ON = "so this rank ends too. Run the same command again to resume from the newest checkpoint"


def detect_launcher() -> str | None:
    """The launcher that started this process as one of several: torchrun or srun; None: no launcher.

    With Slurm, only the tasks of the process's own step count. In a batch script or an interactive shell (a step with
    one task in an allocation for several), one process may still start the others.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return "torchrun"
    # SLURM_NTASKS may be that of the whole allocation
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS") or os.environ.get("SLURM_NTASKS", "1")
    return "srun" if "SLURM_STEP_ID" in os.environ and int(tasks) > 1 else None


def is_first_rank() -> bool:
    """Whether this process is rank 0, which writes files."""
    variable = {"torchrun": "RANK", "srun": "SLURM_PROCID"}.get(detect_launcher() or "")
    return variable is None or os.environ[variable] == "0"


def check_no_multirun() -> None:
    """Check that this process is not one of several ranks, because each rank would run all jobs of a multirun.

    Raises:
        ValueError: a launcher started this process.
    """
    if starter := detect_launcher():
        raise ValueError(
            f"a multirun needs one process, but {starter} started several: start it with python; trainer.devices sets "
            "the number of ranks of each job."
        )


def run_on_ranks(n_ranks: int) -> None:
    """Run this program again on each of `n_ranks` ranks with torchrun's launcher.

    On failure, exit like the first failed rank.

    Args:
        n_ranks: number of processes.
    """
    # slow to import, and not needed by a rank
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # set by nohup
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
    if hasattr(config, "shutdown_timeout"):  # missing in torch 2.11, which kills ranks 30 seconds after a signal
        config.shutdown_timeout = _TO_STOP
    logging.disable(logging.ERROR)  # pages of output, replaced by the one sentence below
    try:
        elastic_launch(config, sys.executable)(*sys.orig_argv[1:])
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            say(
                f"error: rank {rank} was killed by signal {-failure.exitcode}, and the others ended: run the same "
                "command again to resume from the newest checkpoint.",
                error=True,
            )
            sys.exit(os.EX_TEMPFAIL)
        sys.exit(failure.exitcode)
    except SignalException as error:
        sys.exit(130 if error.sigval == signal.SIGINT else 143)
    finally:
        logging.disable(logging.NOTSET)


class RankLostError(Exception):
    """A run lost one of its ranks and cannot continue. The same command can resume it."""

    exit_code = os.EX_TEMPFAIL


@contextmanager
def fail_together() -> Iterator[None]:
    """Inside the context, a rank that loses another rank or its launcher ends with a message.

    Raises:
        RankLostError: another rank has ended.
    """
    over = threading.Event()
    if detect_launcher() == "torchrun":
        threading.Thread(target=_watch, args=(os.getppid(), over), daemon=True, name="watch-launcher").start()
    try:
        yield
    except Exception as error:
        if _says_lost(error):
            raise RankLostError(f"another rank has ended, {_GOES_ON}.") from error
        raise
    finally:
        over.set()


def exit_rank(code: int | str) -> NoReturn:
    """End this rank with an exit code or a message that is the same on all ranks.

    Rank 0 ends first. As soon as one rank has failed, torchrun and srun end all others, and rank 0 may still be
    writing. Ranks that are ended in this way have the same exit code, because srun's own exit code is the highest of
    all.

    Args:
        code: exit code, or a message.
    """
    if not is_first_rank():
        signal.signal(signal.SIGTERM, lambda *_: os._exit(code if isinstance(code, int) else 1))
        time.sleep(_OWN_WORDS)
    sys.exit(escape_control_characters(code) if isinstance(code, str) else code)


def _watch(launcher: int, over: threading.Event) -> None:
    """End this process when its launcher has ended.

    It may be waiting for other ranks in a call that no exception interrupts.
    """
    while not over.wait(_LOOK_EVERY):
        if os.getppid() != launcher and not over.wait(_OWN_WORDS):
            say(f"error: torchrun has ended, {_GOES_ON}.", error=True)
            os._exit(os.EX_TEMPFAIL)


def _says_lost(error: Exception) -> bool:
    """Whether this is an error of torch.distributed, which is not imported here because that takes seconds."""
    return isinstance(error, RuntimeError) and (type(error).__name__.startswith("Dist") or "gloo" in str(error))
