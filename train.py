"""python train.py [experiment=…] [key=value …]: train a model, or go on with the run of the same name.

python train.py experiment=quickstart                                    # minutes on two cores, without a download
python train.py experiment=quickstart name=warmer optimizer.lr=6e-3      # other settings, in another run
python train.py -m experiment=lr_sweep jobs_at_once=2                    # a sweep, two jobs at a time
"""

if __name__ == "__main__":  # before all that takes seconds to import
    from running.interrupts import exit_on_interrupt
    from running.thread_waiting import set_openmp_spin_count

    exit_on_interrupt()
    set_openmp_spin_count()

import os
import signal
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import hydra
from omegaconf import DictConfig

import cli
from gpt_lightning.console import Console, say
from gpt_lightning.durable_files import exclusive_lock
from running.config.compose import typed
from running.config.path_settings import check_names
from running.sweeps.multirun import Multirun
from running.training.process_group import detect_launcher, fail_together, is_first_rank, run_on_ranks
from running.training.rank_agreement import build_rank_agreement


def train(config: Mapping[str, Any]) -> dict[str, float]:
    """Run or resume the training that a config describes; return its final metrics.

    Everything that can be refused is refused before anything is built or written.

    Raises:
        ValueError: a setting is wrong, a source is not prepared, or the run directory belongs to another run or process.
        Stopped, NotFinite, NotSaved: it ended before its last step; their `exit_code` says so to the shell.
    """
    check_names(config)
    run = cli.path_of(config, "run_dir")
    with (
        fail_together(),
        build_rank_agreement(config) as ranks,
        exclusive_lock(run, doing="trained") if is_first_rank() else nullcontext(),
    ):
        from running.training.run_training import (
            run_training,  # seconds of imports, which a second process need not wait for
        )

        return run_training(config, ranks)


def train_on_ranks(config: Mapping[str, Any]) -> None:
    """`train`; where it takes several processes on this machine, this one starts them and waits."""
    n_ranks, n_nodes = config["trainer"]["devices"], config["trainer"]["num_nodes"]
    if isinstance(n_ranks, int) and n_ranks > 1 and n_nodes == 1 and not detect_launcher():
        with exclusive_lock(cli.path_of(config, "run_dir"), doing="trained"):
            pass  # who comes second is told so before any rank is started
        run_on_ranks(n_ranks)
    else:
        train(config)


def print_outcome(sweep: Multirun) -> None:
    """A table of a sweep's jobs, sweep.json, and what compares the runs."""
    if not (sweep.record and (jobs := sweep.record.jobs())):
        return
    from analysis.comparison import verdict_sentence
    from analysis.comparison.sweep_table import (  # as above
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
    if verdict := verdict_sentence(comparison):
        say(verdict)
    star = "; * marks the best settings, or all that are tied for best" if any(row["best"] for row in rows) else ""
    say(f"{write_sweep_table(folder, rows)} has it in full{star}")
    say(f"python report.py {typed('runs', f'{folder}/*')} compares them")


@hydra.main(version_base=None, config_path="conf", config_name="train")
def main(config: DictConfig) -> Any:
    return cli.run_command(train_on_ranks, config)


if __name__ == "__main__":
    for number in (signal.SIGUSR1, signal.SIGHUP):  # until training listens: by default they are unknown ends
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: os._exit(143))
    cli.run_command_line(main, "train", after_multirun=print_outcome)
