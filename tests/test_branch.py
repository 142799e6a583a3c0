"""A run that begins inside another one: it goes on from the trunk's weights and from its place in every source."""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from data_modules import SourceShards
from data_modules.shards.shard_files import read_source_json, with_checksum
from gpt_lightning.checkpoint_folder import SAVED_STEPS_FILE
from gpt_lightning.optim import learning_rate_schedule
from running.commands.train import train
from running.config.compose import compose_config
from running.config.run_config import RunConfig
from tests.conftest import TINY
from tests.run_files import (
    WITH_DIET,
    Sequence,
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
TRUNK = [*TINY, "curriculum=gradual", "curriculum.mixes.base={readmes:0,stdlib:1}", WITH_DIET]  # 12 steps
# readmes, which the trunk never had, and no more stdlib, which was most of it; from step 14 on pydoc and docstrings too
OTHER = ["curriculum=anneal", "curriculum.mixes.base={readmes:1,stdlib:0}", "max_steps=16", "log_every=1"]
BOTH = ["curriculum=constant", "curriculum.mixes.base={readmes:0.5,stdlib:0.5}", "max_steps=16"]
Branch = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def trunk(scarce_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With dropout; stdlib alone at first, then pydoc and docstrings more and more."""
    runs = tmp_path_factory.mktemp("runs")
    train(compose_config("train", [*TRUNK, "name=trunk", f"data_dir={scarce_data}", f"runs_dir={runs}"]))
    return runs / "trunk"


@pytest.fixture(scope="module")
def branch(trunk: Path, scarce_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Branch:
    """`branch("name=a", …)`: the config of a run that begins after the trunk's step 8, with further settings."""
    runs = tmp_path_factory.mktemp("tails")
    options = [*TRUNK, f"data_dir={scarce_data}", f"runs_dir={runs}", f"branch.run={trunk}", "branch.step=8"]
    return lambda *more: compose_config("train", [*options, *more])


@pytest.fixture(scope="module")
def tail(trunk: Path, branch: Branch) -> Path:
    """A branch with another curriculum and another length."""
    config = branch("name=tail", *OTHER)
    before = contents(trunk)
    train(config)
    assert contents(trunk) == before, "a branch wrote into its trunk"
    return Path(config["run_dir"])


def joined(trunk: Path, step: int, tail: Path) -> list[Sequence]:
    """What the model of a branch was given since the trunk began."""
    first = [sequence for place, sequence in diet(trunk).items() if place < step * GLOBAL_BATCH]
    whole = [*first, *diet(tail).values()]
    assert min(diet(tail)) == step * GLOBAL_BATCH
    return whole


def assert_none_comes_twice(whole: list[Sequence], data_dir: Path) -> None:
    """After every step: no sequence of a source was drawn again before all the others of its epoch were."""
    borders = {name: SourceShards(data_dir / "bpe_512" / name).train.sequences(T, whole=True)[:-1] for name in SOURCES}
    for end in range(GLOBAL_BATCH, len(whole) + 1, GLOBAL_BATCH):
        for name, starts in borders.items():
            drawn = Counter(start for source, start, _ in whole[:end] if source == name)
            assert set(drawn) <= set(starts.tolist())
            times = [drawn[start] for start in starts.tolist()]
            assert max(times) - min(times) <= 1, (end // GLOBAL_BATCH, name)


@pytest.mark.parametrize("step", [4, 8])
def test_a_branch_with_its_trunks_settings_is_its_trunk(trunk: Path, branch: Branch, step: int) -> None:
    config = branch(f"name=same_{step}", f"branch.step={step}")
    train(config)
    same = Path(config["run_dir"])
    assert metrics(same) == metrics(trunk, after=step)
    assert diet(same) == diet(trunk, after=step * GLOBAL_BATCH)
    assert same_bits(final_weights(same), final_weights(trunk))
    ours, theirs = final_checkpoint(same), final_checkpoint(trunk)
    assert (ours["ledger"], ours["diet"]) == (theirs["ledger"], theirs["diet"])
    assert saved_steps(same) == list(range(step + 4, 13, 4))


def test_trunk_and_tail_repeat_nothing_before_its_epoch_is_over(trunk: Path, tail: Path, scarce_data: Path) -> None:
    whole = joined(trunk, 8, tail)
    assert len(whole) == 16 * GLOBAL_BATCH
    assert {source for source, _, _ in diet(tail).values()} == {"readmes", "pydoc", "docstrings"}
    drawn = Counter(source for source, _, _ in whole)
    n = {name: SourceShards(scarce_data / "bpe_512" / name).train.n_sequences(T) for name in SOURCES}
    assert min(drawn["stdlib"] / n["stdlib"], drawn["readmes"] / n["readmes"]) > 1  # there were epochs to be over
    assert_none_comes_twice(whole, scarce_data)


def test_the_ledger_goes_on_from_its_trunks_totals(trunk: Path, tail: Path) -> None:
    whole = joined(trunk, 8, tail)
    at_first = Counter(source for source, _, _ in whole[: 8 * GLOBAL_BATCH])
    rows = metrics(tail)
    assert [row["step"] for row in rows] == list(range(9, 17))
    for row in rows:
        step = row["step"]
        drawn = Counter(source for source, _, _ in whole[: step * GLOBAL_BATCH])
        assert row["tokens"] == step * GLOBAL_BATCH * T
        assert {source: row[f"mix/tokens/{source}"] for source in SOURCES} == {s: drawn[s] * T for s in SOURCES}
        assert all(abs(row[f"mix/drift/{source}"]) < 2 for source in SOURCES)
        planned = {"readmes": 1.0} if step <= 15 else {"readmes": 0.3, "pydoc": 0.35, "docstrings": 0.35}
        for source in SOURCES:
            assert row[f"mix/planned/{source}"] == pytest.approx(planned.get(source, 0), abs=1e-6)
            due = at_first[source] + GLOBAL_BATCH * sum(
                planned.get(source, 0) if s == 16 else (source == "readmes") for s in range(9, step + 1)
            )
            assert row[f"mix/drift/{source}"] == pytest.approx(drawn[source] - due, abs=1e-5)


def test_the_row_across_the_branching_plans_what_both_curricula_plan(trunk: Path, branch: Branch) -> None:
    """A trunk that was last logged at step 6, and its tail at step 9."""
    runs = Path(branch("name=x")["runs_dir"])
    every = ["log_every=3", "curriculum.max_epochs={}"]
    train(branch("name=trunk_3", *every, "branch.run=null", "branch.step=null"))
    config = branch("name=across", *OTHER, *every, f"branch.run={runs}/trunk_3")
    train(config)
    row = metrics(Path(config["run_dir"]))[0]
    assert row["step"] == 9
    whole = joined(trunk, 8, Path(config["run_dir"]))
    recent = Counter(source for source, _, _ in whole[6 * GLOBAL_BATCH : 9 * GLOBAL_BATCH])
    curriculum = RunConfig.of(branch("name=x")).curriculum.resolve(steps=12, tokens_per_step=GLOBAL_BATCH * T)
    weights = [curriculum.weights(6), curriculum.weights(7), {"readmes": 1.0}]
    for source in SOURCES:
        planned = sum(weight.get(source, 0) for weight in weights) / 3
        assert row[f"mix/planned/{source}"] == pytest.approx(planned, abs=1e-6)
        assert row[f"mix/realised/{source}"] == pytest.approx(recent[source] / 24, abs=1e-12)


def test_the_learning_rate_is_that_of_the_tails_own_schedule(trunk: Path, tail: Path) -> None:
    config = OmegaConf.load(tail / "config.yaml")
    expected = learning_rate_schedule(steps=16, **config.schedule)
    for row in metrics(tail):
        assert row["train/lr"] == pytest.approx(config.optimizer.lr * expected(row["step"] - 1))
    at_ten = next(row for row in metrics(trunk) if row["step"] == 10)
    assert at_ten["train/lr"] < 0.9 * next(row["train/lr"] for row in metrics(tail) if row["step"] == 10)


def test_the_tail_says_where_it_branched_off(trunk: Path, tail: Path) -> None:
    checkpoint = trunk / "checkpoints" / "step_00000008.pt"
    environment = json.loads((tail / "environment.json").read_text())
    sha256 = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert environment["branched_from"] == {"checkpoint": str(checkpoint), "step": 8, "sha256": sha256}
    assert set(environment["data"]) == set(SOURCES)
    both = final_checkpoint(tail)["diet"]["curricula"]
    assert [(entry["from_step"], entry["steps"]) for entry in both] == [(0, 12), (8, 16)]


@pytest.mark.parametrize("after", [0, 12])
def test_a_killed_branch_goes_on_by_the_same_command(
    trunk: Path, tail: Path, branch: Branch, tmp_path: Path, after: int
) -> None:
    """Killed before its own first checkpoint, it begins at its trunk again."""
    run = as_if_killed(tail, tmp_path, after=after)
    before = contents(trunk)
    train(branch("name=tail", *OTHER, f"runs_dir={tmp_path}"))
    assert metrics(run) == metrics(tail)
    assert diet(run) == diet(tail, after=after * GLOBAL_BATCH)
    assert same_bits(final_weights(run), final_weights(tail))
    assert saved_steps(run) == saved_steps(tail) == [12, 16]
    assert (run / "environment.json").read_bytes() == (tail / "environment.json").read_bytes()
    assert contents(trunk) == before


def test_equal_branches_are_equal(tail: Path, branch: Branch) -> None:
    config = branch("name=twin", *OTHER, "data.workers=1")
    train(config)
    twin = Path(config["run_dir"])
    assert metrics(twin) == metrics(tail)
    assert diet(twin) == diet(tail)
    assert same_bits(final_weights(twin), final_weights(tail))


def test_a_branch_of_a_branch_counts_what_both_have_drawn(
    trunk: Path, tail: Path, branch: Branch, scarce_data: Path
) -> None:
    config = branch("name=twig", *BOTH, "max_steps=20", f"branch.run={tail}", "branch.step=12")
    train(config)
    twig = Path(config["run_dir"])
    whole = [*joined(trunk, 8, tail)[: 12 * GLOBAL_BATCH], *diet(twig).values()]
    assert min(diet(twig)) == 12 * GLOBAL_BATCH
    assert len(whole) == 20 * GLOBAL_BATCH
    assert_none_comes_twice(whole, scarce_data)
    curricula = final_checkpoint(twig)["diet"]["curricula"]
    assert [(entry["from_step"], entry["steps"]) for entry in curricula] == [(0, 12), (8, 16), (12, 20)]
    assert all(abs(row[f"mix/drift/{source}"]) < 2 for row in metrics(twig) for source in SOURCES if "tokens" in row)


def test_a_limit_of_epochs_counts_what_the_trunk_has_drawn(trunk: Path, branch: Branch, scarce_data: Path) -> None:
    """The tail alone would draw little more than one epoch of stdlib; the trunk had drawn more than two."""
    n = SourceShards(scarce_data / "bpe_512" / "stdlib").train.n_sequences(T)
    of_trunk = sum(source == "stdlib" for place, (source, _, _) in diet(trunk).items() if place < 8 * GLOBAL_BATCH)
    assert of_trunk + 32 > 3 * n > of_trunk > 32
    limited = [*BOTH, "+curriculum.max_epochs.stdlib=3"]
    drawn = (of_trunk + 32) / n
    with pytest.raises(ValueError, match=rf"max_epochs\.stdlib is 3, and the plan draws {drawn:.2f} epochs of it"):
        train(branch("name=refused", *limited))
    config = branch("name=limited", *limited, "curriculum.on_exhausted=redistribute")
    train(config)
    whole = joined(trunk, 8, Path(config["run_dir"]))
    assert Counter(source for source, _, _ in whole)["stdlib"] == 3 * n
    assert_none_comes_twice(whole, scarce_data)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["branch.run=nowhere"], r"branch\.run=nowhere is not a run: it must be the folder"),
        (["branch.step=7"], r"branch\.step is 7, but .*checkpoints has checkpoints of steps 4, 8, 12: choose one"),
        (["branch.step=8.0"], r"branch\.step is 8\.0: it must be a whole number, 0 or more, or null"),
        (["branch.step=null"], r"branch\.step is not given, but .* of steps 4, 8, 12"),
        (["branch.run=null"], r"branch\.step is 8, but branch\.run is not set"),
        (["max_steps=8"], r"branch\.step is 8: it must be below max_steps=8"),
        (["init_from=anywhere"], r"init_from and branch\.run both set the initial weights"),
        (
            ["model.n_layers=3"],
            r"model\.n_layers is 3, but .* was trained with 2: set it back, because a branch must keep the model",
        ),
        (["tokenizer.name=gpt2"], r"tokenizer\.name is gpt2, but .* was trained with bpe_512"),
        (
            ["base_width=64"],
            r"base_width is 64, but .* was trained with None: set it back, because a branch must keep the model",
        ),
        (["optimizer.lr=1e-4"], r"optimizer\.lr is 0\.0001, but .* was trained with 0\.002"),
        (["seed=7"], r"seed is 7, but .* was trained with 1337"),
        (["global_batch=4"], r"global_batch is 4, but .* was trained with 8"),
    ],
)
def test_what_is_no_branch_is_refused_before_anything_is_written(
    branch: Branch, overrides: list[str], message: str
) -> None:
    config = branch("name=refused", *overrides)
    with pytest.raises(ValueError, match=message) as refusal:
        train(config)
    assert len(str(refusal.value).splitlines()) == 1
    assert not Path(config["run_dir"]).exists()


