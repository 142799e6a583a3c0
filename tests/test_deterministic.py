"""What decides the last bits of a run: `trainer.deterministic`, and what environment.json records of the machine."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from gpt_lightning.device_and_precision import deterministic_algorithms
from running.commands.train import train
from tests.run_files import as_if_killed, final_weights, same_bits

Config = Callable[..., dict[str, Any]]


def flags() -> tuple[object, ...]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark,
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    )


class SeesFlags(L.Callback):
    """Keeps the flags of each step."""

    seen: list[tuple[object, ...]] = []  # noqa: RUF012

    def on_train_batch_end(self, *_: Any) -> None:
        self.seen.append(flags())


@pytest.mark.parametrize("workspace", [None, ":16:8"])
def test_flags_are_as_before_afterwards(workspace: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if workspace:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", workspace)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = flags()
    with deterministic_algorithms(False):
        assert flags() == before
    with suppress(ZeroDivisionError), deterministic_algorithms(True):
        assert flags() == (True, False, False, False, ":4096:8")
        raise ZeroDivisionError
    assert flags() == before


def test_a_deterministic_run_is_one_all_along(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It trains, validates, samples and saves without an operation that torch refuses, and it may become one at a resume."""
    monkeypatch.setattr("running.training.build.SkippedStepLog", SeesFlags)
    monkeypatch.setattr(SeesFlags, "seen", [])
    before = flags()
    train(tiny_config("name=plain"))
    assert set(SeesFlags.seen) == {before}
    SeesFlags.seen.clear()
    run = as_if_killed(tmp_path / "runs" / "plain", tmp_path / "again", after=8)
    config = (run / "config.yaml").read_text()
    assert "deterministic: false\n" in config
    # as a version wrote it that did not know the setting
    (run / "config.yaml").write_text(config.replace("  deterministic: false\n", ""))
    train(tiny_config(f"name={run.name}", f"runs_dir={run.parent}", "trainer.deterministic=true"))
    assert {seen[0] for seen in SeesFlags.seen} == {True}
    assert flags() == before
    assert same_bits(final_weights(run), final_weights(tmp_path / "runs" / "plain"))


def test_another_arithmetic_is_said_at_a_resume(
    tiny_config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny_config("name=run"))
    run = as_if_killed(tmp_path / "runs" / "run", tmp_path / "other", after=8)
    path = run / "environment.json"
    environment = json.loads(path.read_text())
    recorded = environment["arithmetic"]
    assert recorded["threads"] == torch.get_num_threads()
    assert recorded["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    path.write_text(json.dumps(environment | {"arithmetic": recorded | {"threads": 77, "cpu_capability": "AVX2"}}))
    capsys.readouterr()
    train(tiny_config("name=run", f"runs_dir={run.parent}"))
    said = capsys.readouterr().out
    assert f"changed from here on: arithmetic.threads={torch.get_num_threads()}, was 77" in said
    assert json.loads(path.read_text())["arithmetic"] == recorded
    changes = json.loads((run / "changes.jsonl").read_text().splitlines()[-1])["changes"]
    assert changes["arithmetic.threads"] == [77, torch.get_num_threads()]


def test_what_an_older_version_did_not_record_has_not_changed(
    tiny_config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny_config("name=run"))
    run = as_if_killed(tmp_path / "runs" / "run", tmp_path / "other", after=8)
    path = run / "environment.json"
    environment = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in environment.items() if key != "arithmetic"}))
    capsys.readouterr()
    train(tiny_config("name=run", f"runs_dir={run.parent}"))
    assert "changed" not in capsys.readouterr().out
    assert json.loads(path.read_text())["arithmetic"] == environment["arithmetic"]
