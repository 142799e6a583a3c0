"""A run that goes on with another curriculum: only what is still to come may change, and what did is written down."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from data_modules import SourceShards
from running.commands.train import train
from tests.conftest import TINY, composed
from tests.run_files import (
    WITH_DIET,
    as_if_killed,
    contents,
    diet,
    final_checkpoint,
    final_weights,
    metrics,
    same_bits,
    saved_steps,
)

T, GLOBAL_BATCH = 32, 8
SOURCES = ("readmes", "stdlib", "pydoc", "docstrings")
# of 12 steps the keyframe switch lies at 4.8 and settled at 8.4
RUN = [*TINY, "name=run", "curriculum.max_epochs={pydoc:9,docstrings:9}", WITH_DIET]
SETTLED = "curriculum.keyframes.settled.weights."
LATER = [f"{SETTLED}stdlib=2"]  # readmes 0.2, pydoc 0.3, docstrings 0.3; stdlib was 0.2


def config_of(data_dir: Path, runs: Path, *more: str) -> dict[str, Any]:
    return composed([*RUN, f"data_dir={data_dir}", f"runs_dir={runs}", *more])


def changes_of(run: Path) -> list[dict[str, Any]]:
    path = run / "changes.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope="module")
def straight(scarce_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose curriculum nobody changed."""
    runs = tmp_path_factory.mktemp("straight")
    train(config_of(scarce_data, runs))
    return runs / "run"


