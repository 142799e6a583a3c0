"""The processes that train one run together, its ranks: who starts them, how the model is spread over them, how they end.

    python train.py trainer=ddp trainer.devices=4    this process is rank 0 and starts the other three
    torchrun, srun                                   start all of them, on one machine or on many

A rank that is gone takes the others with it. Whatever started them sees to that: torchrun and `srun --kill-on-bad-exit=1`
themselves; here rank 0 watches the ranks that it started, and they watch rank 0.
"""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NoReturn

import torch
from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.strategies import DDPStrategy, Strategy

from gpt_lightning.sharding import ShardedStrategy

STRATEGIES = ("auto", "ddp", "fsdp")
# The longest that a rank waits for another one: rank 0 may be writing samples, or a checkpoint to a slow disk.
_PATIENCE = timedelta(minutes=30)
_LOOK_EVERY = 1.0  # seconds
_OWN_WORDS = 5.0  # seconds that a rank has, when another one is gone, to end by itself and say why
_AGREED = 30.0  # seconds in which ranks that end for one reason all have ended
_LAST = 60.0  # seconds that rank 0 waits for the others when the run is done
_PARENT = "GPT_LIGHTNING_RANK_0"  # in a rank that rank 0 started: its process id
_GOES_ON = "this one ends too, and the same command goes on from the newest checkpoint"


def is_first_rank() -> bool:
    """Whether this process is the one that writes."""
    return int(os.environ.get("RANK") or (os.environ["SLURM_PROCID"] if _by_srun() else "0")) == 0


def refuse_other_ranks(config: Mapping[str, Any], device: str, precision: str) -> None:
    """Refuse what cannot train together.

    Args:
        config: the run's.
        device: "cpu" or "cuda".
        precision: Lightning's.

    Raises:
        ValueError: another number of processes was started than the config says, there are fewer GPUs, or the strategy is
            unknown or does not go with the rest.
    """
    trainer = config["trainer"]
    strategy, devices, nodes = trainer["strategy"], trainer["devices"], trainer["num_nodes"]
    if strategy not in STRATEGIES:
        raise ValueError(f"trainer.strategy is {strategy!r}: it must be {', '.join(STRATEGIES[:-1])} or fsdp.")
    _refuse_other_number(devices, nodes)
    n_gpus = torch.cuda.device_count()
    if device == "cuda" and devices > n_gpus:
        raise ValueError(
            f"trainer.devices is {devices}, and this process sees {n_gpus} GPU{'s' * (n_gpus > 1)}: set trainer.devices={n_gpus} "
            "or trainer.accelerator=cpu"
            + "; srun must show each task all GPUs of its machine, with --gpus-per-node, not --gpus-per-task." * _by_srun()
            + "." * (not _by_srun())
        )
    if strategy == "fsdp" and devices * nodes > 1:
        if precision == "16-mixed":
            raise ValueError(
                "trainer.precision is 16-mixed, whose gradient scaler does not go with trainer=fsdp: take trainer=ddp, or "
                "trainer.precision=bf16-mixed or 32-true."
            )
        if config["optimizer"]["_target_"].startswith("bitsandbytes."):
            raise ValueError(
                f"{config['optimizer']['_target_']} cannot work on sharded weights: take optimizer=adamw, or trainer=ddp."
            )


def _refuse_other_number(devices: int, nodes: int) -> None:
    wanted = devices * nodes
    if TorchElasticEnvironment.detect():
        started, local = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
        if (started, local) != (wanted, devices):
            raise ValueError(
                f"torchrun started {started} processes, {local} on this machine, and trainer.devices={devices} x "
                f"trainer.num_nodes={nodes} are {wanted}: set trainer.devices={local} trainer.num_nodes={started // local}."
            )
    elif _by_srun():
        started = int(os.environ["SLURM_NTASKS"])
        local = int(os.environ.get("SLURM_NTASKS_PER_NODE", "0"))
        if not local:
            raise ValueError("srun was not told how many processes a machine has: give --ntasks-per-node, not --ntasks.")
        if (started, local) != (wanted, devices):
            raise ValueError(
                f"srun started {started} processes, {local} on each machine, and trainer.devices={devices} x "
                f"trainer.num_nodes={nodes} are {wanted}: set trainer.devices={local} trainer.num_nodes={started // local}."
            )
    elif nodes > 1:
        raise ValueError(
            f"trainer.num_nodes is {nodes}, and nothing has started the processes of the other machines: start the run with "
            "torchrun or srun, see docs/distributed.md."
        )


