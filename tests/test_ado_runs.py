"""Runs whose weights follow their losses: killed and gone on with, repeated from their record, on two ranks, and refused."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from data_modules.order.ado import AdoPolicy
from gpt_lightning.checkpoint_folder import checkpoint_path
from running.commands.plan import plan
from running.commands.train import train
from running.commands.verify import verify
from running.config.compose import compose_config
from tests.conftest import TINY, composed
from tests.faults.bit_equality import assert_equal
from tests.run_files import WITH_DIET, as_if_killed, diet, final_checkpoint, metrics
from tests.training_starts import begin, end, killed

# of 12 steps weights are updated at 4, 6, 8 and 10, and checkpoints saved at 4, 8 and 12
RUN = [*TINY, "name=run", "curriculum=ado", "curriculum.ado.every=2", "curriculum.ado.warmup=0.3"]
RUN += ["callbacks.checkpoints.keep=9", "trainer.accelerator=cpu", "trainer.precision=32-true"]
SOURCES = {"readmes", "stdlib", "pydoc", "docstrings"}


def places(data_dir: Path, runs: Path) -> list[str]:
    return [*RUN, f"data_dir={data_dir}", f"runs_dir={runs}"]


def config_of(data_dir: Path, runs: Path, *more: str) -> dict[str, Any]:
    return composed([*places(data_dir, runs), WITH_DIET, *more])


def updates_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "mix_weights.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def straight(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in one go."""
    runs = tmp_path_factory.mktemp("straight")
    train(config_of(tiny_data, runs))
    return runs / "run"


def test_every_update_is_recorded_and_trained_by(straight: Path) -> None:
    rows = updates_of(straight)
    assert [row["step"] for row in rows] == [4, 6, 8, 10]
    assert all(set(row["weights"]) == set(row["loss"]) == set(row["fit"]) == SOURCES for row in rows)
    assert len({json.dumps(row["weights"]) for row in rows}) == len(rows)
    planned = {row["step"]: {s: row[f"mix/planned/{s}"] for s in SOURCES} for row in metrics(straight)}
    even = dict.fromkeys(SOURCES, 0.25)  # the base and the target half each, until the warm-up is over
    used = [even, even, *(row["weights"] for row in rows)]  # ledger rows are of two steps, as updates are
    assert [planned[step] for step in range(2, 13, 2)] == [pytest.approx(weights, abs=1e-6) for weights in used]
    (entry,) = final_checkpoint(straight)["diet"]["curricula"]
    assert entry["updates"] == [[row["step"], row["weights"]] for row in rows]


def assert_losses_are_those_of_the_training(run: Path) -> None:
    """Of all sources together, by their loss-bearing tokens, what the run logged of the same steps, over all ranks."""
    state = final_checkpoint(run)["losses_by_source"]
    nats, bearing = state["sums"].sum(dim=2).T  # (points,), one step each
    assert state["steps"].tolist() == [[step, 1] for step in range(12)]
    for row in metrics(run):
        assert (nats / bearing)[row["step"] - 1].item() == pytest.approx(row["train/loss"], rel=1e-6)


def test_the_recorded_losses_are_those_of_the_training(straight: Path) -> None:
    assert_losses_are_those_of_the_training(straight)


def test_a_killed_run_makes_the_same_updates(straight: Path, tiny_data: Path, tmp_path: Path) -> None:
    """SIGKILL in step 8: after the update of step 6, which the newest checkpoint, of step 4, does not know. The file has
    the name that earlier versions gave it."""
    killed([*places(tiny_data, tmp_path), WITH_DIET], at=7 * 2 + 1)
    run = tmp_path / "run"
    assert [row["step"] for row in updates_of(run)] == [4, 6]
    (run / "mix_weights.jsonl").rename(run / "weights.jsonl")
    train(config_of(tiny_data, tmp_path))
    assert not (run / "mix_weights.jsonl").exists()
    assert (run / "weights.jsonl").read_bytes() == (straight / "mix_weights.jsonl").read_bytes()
    assert_equal(SimpleNamespace(path=run), SimpleNamespace(path=straight), diet=False)  # type: ignore[arg-type]


def test_a_run_repeated_from_the_record_trains_on_the_same(straight: Path, tiny_data: Path, tmp_path: Path) -> None:
    """With dropout and another micro-batch its losses are others, and so its own updates would be; and workers may read ahead."""
    record = f"curriculum.ado.record={straight / 'mix_weights.jsonl'}"
    train(config_of(tiny_data, tmp_path, record, "micro_batch=8", "data.workers=1"))
    run = tmp_path / "run"
    assert diet(run) == diet(straight)
    ours, theirs = updates_of(run), updates_of(straight)
    assert [row["weights"] for row in ours] == [row["weights"] for row in theirs]
    assert [row["loss"] for row in ours] != [row["loss"] for row in theirs]
    assert [row["train/loss"] for row in metrics(run)] != [row["train/loss"] for row in metrics(straight)]


