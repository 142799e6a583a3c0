"""A training, from its config to its last step: what train.py does once it is the only process at work in the run directory."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger

from callbacks import (
    PRUNED,
    AdoUpdater,
    Checkpoints,
    CheckpointWriteError,
    EndedEarly,
    ExperimentTracker,
    GracefulStop,
    JsonlMetrics,
    MedianPruning,
    RunPruned,
    RunStopped,
    SkippedStepLog,
    StartAgreement,
    StepLog,
    TensorBoard,
    WriteMetricsAtStepEnd,
)
from data_modules.mixed_data_module import MixedDataModule
from data_modules.prefetching import ReaderLostError
from data_modules.shard_integrity import DataChangedError
from gpt_lightning import random_states
from gpt_lightning.checkpoint import VerifiedCheckpointIO, checkpoint_fingerprint
from gpt_lightning.console import say
from gpt_lightning.convert import load_initial_weights
from gpt_lightning.data_wait_profiler import DataWaitProfiler
from gpt_lightning.device_and_precision import (
    check_compiler,
    choose_device,
    choose_precision,
    deterministic_algorithms,
    precision_dtype,
)
from gpt_lightning.lit_gpt import LitGPT, NonFiniteLossError
from gpt_lightning.loggers.console_logger import ConsoleLogger
from gpt_lightning.loggers.jsonl_file import JsonlFile
from gpt_lightning.model import GPT
from gpt_lightning.model.attention_mask import AttentionMask
from gpt_lightning.model.attention_selection import choose_backend
from gpt_lightning.model.loss_kernels import choose_loss_kernel
from running.sweeps.sweep_state import may_end_early, why_ended_early
from running.training import bus_error, run_summary
from running.training.builders import (
    accumulation_steps,
    build_callbacks,
    build_curriculum,
    build_model_config,
    build_optimizer,
    build_parameter_groups,
    build_sample_order,
    build_schedule,
    check_average_kept,
    check_same_optimizer,
)
from running.training.distributed_strategy import build_strategy, check_ranks, cluster_environment
from running.training.external_logger import build_external_logger
from running.training.lightning_warnings import quiet_lightning
from running.training.model_tokenizer import check_same_tokenizer
from running.training.out_of_memory import out_of_memory
from running.training.prepared_data import check_undamaged, open_sources
from running.training.process_group import is_first_rank
from running.training.rank_agreement import RankAgreement
from running.training.resume import find_resume_point
from running.training.run_directory import RunDirectory


def run_training(config: Mapping[str, Any], ranks: RankAgreement) -> dict[str, float]:
    """See `train.train`, which holds the run directory's lock meanwhile; `ranks` are those of the run."""
    began = time.monotonic()
    device = choose_device(config["trainer"]["accelerator"])
    curriculum = build_curriculum(config)
    accumulation = accumulation_steps(config)
    precision, why = choose_precision(config["trainer"]["precision"], device=device)
    config = {**config, "trainer": {**config["trainer"], "precision": precision}}  # it decides the run's bits
    check_ranks(config, device, precision)
    run = RunDirectory(Path(config["run_dir"]))
    beginning = find_resume_point(run.path, config)
    tokenizer, sources = open_sources(config, curriculum, earlier=beginning.sources)
    run.refuse_other_data(beginning, sources)
    read = {f"source {name}": source.fingerprint for name, source in sources.items()}
    ranks.compare(
        {"step": beginning.step, "trainer.precision": precision, "the tokenizer": tokenizer.fingerprint, **read}
    )
    model_config = build_model_config(config, tokenizer)
    if beginning.step < config["max_steps"]:
        check_undamaged(config, sources, begun=run.states_of_data())
    sequences = {name: source.train.n_sequences(model_config.max_seq_len) for name, source in sources.items()}
    order = build_sample_order(config, curriculum, sequences, beginning)
    schedule = build_schedule(config)
    length = model_config.max_seq_len
    documents = None if model_config.attend_across_documents else torch.zeros(1, length, dtype=torch.int64)
    attention, because = choose_backend(
        model_config.attention,
        torch.device(device),
        precision_dtype(precision),
        model_config.d_head,
        AttentionMask(length, length, first=documents),
        dropout=model_config.dropout,
    )
    if model_config.attention not in (attention, "auto"):
        raise ValueError(f"model.attention={model_config.attention} cannot run: {because}. Take model.attention=auto.")
    if attention == "sdpa_cudnn" and config["trainer"]["deterministic"]:
        raise ValueError(
            "model.attention=sdpa_cudnn does not go with trainer.deterministic=true: cuDNN's backward pass is not known to "
            "repeat its bits. Take model.attention=auto."
        )
    loss_kernel, kernel_because = choose_loss_kernel(config["trainer"]["loss_kernel"], torch.device(device))
    if config["trainer"]["compile"]:
        check_compiler(device)
    make_optimizer, make_groups = build_optimizer(config, precision), build_parameter_groups(config)
    watchers = build_callbacks(config)
    check_average_kept(watchers, beginning)
    further = build_external_logger(config) if is_first_rank() else None
    stopping = GracefulStop(max_hours=config["max_hours"])
    data = MixedDataModule(
        sources=sources,
        order=order,
        tokenizer=tokenizer,
        max_seq_len=model_config.max_seq_len,
        micro_batch=config["micro_batch"],
        val_sequences=config["data"]["val_sequences"],
        workers=config["data"]["workers"],
        eot_id=None if model_config.attend_across_documents else model_config.eot_id,
    )
    data.told_to_stop = lambda: bool(stopping.heard)
    bus_error.install_bus_error_message(data.touched_files)
    if nothing_to_do := _is_over(run.path, config, beginning.step, watchers):
        if is_first_rank():
            say(f"{run.path} {nothing_to_do}")
        return run.final_metrics()

    random_states.seed_all(config["seed"])
    initialised = config["init_from"] is not None and beginning.checkpoint is None
    if initialised:
        same = check_same_tokenizer(Path(config["init_from"]), tokenizer)
        model = load_initial_weights(config["init_from"], model_config, same_tokenizer=same)
    else:
        model = GPT(model_config)
    model.loss_kernel, model.recompute = loss_kernel, config["trainer"]["recompute"] == "blocks"
    lit = LitGPT(
        model,
        make_optimizer=make_optimizer,
        make_groups=make_groups,
        schedule=schedule,
        gradient_clip=config["gradient_clip"],
        seed=config["seed"],
        skip_spikes=config["on_spike"] == "skip",
        settings=config,
    )
    if config["trainer"]["compile"]:
        lit.model.compile_blocks()
    terminal = ConsoleLogger(run.log_file())
    metrics_file = JsonlMetrics(run.metrics, done=beginning.step)
    tensorboard = TensorBoard(
        run.path,
        terminal=terminal,
        metrics_file=metrics_file,
        name="",
        version="tensorboard",
        default_hp_metric=False,
        purge_step=beginning.step + 1,
    )
    initial_weights = checkpoint_fingerprint(model.state_dict()) if initialised else None
    run.refuse_other_weights(config, beginning, initial_weights)
    ranks.compare({"what init_from gives": initial_weights}, last=True)
    if isinstance(further, ExperimentTracker):
        further.open(run_summary.hyperparameters(config))

    def begin() -> None:
        root_device = lit.trainer.strategy.root_device
        check_same_optimizer(config, beginning, make_optimizer, make_groups(lit.model), root_device)
        changed = run.begin(config, sources, beginning, lit.model, initial_weights)
        terminal.note(
            run_summary.headline(
                config,
                lit.model,
                order,
                f"{device}, {precision} ({why}), attention {attention} ({because}), "
                f"loss kernel {loss_kernel} ({kernel_because}){run_summary.step_options_text(config['trainer'])}",
            ),
            style="",
        )
        for note in run_summary.busy_machine_remark(device):
            terminal.note(note, style="")
        for note, style in run_summary.start_remarks(
            beginning, lost=run.last_step() - beginning.step, max_steps=config["max_steps"]
        ):
            terminal.note(note, style=style)
        if not curriculum.ado and is_first_rank():
            JsonlFile(run.weights).cut_back(step=beginning.step)  # of a run that followed its losses until now
        for note in run_summary.change_remarks(changed):
            terminal.note(note, style="")
        if initialised:
            terminal.note(f"starting from the weights of {config['init_from']}", style="")
        of_sources = {f"val/loss/{source}": f"result/loss/{source}" for source in sources}
        of_mean = {f"val/{kind}/mean": f"result/{kind}" for kind in ("loss", "bits_per_byte")}
        tensorboard.add_run(run_summary.hyperparameters(config), curves=of_mean | of_sources)
        tensorboard.add_layout(list(sources))

    with deterministic_algorithms(config["trainer"]["deterministic"]), quiet_lightning():
        same_beginning = StartAgreement(beginning.step, begin)
        run_log = StepLog(every=config["log_every"], terminal=terminal, metrics_file=metrics_file)
        # what a watcher refuses when it is set up, it refuses before the run begins
        following = [AdoUpdater(run.weights)] if curriculum.ado else []
        ended = EndedEarly(may_end_early(config))
        writers = [*following, run_log, *filter(None, [further]), ended]
        callbacks = [stopping, WriteMetricsAtStepEnd(run_log), *_in_order(watchers, writers), same_beginning]
        trainer = _trainer(config, device, accumulation, [tensorboard, metrics_file], callbacks)
        try:
            with stopping.listening(trainer):
                trainer.fit(lit, datamodule=data, ckpt_path=beginning.checkpoint, weights_only=True)
        except (RunStopped, NonFiniteLossError, CheckpointWriteError, ReaderLostError, DataChangedError) as end:
            terminal.note(str(end), style="bold")
            if isinstance(end, (ReaderLostError, DataChangedError)) and not is_first_rank():
                say(f"error: {end}", error=True)  # which the first rank does not know of
            if isinstance(end, ReaderLostError) and stopping.heard:
                raise RunStopped(stopping.heard, trainer.global_step, saved=False) from end
            raise
        except RunPruned as end:
            terminal.note(str(end), style="bold")
            return run.final_metrics()
        except torch.OutOfMemoryError as error:
            raise ValueError(out_of_memory(config, trainer.global_step)) from error
        except (ValueError, OSError) as error:
            if not same_beginning.begun:
                raise
            # no refusal any more: a fault, which wants its traceback
            raise RuntimeError(f"the training broke off after step {trainer.global_step}") from error
    final = run.final_metrics()
    done = (
        f"done: {trainer.global_step} steps" if ended.why is None else f"ended early after step {trainer.global_step}"
    )
    terminal.note(f"{done} in {run.path}" + (f": {ended.why}" if ended.why else ""), style="bold")
    tokens = trainer.global_step * config["global_batch"] * model_config.max_seq_len
    for line in run_summary.print_summary(final, tokens=tokens, seconds=time.monotonic() - began, run=run.path):
        terminal.note(f"  {line}", style="")
    return final


