"""Estimated costs of a run: FLOPs, hours, memory, disk space; and the expected loss."""

from dataclasses import asdict
from typing import Any

import psutil

from analysis.hours_and_loss_from_sizes import chinchilla_loss, training_hours
from data_modules import SampleOrder
from gpt_lightning.model import GPT
from gpt_lightning.model.model_size import build_meta_model, flops_per_token
from gpt_lightning.optim import OptimizerTraits, optimizer_traits
from running.config.allowed_targets import resolve_optimizer
from running.config.callback_configs import checkpoints_config
from running.config.run_config import PlanConfig, RunConfig
from running.training.memory_estimate import TrainingSetup, checkpoint_bytes, peak_memory_bytes
from running.training.resume import ResumePoint


def estimate_costs(
    config: RunConfig, assumed: PlanConfig, order: SampleOrder, beginning: ResumePoint
) -> dict[str, Any]:
    """Costs of the remaining steps and the expected loss, as plan.json has them.

    Args:
        config: settings of train.py; the precision is not `auto`.
        assumed: the device, the fraction of the device's peak FLOP/s that is reached, and the device's price per hour.
        order: the sequences of the run.
        beginning: where the run would start.

    Returns:
        Bytes, hours, FLOPs, tokens and counts by name.

    Raises:
        ValueError: the size of the optimizer's state is unknown.
    """
    device, precision = assumed.gpu, config.trainer.precision
    model, optimizer = planned_model(config), planned_optimizer(config)
    n_parameters, n_devices = model.n_parameters(), config.trainer.devices * config.trainer.num_nodes
    max_seq_len = model.config.max_seq_len
    tokens = order.steps * order.global_batch * max_seq_len
    flops = flops_per_token(model) * (order.steps - beginning.step) * order.global_batch * max_seq_len
    drawn = {source: order.counts(order.steps)[source] / n for source, n in order.sequences.items()}
    forecast = chinchilla_loss(
        n_parameters, {source: (n * max_seq_len, drawn[source]) for source, n in order.sequences.items()}
    )
    share: dict[str, Any] = {"precision": precision, "mfu": assumed.mfu, "n_devices": n_devices}
    # the peak of a CPU is unknown
    hours = training_hours(flops, assumed.device, **share) if device else None
    rate = assumed.price_per_hour
    setup = training_setup(config, precision=precision, device_type="cuda" if device else "cpu")
    return {
        "from_step": beginning.step,
        "parameters": n_parameters,
        "tokens": tokens,
        "tokens_per_parameter": tokens / n_parameters,
        "flops": flops,
        "loss": asdict(forecast),
        "precision": precision,
        "hours": hours,
        "price": None if hours is None or rate is None else hours * n_devices * rate,
        "device": assumed.device,
        "devices": n_devices,
        "peak_memory_bytes": peak_memory_bytes(model, optimizer, setup),
        "device_memory_bytes": device.memory if device else psutil.virtual_memory().total,
        **_disk_costs(config, order.steps, checkpoint_bytes(model, optimizer, precision=precision)),
    }


def estimate_peak_memory(config: RunConfig, *, precision: str, device_type: str) -> int:
    """Bytes that the run should take on each device.

    Args:
        config: settings of train.py.
        precision: Lightning's name for the precision, not auto.
        device_type: cpu or cuda.

    Raises:
        ValueError: the size of the optimizer's state is unknown.
    """
    setup = training_setup(config, precision=precision, device_type=device_type)
    return peak_memory_bytes(planned_model(config), planned_optimizer(config), setup)


def planned_model(config: RunConfig) -> GPT:
    """The run's model on the meta device.

    Args:
        config: settings of train.py.
    """
    return build_meta_model(config.model)


def planned_optimizer(config: RunConfig) -> OptimizerTraits:
    """Memory and other traits of the run's optimizer. Raises ValueError if the config may not name this optimizer.

    Args:
        config: settings of train.py.
    """
    return optimizer_traits(resolve_optimizer(config.optimizer.node))


def training_setup(config: RunConfig, *, precision: str, device_type: str) -> TrainingSetup:
    """The settings that the memory of a run depends on.

    Args:
        config: settings of train.py.
        precision: Lightning's name for the precision, not auto.
        device_type: cpu or cuda.
    """
    trainer = config.trainer
    n_devices = trainer.devices * trainer.num_nodes
    return TrainingSetup(
        micro_batch=config.micro_batch,
        precision=precision,
        device_type=device_type,
        n_devices=n_devices,
        sharded=trainer.strategy == "fsdp",
        accumulates=config.micro_batch * n_devices < config.global_batch,
        compiled=trainer.compile,
        recompute=trainer.recompute == "blocks",
        loss_kernel=trainer.loss_kernel,
    )


def _disk_costs(config: RunConfig, steps: int, checkpoint: int) -> dict[str, int]:
    """Number of checkpoints in a run of `steps` steps, bytes of one, and the most bytes that they take at any time."""
    saving = checkpoints_config(config.callbacks)
    written = -(-steps // saving.every)
    apart = saving.best + (steps // saving.permanent_every if saving.permanent_every else 0)
    return {
        "checkpoints": written,
        "checkpoint_bytes": checkpoint,
        "disk_bytes": checkpoint * (min(written, saving.keep + 1) + apart),
    }
