"""The process of one start of a run: `train` with a config.

A signal may stop it, and it may be one rank of a strategy.
"""

from datetime import timedelta
from typing import Any

from lightning.pytorch.strategies import DDPStrategy, Strategy

from benchmarks.gpu_day.json_subprocess import argument, give
from benchmarks.gpu_day.small_run_config import config_of, rehearse
from callbacks.graceful_stop import RunStopped
from gpt_lightning.sharding import ShardedStrategy
from running.commands.train import train
from running.training import build


def main(given: dict[str, Any]) -> None:
    rehearse(given["rehearse"])
    if given.get("strategy"):
        # train.py uses no strategy for a single rank
        build.build_strategy = lambda config: strategy(given["strategy"], gloo=given["rehearse"])
    config = config_of(given["overrides"], probe=given["probe"])
    try:
        train(config)
    except RunStopped:
        give({"stopped": True})
    else:
        give({"stopped": False})


def strategy(name: str, *, gloo: bool) -> Strategy:
    """DDP or FSDP with one rank, over NCCL or gloo."""
    backend, patience = "gloo" if gloo else "nccl", timedelta(minutes=2)
    if name == "ddp":
        return DDPStrategy(process_group_backend=backend, timeout=patience)
    sharded = ShardedStrategy(n_ranks=1, timeout=patience)
    sharded._process_group_backend = backend
    return sharded


if __name__ == "__main__":
    main(argument())