def test_two_ranks_make_one_update(straight: Path, tiny_data: Path, tmp_path: Path) -> None:
    """Dropout is another on them, and so are the losses; until the first update they train on the same."""
    answer = end(begin([*places(tiny_data, tmp_path), WITH_DIET, "trainer=ddp", "trainer.devices=2"]))
    assert answer.returncode == 0, answer.stderr
    run = tmp_path / "run"
    assert_losses_are_those_of_the_training(run)
    given = diet(run)
    assert sorted(given) == list(range(12 * 8))  # by one order: every place of the run once
    assert {p: row for p, row in given.items() if p < 4 * 8} == {
        p: row for p, row in diet(straight).items() if p < 4 * 8
    }
    assert [row["step"] for row in updates_of(run)] == [4, 6, 8, 10]


def test_a_half_gathered_point_outlives_a_kill(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Points of three steps, an update every four, and a checkpoint every five: that of step 5 lies in the middle of a point."""
    monkeypatch.setattr(AdoPolicy, "ends_point", lambda ado, step, *, begun: step - begun == 3 or step % ado.every == 0)
    more = ["curriculum.ado.every=4", "callbacks.checkpoints.every=5", "curriculum.ado.warmup=0.1"]
    train(config_of(tiny_data, tmp_path / "whole", *more))
    whole = tmp_path / "whole" / "run"
    steps = final_checkpoint(whole)["losses_by_source"]["steps"]
    assert steps.tolist() == [[0, 3], [3, 1], [4, 3], [7, 1], [8, 3], [11, 1]]
    run = as_if_killed(whole, tmp_path, after=5)
    train(config_of(tiny_data, tmp_path, *more))
    assert [row["step"] for row in updates_of(run)] == [4, 8]
    assert (run / "mix_weights.jsonl").read_bytes() == (whole / "mix_weights.jsonl").read_bytes()
    assert_equal(SimpleNamespace(path=run), SimpleNamespace(path=whole), diet=False)  # type: ignore[arg-type]


def test_an_update_may_come_in_the_middle_of_a_point(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The point of steps 4 to 6 is open at the checkpoint of step 5, from which the run goes on with an update every step."""
    monkeypatch.setattr(AdoPolicy, "ends_point", lambda ado, step, *, begun: step - begun == 3 or step % ado.every == 0)
    more = ["callbacks.checkpoints.every=5", "curriculum.ado.warmup=0.1"]
    train(config_of(tiny_data, tmp_path / "whole", *more, "curriculum.ado.every=4", "max_steps=5"))
    run = as_if_killed(tmp_path / "whole" / "run", tmp_path, after=5)
    train(config_of(tiny_data, tmp_path, *more, "curriculum.ado.every=1"))
    rows = updates_of(run)
    assert [row["step"] for row in rows] == [4, *range(6, 12)]
    assert final_checkpoint(run)["losses_by_source"]["steps"].tolist()[:4] == [[0, 3], [3, 1], [4, 2], [6, 1]]
    assert any(loss is not None for loss in rows[1]["loss"].values())


# ── what changes on the way ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_longer_run_goes_on_from_the_weights_it_has(straight: Path, tiny_data: Path, tmp_path: Path) -> None:
    run = as_if_killed(straight, tmp_path, after=12)
    train(config_of(tiny_data, tmp_path, "max_steps=16"))
    first, second = final_checkpoint(run)["diet"]["curricula"]
    assert [entry["from_step"] for entry in (first, second)] == [0, 12]
    assert second["updates"][0] == [12, first["updates"][-1][1]]
    assert [row["step"] for row in updates_of(run)] == [4, 6, 8, 10, 14]


def test_weights_that_are_no_longer_to_follow_are_the_users_again(
    straight: Path, tiny_data: Path, tmp_path: Path
) -> None:
    run = as_if_killed(straight, tmp_path, after=8)
    train(config_of(tiny_data, tmp_path, "curriculum.ado=null"))
    assert [row["step"] for row in updates_of(run)] == [4, 6, 8]
    last = metrics(run)[-1]
    assert {s: last[f"mix/planned/{s}"] for s in SOURCES} == pytest.approx(dict.fromkeys(SOURCES, 0.25))


def test_a_branch_goes_on_with_the_updates_of_its_trunk(straight: Path, tiny_data: Path, tmp_path: Path) -> None:
    branch = [f"branch.run={straight}", "branch.step=8", "name=tail", f"runs_dir={tmp_path}"]
    train(config_of(tiny_data, tmp_path, *branch))
    assert diet(tmp_path / "tail") == diet(straight, after=8 * 8)
    assert [row["step"] for row in updates_of(tmp_path / "tail")] == [10]


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


def edited(straight: Path, folder: Path, edit: Any) -> str:
    rows = updates_of(straight)
    edit(rows)
    path = folder / "mix_weights.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"curriculum.ado.record={path}"


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (
            lambda rows: rows.pop(1),
            r"record=.* has no weights for step 6, .*; it has steps 4, 8, 10: set",
        ),
        (
            lambda rows: rows[2]["weights"].pop("pydoc"),
            "has weights of readmes, stdlib, docstrings, but this run trains",
        ),
        (
            lambda rows: rows[0]["weights"].update(pydoc=0.5),
            r"record=.*, step 4: the weights are .* they must be shares of",
        ),
        (lambda rows: rows[0].update(weights=3), "has no weights for step 4"),
    ],
)
def test_a_record_of_another_run_is_refused(
    straight: Path, tiny_data: Path, tmp_path: Path, edit: Any, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        train(config_of(tiny_data, tmp_path, edited(straight, tmp_path, edit)))
    assert not (tmp_path / "run").exists()


def test_a_record_that_is_none_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"curriculum\.ado\.record=nowhere: the file does not exist"):
        train(config_of(tiny_data, tmp_path, "curriculum.ado.record=nowhere"))


