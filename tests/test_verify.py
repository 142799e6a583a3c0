"""verify.py: a run that is moved while it runs is the run it would have been, and a difference does not escape it."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from running.commands import verify
from running.config.compose import compose_config
from running.config.run_config import RunConfig
from running.training import replay_evidence
from running.training.prepared_data import open_sources
from running.training.replay_evidence import ReplayEvidence, compare_evidence, read_evidence
from tests.conftest import ROOT, TINY
from tests.run_files import saved_steps

WORKERS, RANKS = "other workers", "other ranks, micro-batch and workers"
FOLDERS = ("straight", "other_workers", "other_ranks_micro-batch_and_workers")
Read = Callable[[str], ReplayEvidence]


def config_of(data_dir: Path, runs: Path, *more: str) -> dict[str, Any]:
    options = ["name=tiny", "verify.steps=4", "verify.workers=1", "trainer.accelerator=cpu"]
    return compose_config(
        "verify", [*TINY, "model.dropout=0", *options, f"data_dir={data_dir}", f"runs_dir={runs}", *more]
    )


@pytest.fixture(scope="module")
def runs(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where verify.py trained, and found all to be the same."""
    runs = tmp_path_factory.mktemp("runs")
    results = verify.verify(config_of(tiny_data, runs))
    (runs / "results.json").write_text(json.dumps({name: asdict(result) for name, result in results.items()}))
    return runs


@pytest.fixture(scope="module")
def read(runs: Path, tiny_data: Path) -> Read:
    """What one of its runs left behind, read again."""
    config = config_of(tiny_data, runs)
    _, sources = open_sources(RunConfig.of(config))
    return lambda folder: read_evidence(runs / "tiny_verify" / folder, sources)


def test_a_moved_run_is_the_run_it_would_have_been(runs: Path) -> None:
    results = json.loads((runs / "results.json").read_text())
    assert list(results) == [WORKERS, RANKS]
    assert all((result["first_difference"], result["sequences"]) == (None, 4 * 8) for result in results.values())
    assert results[WORKERS]["losses"] == results[WORKERS]["weights"] == 0
    assert results[RANKS]["losses"] <= 1e-5
    assert results[RANKS]["weights"] < 1e-3


def test_so_is_one_that_muon_trains(tiny_data: Path, tmp_path: Path) -> None:
    """But for the rounding of bf16: more than that of fp32, and far less than another sequence would make."""
    results = verify.verify(config_of(tiny_data, tmp_path, "optimizer=muon", "schedule=wsd"))
    assert results[WORKERS].losses == results[WORKERS].weights == 0
    assert 0 < results[RANKS].losses <= 1e-4


def test_the_runs_were_killed_and_went_on_from_half_of_their_steps(runs: Path) -> None:
    """What the first start did beyond its checkpoint the second did again, with the same sequences."""
    for folder, ranks in zip(FOLDERS, (1, 1, 2), strict=True):
        run = runs / "tiny_verify" / folder
        starts = [
            [json.loads(line) for line in path.read_text().splitlines()] for path in sorted((run / "diet").iterdir())
        ]
        if folder == "straight":
            assert [row[0] for row in starts[0]] == list(range(32))
            continue
        killed, *resumed = starts
        assert len(resumed) == ranks
        again = sorted((row for start in resumed for row in start), key=lambda row: row[0])
        assert [row[0] for row in again] == list(range(16, 32))
        assert [row[0] for row in killed] == list(range(len(killed)))
        assert 24 < len(killed) < 32
        assert killed[16:] == again[: len(killed) - 16]
        assert saved_steps(run) == [2, 4]


def test_the_evidence_of_its_runs_compares_as_it_said(runs: Path, read: Read) -> None:
    results = json.loads((runs / "results.json").read_text())
    straight, *others = map(read, FOLDERS)
    assert [asdict(compare_evidence(straight, other)) for other in others] == list(results.values())


@pytest.mark.parametrize("place", [0, 17, 31])
def test_one_other_sequence_is_noticed(runs: Path, read: Read, place: int) -> None:
    """In what lies on the disk: another checksum, another place of the source, another source."""
    (path,) = (runs / "tiny_verify" / "straight" / "diet").iterdir()
    content = path.read_text()
    straight = read("straight")
    for column, value in ((3, 1), (2, 32), (1, "pydoc")):
        rows = [json.loads(line) for line in content.splitlines()]
        rows[place][column] = value
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        try:
            assert compare_evidence(straight, read("straight")).first_difference == place
        finally:
            path.write_text(content)


