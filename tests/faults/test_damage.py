"""Checkpoints that have rotted: the newest valid one wins, and it is said; with none left the run is refused."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.bit_equality import assert_equal
from tests.faults.disturbed_runs import ACCUMULATION, SMALL_RUN, SOAK, Run, soak_only, some
from tests.run_files import contents, saved_steps

Runs = Callable[..., Run]
Damage = Callable[[Path], Any]


def truncated_to(share: float) -> Damage:
    return lambda path: path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def flipped_at(place: float) -> Damage:
    """A bit, at a share of its length."""

    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[int(place * (len(content) - 1))] ^= 1 << random.Random(place).randrange(8)
        path.write_bytes(content)

    return flip


def manifest_says(change: Callable[[dict[str, Any]], Any]) -> Damage:
    def damage(path: Path) -> None:
        manifest = path.with_suffix(".json")
        manifest.write_text(json.dumps(change(json.loads(manifest.read_text()))))

    return damage


DAMAGES: dict[str, Damage] = {
    "truncated to 0 %": truncated_to(0),
    "truncated to 1 %": truncated_to(0.01),
    "truncated to 50 %": truncated_to(0.5),
    "truncated to 99 %": truncated_to(0.99),
    "one byte flipped": flipped_at(0.5),
    "first byte flipped": flipped_at(0),
    "last byte flipped": flipped_at(1),
    **{f"byte flipped at {place:.0%}": flipped_at(place) for place in (0.01, 0.27, 0.73, 0.99)},
    "a byte too many": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "manifest missing": lambda path: path.with_suffix(".json").unlink(),
    "manifest empty": lambda path: path.with_suffix(".json").write_text(""),
    "manifest of zeros": lambda path: path.with_suffix(".json").write_bytes(bytes(140)),
    "manifest a list": manifest_says(lambda manifest: [manifest]),
    "manifest of another file": manifest_says(lambda manifest: manifest | {"sha256": "0" * 64}),
    "manifest without a hash": manifest_says(lambda manifest: {"size": manifest["size"]}),
}
OF_THE_FAST = ("one byte flipped",)


@pytest.fixture(scope="module")
def begun(nursery: Any, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that was stopped in step 23, with checkpoints of the steps 15, 20 and 23."""
    run = Run(nursery, tmp_path_factory.mktemp("begun"), [*SMALL_RUN, f"data_dir={tiny_data}"])
    life = run.live(faults=[("send", {"signal_name": "SIGTERM", "micro_batch": 22 * ACCUMULATION})])
    assert life.codes == [143], life.output
    assert saved_steps(run.path) == [15, 20, 23]
    return run


def copied(begun: Run, run: Run, *, saved: int) -> Run:
    """The begun run once more, where `run` is to be; it has lost its checkpoints after that of step `saved`."""
    shutil.copytree(begun.path, run.path)
    run.lives = [begun.lives[0].leaving(saved)]
    return run


@pytest.mark.parametrize("damage", DAMAGES if SOAK else OF_THE_FAST)
def test_the_newest_is_damaged(begun: Run, new_run: Runs, straight: Runs, damage: str) -> None:
    run = copied(begun, new_run(), saved=20)
    newest = run.checkpoints / "step_00000023.pt"
    DAMAGES[damage](newest)
    content = newest.read_bytes()
    life = run.finish()
    assert f"{newest} does not match its manifest, or has none: skipped, and renamed to .damaged" in life.output
    assert "continuing after step 20" in life.output
    assert newest.with_suffix(".damaged").read_bytes() == content
    assert saved_steps(run.path) == [30, 35, 40]
    assert_equal(run, straight())


@soak_only
def test_the_two_newest_are_damaged(begun: Run, new_run: Runs, straight: Runs) -> None:
    run = copied(begun, new_run(), saved=15)
    for step in (20, 23):
        flipped_at(0.3)(run.checkpoints / f"step_{step:08d}.pt")
    life = run.finish()
    assert life.output.count("or has none: skipped") == 2
    assert "continuing after step 15" in life.output
    assert_equal(run, straight())


@pytest.mark.parametrize("damage", some(["one byte flipped", "truncated to 0 %", "manifest missing"], fast=1))
def test_all_three_are_damaged(begun: Run, new_run: Runs, damage: str) -> None:
    """It does not begin again: it says which files it found, changes nothing, and says so again the next time."""
    run = copied(begun, new_run(), saved=0)
    for path in run.checkpoints.glob("*.pt"):
        DAMAGES[damage](path)
    before = contents(run.path)
    for plain in (False, bool(SOAK)):
        life = run.live(plain=plain)
        assert life.codes == [1]
        assert "all checkpoints in" in life.output
        assert all(f"step_{step:08d}.pt" in life.output for step in (15, 20, 23))
        assert len(life.output.splitlines()) == 1
        assert life.diet == []
        assert contents(run.path) == before


@soak_only
def test_an_undamaged_copy_put_back_is_gone_on_from(begun: Run, new_run: Runs, straight: Runs) -> None:
    run = copied(begun, new_run(), saved=20)
    for path in run.checkpoints.glob("*.pt"):
        truncated_to(0.5)(path)
    assert run.live().codes == [1]
    shutil.copy(begun.checkpoints / "step_00000020.pt", run.checkpoints)
    run.lives[-1] = run.lives[-1].leaving(20)
    assert "continuing after step 20" in run.finish().output
    assert_equal(run, straight())


@soak_only
@pytest.mark.parametrize("gone", ["*.pt", "*"])
def test_all_three_are_gone(begun: Run, new_run: Runs, gone: str) -> None:
    run = copied(begun, new_run(), saved=0)
    for path in run.checkpoints.glob(gone):
        path.unlink()
    before = contents(run.path)
    life = run.live()
    assert life.codes == [1]
    assert len(life.output.splitlines()) == 1
    assert life.diet == []
    assert contents(run.path) == before