def test_a_record_is_taken_up_by_a_run_that_made_the_same_updates(
    straight: Path, tiny_data: Path, tmp_path: Path
) -> None:
    run = as_if_killed(straight, tmp_path, after=8)

    def later(rows: list[dict[str, Any]]) -> None:
        rows[3]["weights"] = {source: float(source == "pydoc") for source in rows[3]["weights"]}

    def earlier(rows: list[dict[str, Any]]) -> None:
        rows[2]["weights"] = {source: 0.25 for source in rows[2]["weights"]}

    with pytest.raises(ValueError, match=r"has other weights for step 8 than this run, which has completed 8 steps"):
        train(config_of(tiny_data, tmp_path, edited(straight, tmp_path, earlier)))
    train(config_of(tiny_data, tmp_path, edited(straight, tmp_path, later)))
    assert metrics(run)[-1]["mix/planned/pydoc"] == pytest.approx(1.0)


def test_plan_says_that_it_is_the_plan_of_the_prior(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], straight: Path
) -> None:
    def said(*more: str) -> str:
        plan(compose_config("plan", [*places(tiny_data, tmp_path), *more]))
        return capsys.readouterr().out

    assert "weights       ADO updates them every 2 steps from step 4; this plan uses the initial mix" in said()
    assert "ADO updates them" not in said(f"curriculum.ado.record={straight / 'mix_weights.jsonl'}")
    planned = json.loads((tmp_path / "run" / "plan.json").read_text())["sources"]
    drawn = {name: row["sequences"] for name, row in planned.items()}
    assert drawn == dict(Counter(source for source, *_ in diet(straight).values()))  # of a record all is known


def test_verify_wants_a_record(tiny_data: Path, tmp_path: Path) -> None:
    config = compose_config("verify", [*places(tiny_data, tmp_path), "model.dropout=0"])
    with pytest.raises(ValueError, match=r"verify\.py needs curriculum\.ado\.record"):
        verify(config)


def test_workers_that_read_ahead_are_refused(tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.workers is 2, but with curriculum\.ado the next batch depends on"):
        train(config_of(tiny_data, tmp_path, "data.workers=2"))


@pytest.mark.parametrize("updates", [3, [[5, {}]], [[4, {"readmes": 1.0}]], [["4"]], [[4, 1]]])
def test_updates_that_a_stranger_made_up_are_refused(
    straight: Path, tiny_data: Path, tmp_path: Path, updates: Any
) -> None:
    run = as_if_killed(straight, tmp_path, after=4)
    path = checkpoint_path(run / "checkpoints", 4)
    content = torch.load(path, weights_only=True)
    content["diet"]["curricula"][0]["updates"] = updates
    torch.save(content, path)
    manifest = json.loads(path.with_suffix(".json").read_text())
    manifest |= {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "size": path.stat().st_size}
    path.with_suffix(".json").write_text(json.dumps(manifest))
    with pytest.raises(
        ValueError, match=r"cannot be read|it must be 4, the step of the next update|they must be shares of"
    ):
        train(config_of(tiny_data, tmp_path))
