"""How a run is distributed over its ranks: checks, and the settings of Lightning."""

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


def check_ranks(config: RunConfig, device: str, precision: str) -> None:
    """Check that the run can be trained on these ranks.

    Args:
        config: config of the run.
        device: "cpu" or "cuda".
        precision: Lightning's name for it.

    Raises:
        ValueError: the number of started processes differs from the config, there are too few GPUs, or the strategy
            does not support the precision or the optimizer.
    """
    trainer = config.trainer
    strategy, devices, nodes = trainer.strategy, trainer.devices, trainer.num_nodes
    _refuse_other_number(devices, nodes)
    n_gpus = torch.cuda.device_count()
    if device == "cuda" and devices > n_gpus:
        if detect_launcher() == "srun":
            what = "let srun show each task all GPUs of its machine, with --gpus-per-node instead of --gpus-per-task"
        else:
            what = (
                f"set trainer.devices={n_gpus}, or trainer.accelerator=cpu" if n_gpus else "set trainer.accelerator=cpu"
            )
        raise ValueError(f"trainer.devices is {devices}, but this process sees {n_gpus} CUDA devices: {what}.")
    if strategy == "fsdp" and devices * nodes > 1:
        if precision == "16-mixed":
            raise ValueError(
                "trainer.precision is 16-mixed, whose gradient scaler does not support sharded weights: set "
                "trainer=ddp, or trainer.precision to bf16-mixed or 32-true."
            )
        if not optimizer_traits(resolve_optimizer(config.optimizer.node)).shardable:
            raise ValueError(
                f"{config.optimizer.target} does not support sharded weights: set optimizer=adamw or trainer=ddp."
            )
    if devices * nodes > 1 and not detect_launcher():
        raise ValueError(
            f"trainer.devices is {devices}, but this process cannot start other ranks: run train.py in a shell, or set "
            "trainer.devices=1."
        )


def _refuse_other_number(devices: int, nodes: int) -> None:
    starter = detect_launcher()
    if starter == "torchrun":
        started, local = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    elif starter == "srun":
        started, local = int(os.environ["SLURM_NTASKS"]), int(os.environ.get("SLURM_NTASKS_PER_NODE", "0"))
        if not local:
            raise ValueError(
                "srun did not set the number of processes per machine: use --ntasks-per-node, not --ntasks."
            )
    elif nodes > 1:
        raise ValueError(
            f"trainer.num_nodes is {nodes}, but the processes on the other machines were not started: start the run "
            "with torchrun or srun, see docs/distributed.md."
        )
    else:
        return
    if (started, local) != (devices * nodes, devices):
        raise ValueError(
            f"{starter} has started {started} processes, {local} per machine, but trainer.devices={devices} x "
            f"trainer.num_nodes={nodes} is {devices * nodes}: set trainer.devices={local} "
            f"trainer.num_nodes={started // local}."
        )


def build_strategy(config: RunConfig) -> str | Strategy:
    """The value for `L.Trainer(strategy=…)`. With a single rank, all strategies are the same.

    Args:
        config: config of the run.
    """
    n_ranks = config.trainer.devices * config.trainer.num_nodes
    if n_ranks == 1:
        return "auto"
    if config.trainer.strategy == "fsdp":
        return ShardedStrategy(n_ranks=n_ranks, timeout=PATIENCE)
    return DDPStrategy(timeout=PATIENCE)


def cluster_environment() -> ClusterEnvironment:
    """Plugin for `L.Trainer(plugins=[…])` that tells Lightning which rank this process is.

    By default, Lightning would wait for the tasks of any Slurm job that it runs in, and requeue the job itself.
    """
    starter = detect_launcher()
    if starter == "torchrun":
        return TorchElasticEnvironment()
    return SLURMEnvironment(auto_requeue=False) if starter == "srun" else LightningEnvironment()
