"""Real training processes that can be disturbed: the nursery that forks them, victims, and a run that lives several times."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from gpt_lightning.checkpoint_folder import newest_valid_checkpoint
from tests.conftest import ROOT, TINY
from tests.runs import WITH_DIET

Fault = tuple[str, dict[str, Any]]
STEPS, GLOBAL_BATCH, ACCUMULATION, SAVED_EVERY = 40, 8, 4, 5
MICRO_BATCHES = STEPS * ACCUMULATION
SMALL_RUN = [
    *TINY,  # dropout
    f"global_batch={GLOBAL_BATCH}",
    f"micro_batch={GLOBAL_BATCH // ACCUMULATION}",
    f"max_steps={STEPS}",
    "log_every=1",
    "val_every=10",
    "callbacks.samples.every=10",
    f"callbacks.checkpoints.every={SAVED_EVERY}",
    "trainer.accelerator=cpu",
    WITH_DIET,
    # three sources, whose weights change from step 16 to step 28
    *(f"~curriculum.keyframes.{keyframe}.weights.stdlib" for keyframe in ("start", "switch", "settled")),
]
TWO_RANKS = ["trainer.devices=2", "trainer.strategy=ddp", f"micro_batch={GLOBAL_BATCH // ACCUMULATION // 2}"]
SOAK = os.environ.get("GPT_LIGHTNING_SOAK", "")  # "": the fast selection of make test; all; hour
PATIENCE = 120.0  # seconds for a victim to end; most take three where nothing else runs


def some(cases: Sequence[Any], *, fast: int) -> list[Any]:
    """All cases in a soak; else so many of them, evenly spread."""
    return list(cases) if SOAK else [cases[n * len(cases) // fast] for n in range(fast)]


class Nursery:
    """The forking process of nursery.py."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nursery"],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},  # no threads: it is going to be forked
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._codes: dict[int, int] = {}
        self._hear(until=lambda answer: "born" in answer, timeout=PATIENCE)

    def bear(
        self, arguments: Sequence[str], *, folder: Path, faults: Iterable[Fault] = (), environment: Any = None
    ) -> "Victim":
        """Start `python train.py <arguments>`; its output goes into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for stream in ("stdout", "stderr"):
            (folder / stream).touch()
        request = {"arguments": list(arguments), "folder": str(folder), "environment": environment or {}}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request | {"faults": list(faults)}) + "\n")
        self._process.stdin.flush()
        return Victim(self, self._hear(until=lambda answer: "born" in answer, timeout=PATIENCE)["born"], folder)

    def code_of(self, pid: int, *, timeout: float) -> int | None:
        """How a victim ended, as subprocess says it: its exit code, or minus the signal; None: it lives."""
        if pid not in self._codes:
            self._hear(until=lambda answer: answer.get("dead") == pid, timeout=timeout)
        return self._codes.get(pid)

    def close(self) -> None:
        """End it, and all victims with it."""
        self._process.communicate(timeout=PATIENCE)

    def _hear(self, *, until: Callable[[dict[str, int]], bool], timeout: float) -> dict[str, int]:
        """Its next answer of a kind; what it says of other victims is kept."""
        assert self._process.stdout is not None
        stop = time.monotonic() + timeout
        while select.select([self._process.stdout], [], [], max(0.0, stop - time.monotonic()))[0]:
            answer: dict[str, int] = json.loads(self._process.stdout.readline())
            if "dead" in answer:
                self._codes[answer["dead"]] = os.waitstatus_to_exitcode(answer["status"])
            if until(answer):
                return answer
        return {}


@dataclass
class Victim:
    """A training process."""

    nursery: Nursery
    pid: int
    folder: Path

    @property
    def output(self) -> str:
        """What it has said so far, on both of its streams."""
        return "".join((self.folder / name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))

    def lives(self) -> bool:
        return self.nursery.code_of(self.pid, timeout=0) is None

    def send(self, signal_number: int) -> None:
        """To it alone; nothing if it has ended already."""
        if self.lives():
            os.kill(self.pid, signal_number)

    def send_to_group(self, signal_number: int) -> None:
        """To it and to all that it started."""
        if self.lives():
            os.killpg(self.pid, signal_number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Its exit code, or minus the signal that ended it; a victim that hangs says where and is killed."""
        code = self.nursery.code_of(self.pid, timeout=timeout)
        if code is None:
            os.kill(self.pid, signal.SIGUSR2)
            time.sleep(0.5)
            self.send_to_group(signal.SIGKILL)
            self.nursery.code_of(self.pid, timeout=PATIENCE)
            pytest.fail(f"it still lived after {timeout:g} s:\n{self.output[-6000:]}")
        return code

    def wait_until(self, happened: Callable[[], Any], *, every: float = 0.002, patience: float = PATIENCE) -> None:
        """Until something is so, or it has ended."""
        stop = time.monotonic() + patience
        while not happened() and self.lives() and time.monotonic() < stop:
            time.sleep(every)