def test_a_missing_sequence_is_noticed(runs: Path, read: Read) -> None:
    (path,) = (runs / "tiny_verify" / "straight" / "diet").iterdir()
    content = path.read_text()
    lines = content.splitlines(keepends=True)
    straight = read("straight")
    try:
        path.write_text("".join(lines[:-1]))
        assert compare_evidence(straight, read("straight")).first_difference == 31
        path.write_text("".join(lines[:5] + lines[6:]))
        with pytest.raises(ValueError, match="the sample order log has gaps: 31 sequences, the last with number 31"):
            read("straight")
    finally:
        path.write_text(content)


def test_one_other_loss_and_one_other_weight_are_noticed(read: Read) -> None:
    straight = read("straight")
    same = compare_evidence(straight, straight)
    assert (same.first_difference, same.losses, same.weights) == (None, 0, 0)
    for wrong, noticed in ((straight.losses[2] * (1 + 1e-4), 1e-4), (math.nan, math.inf)):
        losses = [*straight.losses[:2], wrong, *straight.losses[3:]]
        assert compare_evidence(straight, replace(straight, losses=losses)).losses == pytest.approx(noticed)
    for name in (next(iter(straight.weights)), next(reversed(straight.weights))):
        for wrong in (1e-6, math.nan):
            weight = straight.weights[name].clone()
            weight.view(-1)[-1] += wrong
            other = replace(straight, weights=straight.weights | {name: weight})
            assert compare_evidence(straight, other).weights > 0


@pytest.mark.parametrize("folder", FOLDERS[1:])
def test_a_run_that_is_another_fails(
    runs: Path, read: Read, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """verify.py over the runs that lie there, with one bit of a weight, or a ten-thousandth of a loss, that is not as it was."""
    evidence = {name: read(name) for name in FOLDERS}
    monkeypatch.setattr(verify, "_train", lambda *args, **options: None)
    monkeypatch.setattr(replay_evidence, "read_evidence", lambda run, sources: evidence[run.name])
    config = config_of(tiny_data, tmp_path)
    verify.verify(config)
    name = next(iter(evidence[folder].weights))
    weight = evidence[folder].weights[name].clone()
    weight.view(torch.int32).view(-1)[0] ^= 1
    evidence[folder] = replace(
        evidence[folder],
        weights=evidence[folder].weights | {name: weight},
        losses=[loss * (1 if folder == "other_workers" else 1.0001) for loss in evidence[folder].losses],
    )
    with pytest.raises(ValueError, match=r"a run that resumes with other .* differs from the uninterrupted run"):
        verify.verify(config)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("verify.steps=2", r"verify\.steps is 2: it must be a whole number, 4 or more"),
        ("verify.steps=0", r"verify\.steps is 0: it must be a whole number, 4 or more"),
        ("verify.devices=0", r"verify\.devices is 0: it must be a whole number, 1 or more"),
        ("verify.devices=3", r"global_batch=8 sequences cannot be divided .* on each of 3 ranks"),
        ("verify.micro_batch=3", r"global_batch=8 sequences cannot be divided into micro-batches of micro_batch=3"),
        ("verify.workers=-1", r"verify\.workers is -1: it must be a whole number, 0 or more"),
        ("model.dropout=0.2", r"model\.dropout is 0\.2: dropout draws depend on how the global batch is split"),
        ("branch.run=somewhere", r"verify\.py always trains from step 0"),
        ("micro_batch=3", r"global_batch=8 sequences cannot be divided"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(
    tiny_data: Path, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        verify.verify(config_of(tiny_data, tmp_path, override))
    assert len(str(refusal.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_wrong_settings_are_refused_before_torch_is_imported() -> None:
    program = (
        "import sys; from running.commands.verify import verify; from running.config.compose import compose_config\n"
        "for wrong in sys.argv[1:]:\n"
        "    try: verify(compose_config('verify', ['experiment=quickstart', wrong]))\n"
        "    except ValueError as error: assert wrong.partition('=')[0] in str(error), error\n"
        "    else: raise AssertionError(wrong)\n"
        "assert 'torch' not in sys.modules"
    )
    wrong = ["verify.steps=3", "verify.devices=0", "verify.workers=-1", "model.dropout=0.2", "micro_batch=7"]
    done = subprocess.run(
        [sys.executable, "-c", program, *wrong], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_more_ranks_than_gpus_are_refused(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(
        ValueError, match=r"verify\.devices is 2, but this process sees 1 CUDA devices: set verify\.devices=1, or"
    ):
        verify.verify(config_of(tiny_data, tmp_path, "trainer.accelerator=auto"))
    assert not list(tmp_path.iterdir())
