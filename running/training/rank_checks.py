"""Check that a run can be trained on the given ranks: the processes that were started, the GPUs, and sharding."""

import os

import torch

from gpt_lightning.optim import optimizer_traits
from running.config.allowed_targets import resolve_optimizer
from running.config.run_config import RunConfig
from running.training.rank_processes import detect_launcher


def check_launch(devices: int, nodes: int) -> None:
    """Check that the processes of a run were started as the config says.

    Args:
        devices: the setting trainer.devices.
        nodes: the setting trainer.num_nodes.

    Raises:
        ValueError: the number of started processes differs, or this process is the only one of several.
    """
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
            "with torchrun or srun, see docs/howto/several_gpus.md."
        )
    elif devices > 1:
        raise ValueError(
            f"trainer.devices is {devices}, but this process cannot start other ranks: run train.py in a shell, or set "
            "trainer.devices=1."
        )
    else:
        return
    if (started, local) != (devices * nodes, devices):
        raise ValueError(
            f"{starter} has started {started} processes, {local} per machine, but trainer.devices={devices} x "
            f"trainer.num_nodes={nodes} is {devices * nodes}: set trainer.devices={local} "
            f"trainer.num_nodes={started // local}."
        )


def check_gpu_count(devices: int, *, setting: str = "trainer.devices") -> None:
    """Check that this process sees a GPU for each rank of its machine.

    Args:
        devices: number of ranks on this machine.
        setting: the setting that gives this number, for the message.

    Raises:
        ValueError: this process sees fewer GPUs than `devices`.
    """
    n_gpus = torch.cuda.device_count()
    if devices <= n_gpus:
        return
    if detect_launcher() == "srun":
        what = "let srun show each task all GPUs of its machine, with --gpus-per-node instead of --gpus-per-task"
    else:
        what = f"set {setting}={n_gpus}, or trainer.accelerator=cpu" if n_gpus else "set trainer.accelerator=cpu"
    raise ValueError(f"{setting} is {devices}, but this process sees {n_gpus} CUDA devices: {what}.")


def check_sharding(config: RunConfig) -> None:
    """If the weights of a run are sharded, check that the precision and the optimizer work with sharded weights.

    Args:
        config: config of the run, whose precision is not `auto`.

    Raises:
        ValueError: the precision or the optimizer does not work with sharded weights.
    """
    if config.trainer.strategy != "fsdp" or config.trainer.world_size == 1:
        return
    if config.trainer.precision == "16-mixed":
        raise ValueError(
            "trainer.precision is 16-mixed, whose gradient scaler does not support sharded weights: set "
            "trainer=ddp, or trainer.precision to bf16-mixed or 32-true."
        )
    if not optimizer_traits(resolve_optimizer(config.optimizer.node)).shardable:
        raise ValueError(
            f"{config.optimizer.target} does not support sharded weights: set optimizer=adamw or trainer=ddp."
        )
