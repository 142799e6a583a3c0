"""Run the jobs of a multirun, each in its own process and session, one after the other or several at a time."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any

from gpt_lightning.console import escape_control_characters, say
from gpt_lightning.file_locks import is_locked, lock_owner
from running.sweeps.machine_shares import describe_shares
from running.sweeps.sweep_state import RESUMABLE_EXIT_CODES, SweepState, describe_other_run, exit_code, objective

_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
_SAME = 0.1  # seconds: a signal this soon after another is the same one, sent to the process group
_LOOK_EVERY = 0.05  # seconds
_GOES_ON = "run the same command again to continue the sweep"
_OF_SWEEP = "GPT_LIGHTNING_SWEEP"  # environment variable of a job: process id of the multirun


@dataclass(eq=False)
class Job:
    """One job of a multirun.

    A sweeper that searches converts the job to a float: the job's objective. The conversion waits for the end of the
    job.
    """

    number: int
    name: str
    slot: int
    began: float = field(default_factory=time.monotonic)
    process: subprocess.Popen[bytes] | None = None
    output: IO[bytes] | None = None  # None: to the terminal
    code: int | None = None
    run: Path | None = None
    config: Mapping[str, Any] | None = None
    wait: Callable[["Job"], None] | None = None

    def __float__(self) -> float:
        if self.wait:
            self.wait(self)
        assert self.code is not None
        assert self.run is not None
        return objective(self.run, self.code)


class Multirun:
    """The jobs of this process, the results of the jobs, and the signals passed on to them.

    Each job has its own session, so Ctrl-C reaches the job only once and only through this process, and the job can
    save a checkpoint before it ends. A job also stops when this process has ended, see `end_with_sweep`.

    Args:
        shares: environment variables for each job that may run at the same time. With several shares, the terminal
            shows only the start and end of jobs, and the output of each job goes to <sweep_dir>/.jobs/<number>.log.
        record: where the state of the jobs is written; None: the jobs are not training runs, and run one after the
            other.
    """

    def __init__(self, *, shares: Sequence[dict[str, str]] = ({},), record: SweepState | None = None) -> None:
        self.shares = shares
        self.record = record
        self.answers: dict[str, dict[str, Any] | ValueError] = {}
        """Job -> result of a command that needs no process for the job; see `answer`."""
        self._jobs: list[Job] = []
        self._listens = False
        self._signals: list[tuple[int, float]] = []  # received so far, with their times
        self._ended_all: Job | None = None  # the first job whose exit code means that others would end too

    def run(
        self,
        command: list[str],
        name: str,
        *,
        number: int = 0,
        run: Path | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> Job:
        """Start a job as soon as a share is free. Exit if this process was told to stop.

        Args:
            command: command line of the job.
            name: name of the job.
            number: number of the job.
            run: the job's run directory, if the job is a training run.
            config: the job's settings, if the job is a training run.

        Returns:
            The job, which is still running.
        """
        self._wait_until(lambda: len(self._running()) < len(self.shares))
        slot = min({*range(len(self.shares))} - {job.slot for job in self._running()})
        job = Job(number, name, slot, run=run, config=config, wait=self._wait_for)
        if self._is_alone:
            say(f"── job {number}: {name}")
        else:
            say(f"── job {number} starts on {describe_shares(self.shares[slot])}: {name}")
            job.output = self._log_of(job).open("wb")
        self._jobs.append(job)
        self._note(job)
        job.process = subprocess.Popen(
            command,
            start_new_session=True,
            env=os.environ | self.shares[slot] | {_OF_SWEEP: str(os.getpid())},
            stdout=job.output,
            stderr=job.output and subprocess.STDOUT,
        )
        for number_of_signal, _ in self._signals:  # received while the process was starting
            job.process.send_signal(number_of_signal)
        return job

    def over(self, name: str, *, number: int, run: Path) -> Job:
        """Record a job whose run is already finished.

        Args:
            name: name of the job.
            number: number of the job.
            run: the job's run directory.
        """
        self._wait_until(lambda: not (self._is_alone and self._running()))  # so that its output comes first
        say(f"── job {number}: {name} is already finished")
        self._jobs.append(Job(number, name, 0, code=0, run=run))
        self._note(self._jobs[-1])
        return self._jobs[-1]

    def answer(self, function: Callable[[dict[str, Any]], dict[str, Any]], config: dict[str, Any], name: str) -> float:
        """Call a command that needs no process for the job, and keep the result.

        Args:
            function: the command's function.
            config: settings of the job.
            name: name of the job.
        """
        try:
            self.answers[name] = function(config)
        except ValueError as error:
            self.answers[name] = error
        return 0.0

    def wait_for_owner(self, name: str, run: Path) -> None:
        """Wait for a process that still trains in a run directory, left over from an earlier, killed start of the
        sweep.

        Args:
            name: name of the job.
            run: the job's run directory.
        """
        if is_locked(run):
            say(f"── {name} is still running ({lock_owner(run)}); waiting for it")
            self._wait_until(lambda: not is_locked(run))

    def wait_for_earlier(self, *, than: int) -> None:
        """Wait until all jobs with smaller numbers have ended.

        Args:
            than: number of a job.
        """
        self._wait_until(lambda: all(job.number >= than for job in self._running()))

    def end(self) -> None:
        """Wait for all jobs. Exit with an error code if a job failed or was stopped."""
        self._wait_until(lambda: not self._running())
        failed = [job.name for job in self._jobs if job.code]
        if self.record:  # includes jobs on other machines
            failed = [row["job"] for row in self.record.ended(stopped=False)]
        if failed:
            jobs = "1 job" if len(failed) == 1 else f"{len(failed)} jobs"
            sys.exit(escape_control_characters(f"error: {jobs} failed: {', '.join(failed)}."))
        if self.record and (stopped := self.record.ended(stopped=True)):
            jobs = "1 job was" if len(stopped) == 1 else f"{len(stopped)} jobs were"
            say(f"{jobs} stopped: {_GOES_ON}.", error=True)
            sys.exit(stopped[0]["code"])

    @property
    def _is_alone(self) -> bool:
        return len(self.shares) == 1

    def _running(self) -> list[Job]:
        return [job for job in self._jobs if job.code is None]

    def _wait_for(self, job: Job) -> None:
        self._wait_until(lambda: job.code is not None)

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition and poll the jobs meanwhile.

        If this process was told to stop, exit once all jobs have ended.
        """
        self._listen()
        self._look()
        self._exit_if_over()
        while not condition():
            time.sleep(_LOOK_EVERY)
            self._look()
            self._exit_if_over()

    def _listen(self) -> None:
        if not self._listens:
            for passed_on in _PASSED_ON:
                if signal.getsignal(passed_on) is not signal.SIG_IGN:  # set by nohup
                    signal.signal(passed_on, self._pass_on)
        self._listens = True

    def _look(self) -> None:
        for job in self._running():
            if job.process and (code := job.process.poll()) is not None:
                job.code = code = exit_code(code)
                self._note(job)
                if code in RESUMABLE_EXIT_CODES:  # the next job would end for the same reason
                    self._ended_all = self._ended_all or job
                if not self._is_alone:
                    say(self._ending(job))

    def _ending(self, job: Job) -> str:
        """One line about how a job ended, for jobs whose output goes to a file."""
        minutes, seconds = divmod(round(time.monotonic() - job.began), 60)
        how = "ended" if job.code == 0 else f"ended with exit code {job.code}"
        took = f"── job {job.number} {how} after {minutes} min {seconds} s: {job.name}"
        if job.output:
            job.output.close()
        said = self._log_of(job).read_text(encoding="utf-8", errors="replace").split("\n")
        errors = [line for line in said if line.startswith("error: ")]
        return "\n   ".join([took, *errors[-1:], *([str(self._log_of(job))] if job.code else [])])

    def _log_of(self, job: Job) -> Path:
        assert self.record
        self.record.folder.mkdir(parents=True, exist_ok=True)
        return self.record.folder / f"{job.number:04}.log"

    def _note(self, job: Job) -> None:
        if self.record:
            other = describe_other_run(job.run, job.config) if job.code and job.run and job.config else None
            self.record.write(job.number, job.name, code=job.code, share=self.shares[job.slot], other_run=other)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._signals and now - self._signals[-1][1] < _SAME:
            return
        self._signals.append((number, now))
        for job in self._running():
            if job.process:
                job.process.send_signal(number)

    def _exit_if_over(self) -> None:
        """If there is a reason not to start more jobs, wait for the running ones and exit."""
        if not (self._signals or self._ended_all):
            return
        while self._running():
            time.sleep(_LOOK_EVERY)
            self._look()
        if self._signals:
            first = signal.Signals(self._signals[0][0])
            say(f"stopped by {first.name}: no more jobs will be started; {_GOES_ON}.", error=True)
            sys.exit(130 if first == signal.SIGINT else 143)
        assert self._ended_all
        say(f"job {self._ended_all.name} was stopped: no more jobs will be started; {_GOES_ON}.", error=True)
        sys.exit(self._ended_all.code)


def end_with_sweep() -> None:
    """In a job of a multirun: stop as on SIGTERM when the process of the multirun has ended, for any reason."""
    if sweep := os.environ.pop(_OF_SWEEP, None):  # removed, because processes started by this one are not jobs
        threading.Thread(target=_watch, args=(int(sweep),), daemon=True, name="watch-sweep").start()


def _watch(sweep: int) -> None:
    while os.getppid() == sweep:
        time.sleep(_LOOK_EVERY)
    os.kill(os.getpid(), signal.SIGTERM)


here: Multirun | None = None
"""The multirun of this process; None in a process that one of Hydra's launchers started for a job."""
