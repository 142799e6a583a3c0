"""Resolve a training run from its settings and its data. Nothing is written and no model is built."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch

from data_modules import SampleOrder, SourceShards
from gpt_lightning.device_and_precision import check_compiler, choose_device, choose_precision, precision_dtype
from gpt_lightning.model import GPT, GPTConfig
from gpt_lightning.model.attention_backends import BACKENDS
from gpt_lightning.model.attention_mask import AttentionMask
from gpt_lightning.model.attention_selection import choose_backend
from gpt_lightning.model.loss_kernels import choose_loss_kernel
from gpt_lightning.tokenizer import Tokenizer
from running.config.run_config import RunConfig
from running.training.builders import (
    build_model_config,
    build_optimizer,
    build_parameter_groups,
    build_sample_order,
    build_schedule,
)
from running.training.callback_builders import build_callbacks, check_average_kept
from running.training.distributed_strategy import check_ranks
from running.training.prepared_data import check_undamaged, open_sources
from running.training.rank_agreement import RankAgreement
from running.training.resume import ResumePoint, find_resume_point
from running.training.run_directory import RunDirectory


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """Device and kernels that compute a model."""

    device: str
    """cpu or cuda."""
    attention: str
    loss: str
    described: str
    """Device, precision and kernels, each with the reason for the choice."""


@dataclass(frozen=True, kw_only=True)
class ResolvedRun:
    """A run whose settings, data and resume point are known to fit together."""

    config: RunConfig
    """Its precision is no longer `auto`."""
    directory: RunDirectory
    resume_point: ResumePoint
    tokenizer: Tokenizer
    sources: Mapping[str, SourceShards]
    model_config: GPTConfig
    order: SampleOrder
    schedule: Callable[[int], float]
    """Step -> fraction of the peak learning rate."""
    kernels: Kernels
    make_optimizer: Callable[..., Any]
    make_groups: Callable[[GPT], list[dict[str, Any]]]
    callbacks: list[L.Callback]
    """The callbacks of the config."""


def resolve(config: RunConfig, ranks: RankAgreement) -> ResolvedRun:
    """Check everything that can be checked before a model is built.

    Args:
        config: config of the run.
        ranks: compares settings, data and checkpoints of all ranks.

    Raises:
        ValueError: settings contradict each other, a source is missing or damaged, the run directory belongs to another
            run, or the ranks have different settings, data or checkpoints.
        RankLostError: a rank did not report in time.
    """
    device = choose_device(config.trainer.accelerator)
    precision, why = choose_precision(config.trainer.precision, device=device)
    config = config.with_precision(precision)  # it changes the run's results
    check_ranks(config, device, precision)
    directory = RunDirectory(config.run_dir)
    resume_point = find_resume_point(directory.path, config)
    tokenizer, sources = open_sources(config, earlier=resume_point.sources)
    directory.refuse_other_data(resume_point, sources)
    read = {f"source {name}": source.fingerprint for name, source in sources.items()}
    seen = {"step": resume_point.step, "trainer.precision": precision, "the tokenizer": tokenizer.fingerprint}
    ranks.compare(seen | read)
    model_config = build_model_config(config, tokenizer)
    if resume_point.step < config.max_steps:
        check_undamaged(config, sources, begun=directory.states_of_data())
    sequences = {name: source.train.n_sequences(model_config.max_seq_len) for name, source in sources.items()}
    order, schedule = build_sample_order(config, config.curriculum, sequences, resume_point), build_schedule(config)
    kernels = _choose_kernels(config, model_config, device, why)
    callbacks = build_callbacks(config.callbacks)
    check_average_kept(callbacks, resume_point)
    return ResolvedRun(
        config=config,
        directory=directory,
        resume_point=resume_point,
        tokenizer=tokenizer,
        sources=sources,
        model_config=model_config,
        order=order,
        schedule=schedule,
        kernels=kernels,
        make_optimizer=build_optimizer(config.optimizer, precision),
        make_groups=build_parameter_groups(config),
        callbacks=callbacks,
    )


def _choose_kernels(config: RunConfig, model: GPTConfig, device: str, why_precision: str) -> Kernels:
    """Attention backend and loss kernel for this device.

    Raises:
        ValueError: a requested kernel cannot run here, or is not deterministic although `trainer.deterministic` is set.
    """
    length, precision = model.max_seq_len, config.trainer.precision
    documents = None if model.attend_across_documents else torch.zeros(1, length, dtype=torch.int64)
    attention, because = choose_backend(
        model.attention,
        torch.device(device),
        precision_dtype(precision),
        model.d_head,
        AttentionMask(length, length, first=documents),
        dropout=model.dropout,
    )
    if model.attention not in (attention, "auto"):
        raise ValueError(f"model.attention={model.attention} cannot run: {because}. Set model.attention=auto.")
    if config.trainer.deterministic and not BACKENDS[attention].traits.deterministic:
        raise ValueError(
            f"model.attention={attention} cannot be used with trainer.deterministic=true: its backward pass is not "
            "known to be deterministic. Set model.attention=auto."
        )
    loss, loss_because = choose_loss_kernel(config.trainer.loss_kernel, torch.device(device))
    if config.trainer.compile:
        check_compiler(device)
    described = f"{device}, {precision} ({why_precision}), attention {attention} ({because}), loss kernel {loss} ({loss_because})"
    return Kernels(device=device, attention=attention, loss=loss, described=described)
