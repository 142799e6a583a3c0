"""What a run costs: FLOPs, hours, memory, disk, and the loss it may come to."""

import math
from dataclasses import asdict
from typing import Any

import psutil

import analysis.compute_estimate as budget
import analysis.memory_estimate as memory_budget
from data_modules import SampleOrder
from gpt_lightning.device_and_precision import choose_precision
from running.config.run_config import PlanConfig, RunConfig
from running.training.resume import ResumePoint


def estimate_costs(
    config: RunConfig, assumed: PlanConfig, order: SampleOrder, beginning: ResumePoint
) -> dict[str, Any]:
    """What the steps that are left take and what they may reach, as plan.json says it.

    Args:
        config: of train.py.
        assumed: the device, the share of its peak, and what it costs an hour.

    Raises:
        ValueError: the device is not known, the share is none, or the price no price.
    """
    model, trainer = asdict(config.model), config.trainer
    on_cpu, device = assumed.device == "cpu", budget.find_device(str(assumed.device))
    if device is None and not on_cpu:
        raise ValueError(f"plan.device={assumed.device} is not known: cpu, {', '.join(budget.DEVICES)} are.")
    if not isinstance(assumed.mfu, (int, float)) or not 0 < assumed.mfu <= 1:
        raise ValueError(f"plan.mfu is {assumed.mfu!r}: it is a share of the device's peak, above 0 and at most 1.")
    rate = assumed.price_per_hour
    if rate is not None and (type(rate) not in (int, float) or not 0 <= rate < math.inf):
        raise ValueError(
            f"plan.price_per_hour is {rate!r}: it is what one device costs an hour, a number of 0 or more, or null."
        )
    precision = trainer.precision
    if precision == "auto":
        half = "bf16-mixed" if device and device.has_bf16 else "16-mixed"
        precision = choose_precision("auto", device="cpu")[0] if on_cpu else half
    optimizer = config.optimizer_target.rpartition(".")[2]
    n_parameters = budget.n_parameters(model)
    tokens = order.steps * order.global_batch * model["max_seq_len"]
    left = (order.steps - beginning.step) * order.global_batch * model["max_seq_len"]
    flops = budget.flops_per_token(model) * left
    drawn = {source: order.counts(order.steps)[source] / n for source, n in order.sequences.items()}
    forecast = budget.chinchilla_loss(
        n_parameters, {source: (n * model["max_seq_len"], drawn[source]) for source, n in order.sequences.items()}
    )
    n_devices = trainer.devices * trainer.num_nodes
    memory = estimate_peak_memory(config, precision=precision, device_type="cpu" if on_cpu else "cuda")
    hours = None  # a CPU's peak is not known
    if not on_cpu:
        hours = budget.training_hours(flops, assumed.device, precision=precision, mfu=assumed.mfu, n_devices=n_devices)
    checkpoint = memory_budget.checkpoint_bytes(model, optimizer=optimizer, precision=precision)
    saving = config.callbacks["checkpoints"]
    written = -(-order.steps // saving["every"])
    permanent = saving.get("permanent_every")
    apart = bool(saving.get("best")) + (order.steps // permanent if permanent else 0)
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
        "peak_memory_bytes": memory,
        "device_memory_bytes": device.memory if device else psutil.virtual_memory().total,
        "checkpoints": written,
        "checkpoint_bytes": checkpoint,
        "disk_bytes": checkpoint * (min(written, saving["keep"] + 1) + apart),
    }


def estimate_peak_memory(config: RunConfig, *, precision: str, device_type: str) -> int:
    """Bytes that the run should take on each device; a ValueError where its optimizer's are not known."""
    trainer = config.trainer
    return memory_budget.peak_memory_bytes(
        asdict(config.model),
        micro_batch=config.micro_batch,
        optimizer=config.optimizer_target.rpartition(".")[2],
        precision=precision,
        device_type=device_type,
        n_devices=trainer.devices * trainer.num_nodes,
        sharded=trainer.strategy == "fsdp",
        accumulates=config.micro_batch * trainer.devices * trainer.num_nodes < config.global_batch,
        compiled=trainer.compile,
        recompute=trainer.recompute == "blocks",
        loss_kernel=trainer.loss_kernel,
    )