def _is_over(run: Path, config: Mapping[str, Any], step: int, watchers: list[L.Callback]) -> str | None:
    """Why the run, whose last checkpoint is of this step, has nothing left to do; None: it has."""
    if step == config["max_steps"]:
        return f"is done: {step} steps, nothing to do."
    if (run / PRUNED).is_file() and any(isinstance(watcher, MedianPruning) for watcher in watchers):
        return "was pruned: nothing to do, unless without callbacks.MedianPruning."
    if (reason := why_ended_early(run, config, step)) is not None:
        return f"ended early after step {step}: {reason}. Nothing to do, unless with other callbacks."
    return None


def _trainer(
    config: Mapping[str, Any], device: str, accumulation: int, loggers: list[Logger], callbacks: list[L.Callback]
) -> L.Trainer:
    return L.Trainer(
        accelerator=device,
        devices=config["trainer"]["devices"],
        num_nodes=config["trainer"]["num_nodes"],
        strategy=build_strategy(config),
        precision=config["trainer"]["precision"],
        max_steps=config["max_steps"],
        max_epochs=-1,  # one endless epoch
        log_every_n_steps=config["log_every"],  # where callbacks of Lightning's ask
        accumulate_grad_batches=accumulation,
        val_check_interval=config["val_every"] * accumulation,  # Lightning counts micro-batches
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # the data module slices by rank itself
        logger=loggers,
        profiler=DataWaitProfiler(),
        callbacks=callbacks,
        plugins=[VerifiedCheckpointIO(), cluster_environment()],
        default_root_dir=Path(config["run_dir"]),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _in_order(watchers: list[L.Callback], writers: list[L.Callback]) -> list[L.Callback]:
    """Samples come before the line of their step, the line before what ends the run by it, and last the checkpoint after which
    none of that is asked again."""
    last = [w for kind in (MedianPruning, Checkpoints) for w in watchers if isinstance(w, kind)]
    return [*(w for w in watchers if w not in last), SkippedStepLog(), *writers, *last]
