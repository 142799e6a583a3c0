"""A run of 40 steps that is started, disturbed and started again, and what each of its lives left behind."""

import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from gpt_lightning.checkpoint_folder import newest_valid_checkpoint
from tests.conftest import TINY
from tests.faults.training_processes import PATIENCE, Fault, Nursery, Shell, Victim
from tests.run_files import WITH_DIET

STEPS, GLOBAL_BATCH, ACCUMULATION, SAVED_EVERY = 40, 8, 2, 5
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
SOAK = os.environ.get("GPT_LIGHTNING_SOAK", "")  # "": the fast selection of make test; all; hour


soak_only = pytest.mark.skipif(not SOAK, reason="make soak runs it, and more cases of what runs here")


def some(cases: Sequence[Any], *, fast: int) -> list[Any]:
    """All cases in a soak; else so many of them, evenly spread."""
    return list(cases) if SOAK else [cases[n * len(cases) // fast] for n in range(fast)]


@dataclass(frozen=True)
class Life:
    """One start of a run, from its first step to its end."""

    codes: list[int]  # by rank
    output: str
    diet: list[list[Any]]  # rows of SampleOrderLog, of each rank in the order that it was given them
    saved: int  # the step of the newest valid checkpoint that it left
    seconds: float

    def leaving(self, saved: int) -> "Life":
        """The same, but that only the checkpoint of an earlier step is still there."""
        return replace(self, saved=saved)


class Run:
    """A run in a folder of its own, that is started as often as a test wants."""

    def __init__(self, nursery: Nursery, folder: Path, overrides: Sequence[str], *, ranks: int = 1) -> None:
        self.nursery, self.folder = nursery, folder
        self.path = folder / "runs" / "run"
        self.overrides = [*overrides, "name=run", f"runs_dir={folder / 'runs'}"]
        self.ranks = ranks
        """Of its next life."""
        self.strategy = "ddp"
        """Of several ranks: ddp or fsdp."""
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
        plain: bool = False,
    ) -> list[Victim]:
        """Start it; of several ranks each is a victim, and the faults act on those that are named.

        Args:
            more: settings.
            faults: functions of fault_injection.py.
            on_ranks: which of the ranks they act on; None: on all.
            environment: variables that are set.
            plain: start the program itself and not a fork of the nursery.
        """
        launched = _launched(self.ranks)
        parallel = [f"trainer={self.strategy}", f"micro_batch={GLOBAL_BATCH // ACCUMULATION // self.ranks}"]
        afflicted = range(self.ranks) if on_ranks is None else on_ranks
        return [
            (Shell() if plain else self.nursery).bear(
                [*self.overrides, *(parallel if self.ranks > 1 else ()), *more],
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
    """A line of SampleOrderLog; None for a last one that was torn."""
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