@dataclass(frozen=True)
class Life:
    """One start of a run, from its first step to its end."""

    codes: list[int]  # by rank
    output: str
    diet: list[list[Any]]  # rows of DietLog, of each rank in the order that it was given them
    saved: int  # the step of the newest valid checkpoint that it left
    seconds: float

    def leaving(self, saved: int) -> "Life":
        """The same, but that only the checkpoint of an earlier step is still there."""
        return replace(self, saved=saved)


class Run:
    """A run in a folder of its own, that is started as often as a test wants."""

    def __init__(self, nursery: Nursery, folder: Path, overrides: Sequence[str], *, ranks: int = 1) -> None:
        self.nursery, self.folder, self.ranks = nursery, folder, ranks
        self.path = folder / "runs" / "run"
        self.overrides = [*overrides, *(TWO_RANKS if ranks == 2 else ()), "name=run", f"runs_dir={folder / 'runs'}"]
        self.lives: list[Life] = []

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def begin(
        self,
        *more: str,
        faults: Iterable[Fault] = (),
        on_ranks: Iterable[int] | None = None,
        environment: dict[str, str] | None = None,
    ) -> list[Victim]:
        """Start it; of several ranks each is a victim, and the faults act on those that are named."""
        launched = _launched(self.ranks)
        afflicted = range(self.ranks) if on_ranks is None else on_ranks
        return [
            self.nursery.bear(
                [*self.overrides, *more],
                folder=self.folder / f"life{len(self.lives)}_rank{rank}",
                faults=faults if rank in afflicted else (),
                environment=launched[rank] | (environment or {}),
            )
            for rank in range(self.ranks)
        ]

    def live(
        self,
        *more: str,
        meanwhile: Callable[[list[Victim]], None] | None = None,
        timeout: float = PATIENCE,
        **how: Any,
    ) -> Life:
        """Start it, let something happen to it, wait for its end, and look at what it left."""
        diet = self.path / "diet"
        before = set(diet.glob("*"))
        began = time.monotonic()
        victims = self.begin(*more, **how)
        if meanwhile:
            meanwhile(victims)
        codes = [victim.wait(timeout) for victim in victims]
        seconds = time.monotonic() - began
        rows = [_row(line) for path in sorted({*diet.glob("*")} - before) for line in path.read_text().splitlines()]
        output = "".join(victim.output for victim in victims)
        life = Life(codes, output, [row for row in rows if row], newest(self.checkpoints), seconds)
        self.lives.append(life)
        return life

    def finish(self, *more: str, **how: Any) -> Life:
        """Start it for the last time: it must get to its end."""
        life = self.live(*more, **how)
        assert life.codes == [0] * self.ranks, life.output[-4000:]
        return life


def leftovers(run: Run) -> list[str]:
    """What only an interrupted save leaves: temporary files, and manifests without their files."""
    orphans = [path.name for path in run.checkpoints.glob("*.json") if not path.with_suffix(".pt").exists()]
    return [path.name for path in run.checkpoints.glob(".*")] + orphans


def newest(checkpoints: Path) -> int:
    """The step of the newest valid checkpoint; 0: there is none."""
    path = newest_valid_checkpoint(checkpoints)
    return int(path.stem.removeprefix("step_")) if path else 0


def _row(line: str) -> list[Any] | None:
    """A line of DietLog; None for a last one that was torn."""
    try:
        row: list[Any] = json.loads(line)
    except ValueError:
        return None
    return row


def _launched(ranks: int) -> list[dict[str, str]]:
    """What torchrun would tell each rank."""
    if ranks == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "GROUP_RANK": "0"}
    world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": str(port)}
    return [world | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]
