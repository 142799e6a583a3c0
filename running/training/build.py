"""Build a resolved run: model, data module, loggers, callbacks and Lightning's Trainer."""

from dataclasses import dataclass
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger

from callbacks import (
    AdoUpdater,
    Checkpoints,
    CsvMetrics,
    EarlyEndRecorder,
    EndMetricsRow,
    ExperimentTracker,
    GracefulStop,
    MedianPruning,
    SkippedStepLog,
    StartStepAgreement,
    StepLog,
)
from data_modules.batch_settings import BatchSettings
from data_modules.mixed_data_module import MixedDataModule
from gpt_lightning import random_states
from gpt_lightning.checkpoint_io import VerifiedCheckpointIO
from gpt_lightning.convert import model_from_initial_weights
from gpt_lightning.data_wait_profiler import DataWaitProfiler
from gpt_lightning.lit_gpt import LitGPT
from gpt_lightning.loggers.jsonl_file import JsonlFile
from gpt_lightning.loggers.jsonl_metrics import JsonlMetrics
from gpt_lightning.loggers.tensorboard import TensorBoard
from gpt_lightning.loggers.terminal_and_log_file import ConsoleLogger
from gpt_lightning.model import GPT
from gpt_lightning.optimization_settings import OptimizationSettings
from gpt_lightning.verified_checkpoint import checkpoint_fingerprint
from running.config.run_config import RunConfig
from running.training import bus_error, start_and_end_messages
from running.training.builders import check_same_optimizer
from running.training.distributed_strategy import build_strategy, cluster_environment
from running.training.external_logger import build_external_logger
from running.training.find_tokenizer import check_same_tokenizer
from running.training.rank_agreement import RankAgreement
from running.training.rank_processes import is_first_rank
from running.training.resolve import ResolvedRun
from running.training.why_ended_early import may_end_early


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run that is ready to be trained."""

    resolved: ResolvedRun
    lit: LitGPT
    data: MixedDataModule
    console: ConsoleLogger
    metrics: JsonlMetrics
    tensorboard: TensorBoard
    external: CsvMetrics | ExperimentTracker | None
    graceful_stop: GracefulStop
    ended_early: EarlyEndRecorder
    initial_weights: str | None
    """Fingerprint of the weights from `init_from`; None: there is no `init_from`, or the run starts from a
    checkpoint."""

    def begin(self) -> None:
        """Record in the run directory what defines the run, and print this. All ranks have agreed on the first step."""
        resolved, config, point = self.resolved, self.resolved.config, self.resolved.resume_point
        groups, device = resolved.make_groups(self.lit.model), self.lit.trainer.strategy.root_device
        check_same_optimizer(config, point, resolved.make_optimizer, groups, device)
        changed = resolved.directory.begin(config, resolved.sources, point, self.lit.model, self.initial_weights)
        arithmetic = f"{resolved.kernels.described}{start_and_end_messages.step_options_text(config.trainer)}"
        self.console.note(start_and_end_messages.headline(config, self.lit.model, resolved.order, arithmetic), style="")
        device_name = resolved.kernels.device
        notes = (
            *start_and_end_messages.no_gpu_remark(config, device_name),
            *start_and_end_messages.busy_machine_remark(device_name),
        )
        for note in notes:
            self.console.note(note, style="")
        lost = resolved.directory.last_step() - point.step
        for note, style in start_and_end_messages.start_remarks(point, lost=lost, max_steps=config.max_steps):
            self.console.note(note, style=style)
        if not config.curriculum.ado and is_first_rank():
            # of a run that used ADO until now
            JsonlFile(resolved.directory.mix_weights).cut_back(step=point.step)
        for note in start_and_end_messages.change_remarks(changed):
            self.console.note(note, style="")
        if self.initial_weights:
            self.console.note(f"starting from the weights of {config.init_from}", style="")
        of_sources = {f"val/loss/{source}": f"result/loss/{source}" for source in resolved.sources}
        of_mean = {f"val/{kind}/mean": f"result/{kind}" for kind in ("loss", "bits_per_byte")}
        self.tensorboard.add_run(start_and_end_messages.hyperparameters(config.settings), curves=of_mean | of_sources)
        self.tensorboard.add_layout(list(resolved.sources))


def build(resolved: ResolvedRun, ranks: RankAgreement) -> Run:
    """Build the model and everything around it. Nothing is written to the run directory yet.

    Args:
        resolved: the checked run.
        ranks: compares the initial weights of all ranks.

    Raises:
        ValueError: the initial weights do not fit or differ from the weights that the run started with, or a logger
            cannot be built.
    """
    config, directory, point = resolved.config, resolved.directory, resolved.resume_point
    external = build_external_logger(config) if is_first_rank() else None
    graceful_stop = GracefulStop(max_hours=config.max_hours)
    data = _build_data(resolved)
    data.told_to_stop = lambda: bool(graceful_stop.heard)
    bus_error.install_bus_error_message(data.touched_files)
    random_states.seed_all(config.seed)
    model, initial_weights = _build_model(resolved)
    lit = _build_module(resolved, model)
    console = ConsoleLogger(directory.log_file())
    metrics = JsonlMetrics(directory.metrics, done=point.step)
    tensorboard = TensorBoard(
        directory.path,
        terminal=console,
        metrics_file=metrics,
        name="",
        version="tensorboard",
        default_hp_metric=False,
        purge_step=point.step + 1,
    )
    directory.refuse_other_weights(config, point, initial_weights)
    ranks.compare({"the weights of init_from": initial_weights}, last=True)
    if isinstance(external, ExperimentTracker):
        external.open(start_and_end_messages.hyperparameters(config.settings))
    return Run(
        resolved=resolved,
        lit=lit,
        data=data,
        console=console,
        metrics=metrics,
        tensorboard=tensorboard,
        external=external,
        graceful_stop=graceful_stop,
        ended_early=EarlyEndRecorder(may_end_early(config.callbacks)),
        initial_weights=initial_weights,
    )


def _build_data(resolved: ResolvedRun) -> MixedDataModule:
    config, model = resolved.config, resolved.model_config
    batches = BatchSettings(
        max_seq_len=model.max_seq_len,
        micro_batch=config.micro_batch,
        val_sequences=config.data.val_sequences,
        workers=config.data.workers,
        eot_id=None if model.attend_across_documents else model.eot_id,
    )
    return MixedDataModule(
        sources=resolved.sources, order=resolved.order, tokenizer=resolved.tokenizer, batches=batches
    )


def _build_model(resolved: ResolvedRun) -> tuple[GPT, str | None]:
    """(model with its initial weights, fingerprint of these weights if they come from `init_from`)."""
    config = resolved.config
    initialised = config.init_from is not None and resolved.resume_point.checkpoint is None
    if initialised:
        assert config.init_from is not None
        same = check_same_tokenizer(config.init_from, resolved.tokenizer)
        model = model_from_initial_weights(config.init_from, resolved.model_config, same_tokenizer=same)
    else:
        model = GPT(resolved.model_config)
    model.loss_kernel, model.recompute = resolved.kernels.loss, config.trainer.recompute == "blocks"
    return model, checkpoint_fingerprint(model.state_dict()) if initialised else None


def _build_module(resolved: ResolvedRun, model: GPT) -> LitGPT:
    config = resolved.config
    optimization = OptimizationSettings(
        make_optimizer=resolved.make_optimizer,
        make_groups=resolved.make_groups,
        schedule=resolved.schedule,
        gradient_clip=config.gradient_clip,
        skip_spikes=config.on_spike == "skip",
    )
    lit = LitGPT(model, optimization, seed=config.seed, settings=config.settings)
    if config.trainer.compile:
        lit.model.compile_blocks()
    return lit


def build_trainer(run: Run) -> tuple[L.Trainer, StartStepAgreement]:
    """Lightning's Trainer with all callbacks, and the callback that knows whether training has begun.

    Args:
        run: the built run.
    """
    config, directory = run.resolved.config, run.resolved.directory
    start = StartStepAgreement(run.resolved.resume_point.step, run.begin)
    step_log = StepLog(every=config.log_every, terminal=run.console, metrics_file=run.metrics)
    # errors in the set-up of a callback come before the run begins
    ado = [AdoUpdater(directory.mix_weights)] if config.curriculum.ado else []
    writers = [*ado, step_log, *filter(None, [run.external]), run.ended_early]
    of_config = _in_order(run.resolved.callbacks, writers)
    callbacks = [run.graceful_stop, EndMetricsRow(step_log), *of_config, start]
    return _trainer(config, run.resolved.kernels.device, [run.tensorboard, run.metrics], callbacks), start


def _in_order(of_config: list[L.Callback], writers: list[L.Callback]) -> list[L.Callback]:
    """Order the callbacks: samples, the log line of their step, what may end the run because of it, the checkpoint.

    With the checkpoint last, a resumed run repeats none of the others.
    """
    last = [c for kind in (MedianPruning, Checkpoints) for c in of_config if isinstance(c, kind)]
    return [*(c for c in of_config if c not in last), SkippedStepLog(), *writers, *last]


def _trainer(config: RunConfig, device: str, loggers: list[Logger], callbacks: list[L.Callback]) -> L.Trainer:
    precision: Any = config.trainer.precision
    return L.Trainer(
        accelerator=device,
        devices=config.trainer.devices,
        num_nodes=config.trainer.num_nodes,
        strategy=build_strategy(config),
        precision=precision,
        max_steps=config.max_steps,
        max_epochs=-1,  # one endless epoch
        log_every_n_steps=config.log_every,  # read by Lightning's own callbacks
        accumulate_grad_batches=config.accumulation_steps,
        val_check_interval=config.val_every * config.accumulation_steps,  # Lightning counts micro-batches
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # the data module slices by rank itself
        logger=loggers,
        profiler=DataWaitProfiler(),
        callbacks=callbacks,
        plugins=[VerifiedCheckpointIO(), cluster_environment()],
        default_root_dir=config.run_dir,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