@pytest.fixture(scope="module")
def changed(straight: Path, scarce_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, killed after step 4 and gone on with another weight of its last keyframe."""
    runs = tmp_path_factory.mktemp("changed")
    as_if_killed(straight, runs, after=4)
    train(config_of(scarce_data, runs, *LATER))
    return runs / "run"


def test_a_later_weight_may_change_and_the_change_is_written_down(straight: Path, changed: Path) -> None:
    key = "curriculum.keyframes.settled.weights.stdlib"
    assert changes_of(changed) == [{"after_step": 4, "changes": {key: [0.2, 2]}}]
    then, now = (OmegaConf.load(run / "config.yaml") for run in (straight, changed))
    assert OmegaConf.select(now, key) == 2
    OmegaConf.update(then, key, 2)
    then.runs_dir, then.run_dir, then.sweep_dir = now.runs_dir, now.run_dir, now.sweep_dir
    assert now == then
    assert not changes_of(straight)


def test_the_new_weights_hold_from_the_change_on_and_not_before(straight: Path, changed: Path) -> None:
    assert metrics(changed)[:2] == metrics(straight)[:2]
    assert diet(changed) != diet(straight, after=4 * GLOBAL_BATCH)
    last = metrics(changed)[-1]
    assert {s: last[f"mix/planned/{s}"] for s in SOURCES} == pytest.approx(
        {"readmes": 0.2 / 2.8, "stdlib": 2 / 2.8, "pydoc": 0.3 / 2.8, "docstrings": 0.3 / 2.8}, abs=1e-6
    )
    assert all(abs(row[f"mix/drift/{source}"]) < 2 for row in metrics(changed) for source in SOURCES)
    assert saved_steps(changed) == [4, 8, 12]


def test_no_sequence_comes_twice_before_its_epoch_is_over(straight: Path, changed: Path, scarce_data: Path) -> None:
    first = [sequence for place, sequence in diet(straight).items() if place < 4 * GLOBAL_BATCH]
    whole = [*first, *diet(changed).values()]
    assert len(whole) == 12 * GLOBAL_BATCH
    most = 0
    for end in range(GLOBAL_BATCH, len(whole) + 1, GLOBAL_BATCH):
        for name in SOURCES:
            starts = SourceShards(scarce_data / "bpe_512" / name).train.sequences(T, whole=True)[:-1].tolist()
            drawn = Counter(start for source, start, _ in whole[:end] if source == name)
            times = [drawn[start] for start in starts]
            assert max(times) - min(times) <= 1, (end // GLOBAL_BATCH, name)
            most = max(most, *times)
    assert most > 1  # there was an epoch to be over


def test_a_change_survives_a_further_kill(changed: Path, scarce_data: Path, tmp_path: Path) -> None:
    """Killed after step 8 and gone on with the new command; its checkpoint lists both curricula."""
    run = as_if_killed(changed, tmp_path, after=8)
    curricula = final_checkpoint(run)["diet"]["curricula"]
    assert [(entry["from_step"], entry["steps"]) for entry in curricula] == [(0, 12), (4, 12)]
    weights = [entry["curriculum"]["keyframes"]["settled"]["weights"]["stdlib"] for entry in curricula]
    assert weights == [0.2, 2]
    train(config_of(scarce_data, tmp_path, *LATER))
    assert metrics(run) == metrics(changed)
    assert diet(run) == diet(changed, after=8 * GLOBAL_BATCH)
    assert same_bits(final_weights(run), final_weights(changed))
    assert changes_of(run) == changes_of(changed)


def test_a_change_survives_a_kill_before_its_first_checkpoint(
    straight: Path, changed: Path, scarce_data: Path, tmp_path: Path
) -> None:
    """Killed after step 4 twice: config.yaml already says the new curriculum, the checkpoint only the old one."""
    run = as_if_killed(changed, tmp_path, after=4)
    assert len(final_checkpoint(run)["diet"]["curricula"]) == 1
    train(config_of(scarce_data, tmp_path, *LATER))
    assert metrics(run) == metrics(changed)
    assert diet(run) == diet(changed)
    assert changes_of(run) == changes_of(changed)


def test_the_old_command_takes_a_change_back_as_long_as_nothing_was_trained_by_it(
    straight: Path, changed: Path, scarce_data: Path, tmp_path: Path
) -> None:
    """After step 4 it may, which is a change as any other; after step 8 it would change what is done."""
    run = as_if_killed(changed, tmp_path / "early", after=4)
    train(config_of(scarce_data, tmp_path / "early"))
    assert metrics(run) == metrics(straight)
    assert same_bits(final_weights(run), final_weights(straight))
    key = "curriculum.keyframes.settled.weights.stdlib"
    assert changes_of(run) == [{"after_step": 4, "changes": {key: pair}} for pair in ([0.2, 2], [2, 0.2])]
    late = as_if_killed(changed, tmp_path / "late", after=8)
    before = contents(late)
    with pytest.raises(
        ValueError, match=r"8 steps are done, but at step 5 \(keyframes switch to settled\) the weight of"
    ):
        train(config_of(scarce_data, tmp_path / "late"))
    assert contents(late) == before


def test_a_run_that_is_done_has_no_other_curriculum(straight: Path, scarce_data: Path) -> None:
    with pytest.raises(
        ValueError, match=r"is done: 12 steps with curriculum\.max_epochs\.pydoc=9, and no steps remain"
    ):
        train(config_of(scarce_data, straight.parent, "curriculum.max_epochs.pydoc=8"))


@pytest.mark.parametrize(
    ("after", "override", "where"),
    [
        (
            8,
            f"{SETTLED}stdlib=2",
            r"at step 5 \(keyframes switch to settled\) the weight of stdlib would be 0\.\d+ and was",
        ),
        (4, "curriculum.keyframes.switch.weights.pydoc=0.5", r"at step 1 \(keyframes start to switch\) the weight of"),
        (4, "curriculum.keyframes.switch.at=0.3", r"at step 1 \(keyframes start to switch\) the weight of"),
        (
            4,
            "curriculum.interpolation=step",
            r"at step 1 \(keyframe start\) the weight of readmes would be 0\.5 and was",
        ),
        (4, "+curriculum.keyframes.start.weights.docstrings=1", r"at step 0 .* the weight of docstrings would be 0\.5"),
        (
            4,
            "curriculum.keyframes.start.weights.stdlib=0",
            r"at step 0 .* the weight of readmes would be 1 and was 0\.5",
        ),
        (4, "curriculum=constant", r"at step 0|at step 1"),
        (4, "+curriculum.replay.stdlib=0.9", r"at step 0 .* the weight of readmes would be 0\.1 and was 0\.5"),
    ],
)
def test_a_change_of_what_is_done_is_refused_in_one_sentence(
    straight: Path, scarce_data: Path, tmp_path: Path, after: int, override: str, where: str
) -> None:
    run = as_if_killed(straight, tmp_path, after=after)
    before = contents(run)
    with pytest.raises(ValueError, match=where) as refusal:
        train(config_of(scarce_data, tmp_path, override))
    assert str(refusal.value).startswith(f"curriculum: {after} steps are done, but at step ")
    assert str(refusal.value).endswith("change later weights only, or start a new run with name=….")
    assert len(str(refusal.value).splitlines()) == 1
    assert contents(run) == before


def test_before_its_first_checkpoint_a_run_may_change_everything_of_its_curriculum(
    straight: Path, scarce_data: Path, tmp_path: Path
) -> None:
    run = as_if_killed(straight, tmp_path / "killed", after=0)
    other = ["curriculum=abrupt", "curriculum.mixes.base={readmes:1,stdlib:0}"]
    train(config_of(scarce_data, tmp_path / "killed", *other))
    train(config_of(scarce_data, tmp_path / "fresh", *other))
    assert metrics(run) == metrics(tmp_path / "fresh" / "run")
    assert same_bits(final_weights(run), final_weights(tmp_path / "fresh" / "run"))
    assert [entry["after_step"] for entry in changes_of(run)] == [0]
    assert "curriculum.interpolation" in changes_of(run)[0]["changes"]


def test_a_limit_set_later_counts_what_was_drawn_before(straight: Path, scarce_data: Path, tmp_path: Path) -> None:
    """Weights stay as they were; what the run may still draw of a source is what its first 4 steps left."""
    n = SourceShards(scarce_data / "bpe_512" / "pydoc").train.n_sequences(T)
    run = as_if_killed(straight, tmp_path, after=4)
    first = [source for place, (source, _, _) in diet(straight).items() if place < 4 * GLOBAL_BATCH]
    limit = "curriculum.max_epochs.pydoc=0.25"
    assert 0 < first.count("pydoc") < n // 4
    with pytest.raises(ValueError, match=r"curriculum\.max_epochs\.pydoc is 0\.25, and the plan draws"):
        train(config_of(scarce_data, tmp_path, limit))
    train(config_of(scarce_data, tmp_path, limit, "curriculum.on_exhausted=redistribute"))
    later = [source for source, _, _ in diet(run).values()]
    assert first.count("pydoc") + later.count("pydoc") == n // 4
    assert changes_of(run)[0]["changes"]["curriculum.max_epochs.pydoc"] == [9, 0.25]


def test_a_branchs_own_steps_alone_are_its_past(straight: Path, scarce_data: Path, tmp_path: Path) -> None:
    """Its keyframe start lies in the trunk, which had weights of its own; switch governs steps 7 to 11, settled the rest."""
    branch = [f"branch.run={straight}", "branch.step=8", "name=tail", "max_steps=16", "curriculum.interpolation=step"]
    train(config_of(scarce_data, tmp_path, *branch))
    run = as_if_killed(tmp_path / "tail", tmp_path / "killed", after=12)
    with pytest.raises(ValueError, match=r"12 steps are done, but at step 8 \(keyframe switch\) the weight of pydoc"):
        train(config_of(scarce_data, tmp_path / "killed", *branch, "curriculum.keyframes.switch.weights.pydoc=1"))
    train(config_of(scarce_data, tmp_path / "killed", *branch, "curriculum.keyframes.start.weights.stdlib=3", *LATER))
    assert [entry["from_step"] for entry in final_checkpoint(run)["diet"]["curricula"]] == [0, 8, 12]
    assert diet(run) != diet(tmp_path / "tail", after=12 * GLOBAL_BATCH)
    assert changes_of(run)[0]["after_step"] == 12
