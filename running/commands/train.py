"""train.py: train a model, or resume the run of the same name."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

from gpt_lightning.console import Console, say
from gpt_lightning.file_locks import exclusive_lock
from running.config.compose import typed
from running.config.run_config import RunConfig
from running.sweeps.multirun import Multirun
from running.training.rank_agreement import build_rank_agreement
from running.training.rank_processes import detect_launcher, fail_together, is_first_rank, run_on_ranks


def train(config: Mapping[str, Any]) -> dict[str, float]:
    """Run or resume the training that a config describes.

    All checks run before anything is built or written.

    Args:
        config: the composed settings of conf/train.yaml and the command line.

    Returns:
        The final metrics, by name.

    Raises:
        ValueError: a setting is wrong, a source is not prepared, or another run or process owns the run directory.
        RunStopped, NonFiniteLossError, CheckpointWriteError: the run ended before its last step. The process exits with
            the `exit_code` of this error.
    """
    with fail_together(), build_rank_agreement(config) as ranks:
        settings = RunConfig.of(config)
        with exclusive_lock(settings.run_dir, doing="trained") if is_first_rank() else nullcontext():
            # imported under the lock: a second process is refused at once
            from running.training.run_training import run_training

            return run_training(settings, ranks)


def train_on_ranks(config: Mapping[str, Any]) -> None:
    """Call `train`. If the run needs several processes on this machine, start them and wait for them.

    Args:
        config: the composed settings of conf/train.yaml and the command line.

    Raises:
        ValueError: as for `train`.
    """
    settings = RunConfig.of(config)
    n_ranks, n_nodes = settings.trainer.devices, settings.trainer.num_nodes
    if n_ranks > 1 and n_nodes == 1 and not detect_launcher():
        with exclusive_lock(settings.run_dir, doing="trained"):
            pass  # a second command is refused before any rank starts
        run_on_ranks(n_ranks)
    else:
        train(config)


def print_outcome(sweep: Multirun) -> None:
    """Print the table of a sweep's jobs, write sweep.json, and print the command that compares the runs.

    Args:
        sweep: the multirun that has ended.
    """
    if not (sweep.record and (jobs := sweep.record.jobs())):
        return
    from analysis.comparison import verdict_sentence
    from analysis.comparison.sweep_job_table import (  # as above
        WIDTH,
        compare_jobs,
        sweep_rows,
        sweep_table,
        write_sweep_table,
    )

    folder = sweep.record.sweep_dir
    comparison = compare_jobs(folder, jobs)
    rows = sweep_rows(comparison, jobs)
    Console(width=WIDTH).print("", sweep_table(rows), "", sep="\n")
    for row in rows:
        if row["state"] == "refused":
            say(f"{row['job']} was refused: {row['reason']}")
    if verdict := verdict_sentence(comparison):
        say(verdict)
    star = "; * marks the best settings, including ties" if any(row["best"] for row in rows) else ""
    say(f"{write_sweep_table(folder, rows)} holds the full table{star}")
    say(f"python report.py {typed('runs', f'{folder}/*')} compares them")
