"""How a run is spread over its ranks: what Lightning is told, and what is refused before."""

import os

import torch
from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.strategies import DDPStrategy, Strategy

from gpt_lightning.optim import optimizer_traits
from gpt_lightning.sharding import ShardedStrategy
from running.config.allowed_targets import resolve_optimizer
from running.config.run_config import RunConfig
from running.training.rank_processes import PATIENCE, detect_launcher

STRATEGIES = ("auto", "ddp", "fsdp")


def check_ranks(config: RunConfig, device: str, precision: str) -> None:
    """Refuse what cannot be trained together.

    Args:
        config: the run's.
        device: "cpu" or "cuda".
        precision: Lightning's.

    Raises:
        ValueError: another number of processes was started than the config says, there are fewer GPUs, or the strategy is
            unknown or does not go with the rest.
    """
    trainer = config.trainer
    strategy, devices, nodes = trainer.strategy, trainer.devices, trainer.num_nodes
    if strategy not in STRATEGIES:
        raise ValueError(f"trainer.strategy is {strategy!r}: it must be one of {', '.join(STRATEGIES)}.")
    _refuse_other_number(devices, nodes)
    n_gpus = torch.cuda.device_count()
    if device == "cuda" and devices > n_gpus:
        hint = ": srun must show each task all GPUs of its machine, by --gpus-per-node instead of --gpus-per-task"
        raise ValueError(
            f"trainer.devices is {devices}, and this process sees {n_gpus} of CUDA's"
            + (hint if detect_launcher() == "srun" else f": set trainer.devices={n_gpus}, or trainer.accelerator=cpu")
            + "."
        )
    if strategy == "fsdp" and devices * nodes > 1:
        if precision == "16-mixed":
            raise ValueError(
                "trainer.precision is 16-mixed, whose gradient scaler does not go with sharded weights: take trainer=ddp, or "
                "bf16-mixed or 32-true."
            )
        if not optimizer_traits(resolve_optimizer(config.optimizer)).shardable:
            raise ValueError(
                f"{config.optimizer_target} cannot work on sharded weights: take optimizer=adamw, or trainer=ddp."
            )
    if devices * nodes > 1 and not detect_launcher():
        raise ValueError(
            f"trainer.devices is {devices}, and this process is alone: run train.py in a shell, or set trainer.devices=1."
        )


def _refuse_other_number(devices: int, nodes: int) -> None:
    starter = detect_launcher()
    if starter == "torchrun":
        started, local = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    elif starter == "srun":
        started, local = int(os.environ["SLURM_NTASKS"]), int(os.environ.get("SLURM_NTASKS_PER_NODE", "0"))
        if not local:
            raise ValueError("srun says not how many processes a machine has: give --ntasks-per-node, not --ntasks.")
    elif nodes > 1:
        raise ValueError(
            f"trainer.num_nodes is {nodes}, and nothing has started the processes of the other machines: start the run by "
            "torchrun or srun, see docs/howto/several_gpus.md."
        )
    else:
        return
    if (started, local) != (devices * nodes, devices):
        raise ValueError(
            f"{starter} has started {started} processes, {local} on a machine, and trainer.devices={devices} x "
            f"trainer.num_nodes={nodes} are {devices * nodes}: set trainer.devices={local} trainer.num_nodes={started // local}."
        )


def build_strategy(config: RunConfig) -> str | Strategy:
    """What `L.Trainer(strategy=…)` takes. A rank alone has nothing to share: there all strategies are the same."""
    n_ranks = config.trainer.devices * config.trainer.num_nodes
    if n_ranks == 1:
        return "auto"
    if config.trainer.strategy == "fsdp":
        return ShardedStrategy(n_ranks=n_ranks, timeout=PATIENCE)
    return DDPStrategy(timeout=PATIENCE)


def cluster_environment() -> ClusterEnvironment:
    """What tells Lightning which rank this process is, for `L.Trainer(plugins=[…])`.

    Left to itself it would wait for the tasks of any Slurm job that it finds itself in, and requeue it its own way.
    """
    starter = detect_launcher()
    if starter == "torchrun":
        return TorchElasticEnvironment()
    return SLURMEnvironment(auto_requeue=False) if starter == "srun" else LightningEnvironment()