def strategy_of(config: Mapping[str, Any]) -> str | Strategy:
    """What `L.Trainer(strategy=…)` takes. A single rank has nothing to share: all strategies are the same there."""
    n_ranks = _n_ranks(config)
    if n_ranks == 1:
        return "auto"
    if config["trainer"]["strategy"] == "fsdp":
        return ShardedStrategy(n_ranks=n_ranks, timeout=_PATIENCE)
    return DDPStrategy(timeout=_PATIENCE)


def environment_of_ranks() -> ClusterEnvironment:
    """What tells Lightning which rank this process is, for `L.Trainer(plugins=[…])`.

    Slurm's never requeues a job by itself: it would save to a place of its own.
    """
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    return SLURMEnvironment(auto_requeue=False) if _by_srun() else LightningEnvironment()


@contextmanager
def together(config: Mapping[str, Any]) -> Iterator[None]:
    """Inside, the run has all its ranks: those that nobody has started are started at the beginning.

    Raises:
        ConnectionError: another rank is gone.
    """
    if _n_ranks(config) == 1:
        yield
        return
    others = [] if _is_started() else _start_others(config["trainer"]["devices"])
    over = threading.Event()
    threading.Thread(target=_watch, args=(others, over), daemon=True, name="watch-other-ranks").start()
    patience = _OWN_WORDS
    try:
        yield
        patience = _LAST
    except (torch.distributed.DistError, RuntimeError) as error:
        if not _says_lost(error):
            raise
        raise ConnectionError(f"{_who_is_gone(others, wait=_LOOK_EVERY)}: {_GOES_ON}.") from error
    finally:
        over.set()
        _await(others, patience)


def leave(code: int) -> NoReturn:
    """End this rank with `code`, on which all ranks agree.

    Rank 0 goes first: torchrun and srun end all others as soon as one has failed, and rank 0 may still be writing.
    """
    if code and not is_first_rank() and (TorchElasticEnvironment.detect() or _by_srun()):
        time.sleep(_OWN_WORDS)
    sys.exit(code)


def _n_ranks(config: Mapping[str, Any]) -> int:
    n_ranks: int = config["trainer"]["devices"] * config["trainer"]["num_nodes"]
    return n_ranks


def _by_srun() -> bool:
    """Whether this process is one of several tasks of a step of srun's; a batch script, or a shell, is none."""
    return "SLURM_STEP_ID" in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) > 1


def _is_started() -> bool:
    return TorchElasticEnvironment.detect() or _by_srun() or _PARENT in os.environ


def _start_others(n_ranks: int) -> list[subprocess.Popen[bytes]]:
    """Run this program again as each of the other ranks; become rank 0."""
    if not hasattr(sys.modules["__main__"], "__file__"):
        raise ValueError(
            f"trainer.devices is {n_ranks}, and a notebook has one process: set trainer.devices=1, or run train.py in a shell."
        )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": "0", "LOCAL_RANK": "0"}
    command = [sys.executable, *sys.orig_argv[1:]]
    return [
        subprocess.Popen(
            command, env=os.environ | {_PARENT: str(os.getpid()), "RANK": str(rank), "LOCAL_RANK": str(rank)}
        )
        for rank in range(1, n_ranks)
    ]


def _watch(others: Sequence[subprocess.Popen[bytes]], over: threading.Event) -> None:
    """End this process when it cannot go on: it may wait for the others in a place that no error reaches."""
    parent = int(os.environ.get(_PARENT, os.getppid() if TorchElasticEnvironment.detect() else 0))
    while not over.wait(_LOOK_EVERY):
        failed = [other.returncode for other in others if other.poll()]
        if failed or (parent and os.getppid() != parent):
            # an exit code of its own is one that this rank may be about to give, too
            if not over.wait(_AGREED if failed and min(failed) > 1 else _OWN_WORDS):
                print(f"error: {_who_is_gone(others)}: {_GOES_ON}.", file=sys.stderr, flush=True)
                _await(others, 0.0)
                os._exit(1)


def _who_is_gone(others: Sequence[subprocess.Popen[bytes]], *, wait: float = 0.0) -> str:
    until = time.monotonic() + wait
    while others and time.monotonic() < until and not any(other.poll() for other in others):
        time.sleep(0.05)
    for rank, other in enumerate(others, start=1):
        if other.poll():
            how = f"was killed by signal {-other.returncode}" if other.returncode < 0 else "ended with an error"
            return f"rank {rank} {how}"
    return "rank 0 is gone" if _PARENT in os.environ and os.getppid() != int(os.environ[_PARENT]) else "another rank is gone"


def _await(others: Sequence[subprocess.Popen[bytes]], patience: float) -> None:
    """Leave no rank behind."""
    until = time.monotonic() + patience
    for other in others:
        try:
            other.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            other.kill()


def _says_lost(error: BaseException) -> bool:
    """Whether an error is that of a connection between ranks."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
