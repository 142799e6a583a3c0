"""Run one job of Hydra's multirun, in a new process unless the job's run is already finished."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from gpt_lightning.console import say
from gpt_lightning.file_locks import exclusive_lock
from running.config.compose import CONF, hydra_quoted, path_of, to_dict
from running.config.job_names import job_name
from running.config.quote_for_hydra import unquote_text_settings
from running.config.renamed_targets import target_of
from running.config.sweep_axis_choices import count_jobs, has_no_axes
from running.sweeps import multirun
from running.sweeps.machine_shares import machine_shares
from running.sweeps.sweep_state import SweepState, describe_other_run, exit_code, is_finished, objective
from running.training import rank_processes


@contextmanager
def open_multirun(command: str, config: DictConfig) -> Iterator[multirun.Multirun]:
    """Let this process, and no other, run the jobs of the multirun inside the context.

    Args:
        command: name of the command.
        config: config of the multirun as a whole, including `hydra`.

    Raises:
        ValueError: another process runs this sweep; this process is one of several ranks; the launcher needs Slurm,
            which is not available; `jobs_at_once` do not fit on this machine; or a command that needs no processes is
            given a launcher.
    """
    rank_processes.check_no_multirun()
    launcher = str(config.hydra.launcher._target_)
    is_here = launcher.startswith("hydra._internal.")
    if launcher.endswith(".SlurmLauncher") and shutil.which("srun") is None:
        raise ValueError(
            "hydra/launcher=submitit_slurm needs Slurm, but there is no srun here: start it on a login node, or leave "
            "out hydra/launcher=…."
        )
    if has_no_axes(config):
        say(
            "-m starts one job per choice, but no setting has several choices, so this is one job. Choices have the "
            "form seed=1,2.",
            error=True,
        )
    if command == "plan" and not is_here:
        raise ValueError("plan.py plans a sweep in this process: leave out hydra/launcher=….")
    if command != "train":
        multirun.here = multirun.Multirun()
        yield multirun.here
        return
    record = SweepState(path_of(config, "sweep_dir"))
    shares = _shares(config) if is_here else [{}]
    with exclusive_lock(record.folder, doing="used"):
        record.clear(n_jobs=count_jobs(config))
        multirun.here = multirun.Multirun(shares=shares, record=record)
        yield multirun.here


def _shares(config: DictConfig) -> list[dict[str, str]]:
    trainer = config.trainer
    return machine_shares(config.jobs_at_once, devices=trainer.devices, accelerator=trainer.accelerator)


def answer_in_process(answer: Callable[[dict[str, Any]], dict[str, Any]], config: DictConfig) -> float:
    """Run one job of a multirun in this process.

    Args:
        answer: the command's function.
        config: config of the job.
    """
    assert multirun.here
    name = job_name(HydraConfig.get())
    return multirun.here.answer(answer, to_dict(config) | {"run_dir": str(path_of(config, "sweep_dir") / name)}, name)


def run_job_process(config: DictConfig) -> Any:
    """Run one job of a multirun in a new process. The job's directory is named after its choices on the axes.

    Args:
        config: config of the job.

    Returns:
        For a training run the objective of a search, or a job that can be converted to the objective; otherwise None,
        also on failure.
    """
    hydra, here = HydraConfig.get(), multirun.here
    name, number = job_name(hydra), int(hydra.job.num)
    command = [
        *(sys.executable, str(CONF.with_name(f"{hydra.job.name}.py"))),
        *_configs(hydra),
        *map(unquote_text_settings, hydra.overrides.task),
    ]
    if "run_dir" in config:
        command.append(f"run_dir={hydra_quoted(str(path_of(config, 'sweep_dir') / name))}")
    if hydra.job.name != "train":
        if here:
            return here.run(command, name, number=number)
        if subprocess.run(command, check=False).returncode:
            raise RuntimeError(f"job {name} failed")
        return None
    record = SweepState(path_of(config, "sweep_dir"))
    run = record.sweep_dir / name
    command += _pruned_by(config, hydra, record)
    settings = to_dict(config)
    if not here:
        return _elsewhere(command, record, name, number, settings)
    here.wait_for_owner(name, run)
    if is_finished(run, settings):
        return here.over(name, number=number, run=run)
    return here.run(command, name, number=number, run=run, config=settings)


def _elsewhere(command: list[str], record: SweepState, name: str, number: int, config: dict[str, Any]) -> float | None:
    """Train in a process that a launcher has started, perhaps on another machine; None: the run failed."""
    code, run, other = 0, record.sweep_dir / name, None
    if not is_finished(run, config):
        record.write(number, name, code=None)
        # SIGUSR2 tells submitit to requeue the job. It would kill the training run, which is sent SIGTERM next.
        code = exit_code(subprocess.run(command, check=False, preexec_fn=_ignore_sigusr2).returncode)
        other = describe_other_run(run, config) if code else None
    record.write(number, name, code=code, other_run=other)
    try:
        return objective(run, code)
    except ValueError:
        return None  # a search does not count it


def _ignore_sigusr2() -> None:
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def _pruned_by(config: DictConfig, hydra: Any, record: SweepState) -> list[str]:
    """The setting of `callbacks.MedianPruning` that names the runs to compare with: completed runs of earlier batches.

    A batch is the jobs that run at the same time. So the runs that a job is compared with depend on its number only.
    """
    keys = [key for key, node in config.callbacks.items() if target_of(node).endswith(".MedianPruning")]
    if not keys:
        return []
    here = multirun.here
    batch = OmegaConf.select(hydra, "sweeper.n_jobs") or (len(here.shares) if here else 0)
    first = hydra.job.num - hydra.job.num % batch if batch else 0
    if here:
        here.wait_for_earlier(than=first)
    names = ",".join(map(hydra_quoted, record.completed(before=first)))
    return [f"callbacks.{keys[0]}.against=[{names}]"]


def _configs(hydra: Any) -> list[str]:
    """Arguments with which a job finds the same configs as this process."""
    folders = {source.provider: source.path for source in hydra.runtime.config_sources}
    more = ["--config-dir", folders["command-line"]] if "command-line" in folders else []
    return ["--config-path", folders["main"], "--config-name", hydra.job.config_name, *more]