def test_a_damaged_trunk_is_refused(trunk: Path, branch: Branch, tmp_path: Path) -> None:
    copy = as_if_killed(trunk, tmp_path, after=12)
    with (copy / "checkpoints" / "step_00000008.pt").open("r+b") as file:
        file.seek(2000)
        file.write(b"dust")
    config = branch("name=refused", f"branch.run={copy}")
    with pytest.raises(ValueError, match=r"step_00000008\.pt does not match its manifest"):
        train(config)
    assert not Path(config["run_dir"]).exists()
    train(branch("name=older", f"branch.run={copy}", "branch.step=4", "max_steps=6"))


def test_a_trunk_of_other_data_is_refused(branch: Branch, scarce_data: Path, tmp_path: Path) -> None:
    """Also where only the trunk was trained on them."""
    data_dir = tmp_path / "data"
    shutil.copytree(scarce_data, data_dir)
    folder = data_dir / "bpe_512" / "stdlib"
    information = read_source_json(folder)
    information["splits"]["train"]["shards"][0]["sha256"]["tokens_0000.npy"] = "0" * 64
    (folder / "source.json").write_text(json.dumps(with_checksum(information)))
    config = branch("name=refused", *OTHER, f"data_dir={data_dir}")
    with pytest.raises(ValueError, match=r"source stdlib has changed since .*step_00000008\.pt was started"):
        train(config)
    assert not Path(config["run_dir"]).exists()


def test_a_branch_begins_again_only_at_the_same_trunk(trunk: Path, branch: Branch, tmp_path: Path) -> None:
    """Killed before its first checkpoint, and by then its trunk is another run of the same name."""
    copy = as_if_killed(trunk, tmp_path, after=12)
    config = branch("name=begun", f"branch.run={copy}", "max_steps=10")
    run = Path(config["run_dir"])
    for _ in range(2):
        train(config)
        shutil.rmtree(run / "checkpoints")
        (run / SAVED_STEPS_FILE).unlink()
    shutil.rmtree(copy)
    train(branch("name=trunk", f"runs_dir={tmp_path}", "gradient_clip=0.1", "branch.run=null", "branch.step=null"))
    with pytest.raises(ValueError, match=r"branched off from .*, which has changed since"):
        train(config)
