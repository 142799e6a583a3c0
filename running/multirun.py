"""The jobs of a multirun: one after the other, each in a process and a session of its own."""

import re
import signal
import subprocess
import sys
import time
from types import FrameType
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from running.composing import CONF, typed

_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
_ENDS_ALL = (74, 75, 130, 143)  # a full disk, a time that is over, signals: of the next job they would be the end too
_SAME = 0.1  # seconds: a signal this soon after another is the same one, sent to a whole group of processes


class Multirun:
    """What came of the jobs that this process ran, and which of its signals they were told.

    A job has a session of its own, so that Ctrl-C reaches it once and only from here: it can save a checkpoint before it ends.
    """

    def __init__(self) -> None:
        self._failed: list[str] = []
        self._signals: list[tuple[int, float]] = []  # that came, and when
        self._process: subprocess.Popen[bytes] | None = None
        self.runs: str | None = None
        """Where its runs lie, if its jobs are trainings."""

    def run(self, command: list[str], job: str) -> None:
        """Run a job to its end; exit if this process was told to stop."""
        if not self._process:
            for passed_on in _PASSED_ON:
                if signal.getsignal(passed_on) is not signal.SIG_IGN:  # as nohup wants it
                    signal.signal(passed_on, self._pass_on)
        self._exit_if_told()
        self._process = subprocess.Popen(command, start_new_session=True)
        for number, _ in self._signals:  # that came while the process was being made
            self._process.send_signal(number)
        code = self._process.wait()
        self._exit_if_told()
        if code in _ENDS_ALL:
            print(
                f"job {job} was stopped: no further one is started; the same command goes on with the sweep.",
                file=sys.stderr,
            )
            sys.exit(code)
        if code:
            self._failed.append(job)

    def end(self) -> None:
        """Say what compares the runs, and exit as the jobs did."""
        self._exit_if_told()
        if self.runs:
            print(f"python report.py {typed('runs', f'{self.runs}/*')} compares them", flush=True)
        if self._failed:
            sys.exit(f"error: {len(self._failed)} of the jobs failed: {', '.join(self._failed)}.")

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._signals and now - self._signals[-1][1] < _SAME:
            return
        self._signals.append((number, now))
        if self._process:
            self._process.send_signal(number)

    def _exit_if_told(self) -> None:
        if self._signals:
            first = signal.Signals(self._signals[0][0])
            print(
                f"stopped by {first.name}: no further job is started; the same command goes on with the sweep.",
                file=sys.stderr,
            )
            sys.exit(130 if first == signal.SIGINT else 143)


here: Multirun | None = None
"""Of this process; None where a launcher of Hydra's has brought the job elsewhere, and waits to be told."""


def run_as_process(config: DictConfig) -> None:
    """One job of a multirun, in a directory named by its place on the axes; nothing of the job before it can linger."""
    hydra = HydraConfig.get()
    fixed = hydra.job.config.override_dirname.exclude_keys
    axes = [override for override in hydra.overrides.task if override.split("=")[0].lstrip("+") not in fixed]
    job = re.sub(r"[^\w.,=+-]", "_", ",".join(axes)) or f"job={hydra.job.num}"
    script = CONF.with_name(f"{hydra.job.name}.py")
    command = [sys.executable, str(script), *_configs(hydra), *hydra.overrides.task]
    if "run_dir" in config:
        command.append(f"run_dir='{config.sweep_dir}/{job}'")
    print(f"── job {hydra.job.num}: {job}", flush=True)
    if here:
        here.runs = str(config.sweep_dir) if hydra.job.name == "train" else None
        here.run(command, job)
    elif subprocess.run(command, check=False).returncode:
        raise RuntimeError(f"job {job} failed")


def _configs(hydra: Any) -> list[str]:
    """The arguments that let a job find the configs that were found here."""
    folders = {source.provider: source.path for source in hydra.runtime.config_sources}
    more = ["--config-dir", folders["command-line"]] if "command-line" in folders else []
    return ["--config-path", folders["main"], "--config-name", hydra.job.config_name, *more]
