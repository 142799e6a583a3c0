"""Resolve a training run from the settings and the data. Nothing is written and no model is built."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_modules import SampleOrder, SourceShards
from gpt_lightning.device_and_precision import choose_device
from gpt_lightning.model import GPT, GPTConfig
from gpt_lightning.tokenizer import Tokenizer
from running.config.run_config import RunConfig
from running.training.builders import build_model_config, build_sample_order
from running.training.callback_builders import build_callbacks, check_average_kept
from running.training.check_settings import Kernels, check_settings
from running.training.prepared_data import check_undamaged, open_sources
from running.training.rank_agreement import RankAgreement
from running.training.rank_checks import check_launch
from running.training.resume import ResumePoint, find_resume_point
from running.training.run_directory import RunDirectory

if TYPE_CHECKING:
    import lightning as L


@dataclass(frozen=True, kw_only=True)
class ResolvedRun:
    """A run whose settings, data and resume point are known to fit together."""

    config: RunConfig
    """Settings of the run. The precision is not `auto` any more."""
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
    callbacks: "list[L.Callback]"
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
    check_launch(config.trainer.devices, config.trainer.num_nodes)
    checked = check_settings(config, choose_device(config.trainer.accelerator))
    config = checked.config
    directory = RunDirectory(config.run_dir)
    resume_point = find_resume_point(directory.path, config)
    tokenizer, sources = open_sources(config, earlier=resume_point.sources)
    directory.refuse_other_data(resume_point, sources)
    read = {f"source {name}": source.fingerprint for name, source in sources.items()}
    precision = config.trainer.precision
    seen = {"step": resume_point.step, "trainer.precision": precision, "the tokenizer": tokenizer.fingerprint}
    ranks.compare(seen | read)
    model_config = build_model_config(config, tokenizer)
    if resume_point.step < config.max_steps:
        check_undamaged(config, sources, begun=directory.states_of_data())
    sequences = {name: source.train.n_sequences(model_config.max_seq_len) for name, source in sources.items()}
    order = build_sample_order(config, config.curriculum, sequences, resume_point)
    callbacks = checked.callbacks or build_callbacks(config.callbacks)
    check_average_kept(callbacks, resume_point)
    assert checked.kernels is not None  # the run is trained here
    return ResolvedRun(
        config=config,
        directory=directory,
        resume_point=resume_point,
        tokenizer=tokenizer,
        sources=sources,
        model_config=model_config,
        order=order,
        schedule=checked.schedule,
        kernels=checked.kernels,
        make_optimizer=checked.make_optimizer,
        make_groups=checked.make_groups,
        callbacks=callbacks,
    )
