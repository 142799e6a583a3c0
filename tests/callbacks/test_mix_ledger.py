"""The ledger's rows against a count by hand: what the order names, read from the shards."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_modules import SampleOrder, SourceShards
from data_modules.batch import Batch
from data_modules.mixed_data_module import MixedDataModule
from running.commands.train import train
from running.config.run_config import RunConfig
from running.training.builders import build_sample_order
from running.training.resume import ResumePoint
from tests.conftest import TINY, composed
from tests.run_files import as_if_killed, final_checkpoint, final_weights, metrics, same_bits

T, GLOBAL_BATCH, STEPS, EVERY = 32, 8, 12, 3
SOURCES = ("readmes", "stdlib", "pydoc", "docstrings")
RUN = [*TINY, "name=run", f"log_every={EVERY}", "callbacks.samples.every=12"]  # a checkpoint every 4 steps
KINDS = {"planned", "realised", "planned_loss_bearing", "realised_loss_bearing", "epochs", "drift", "tokens"}


def config_of(data_dir: Path, runs: Path, *more: str) -> dict[str, Any]:
    return composed([*RUN, f"data_dir={data_dir}", f"runs_dir={runs}", *more])


@pytest.fixture(scope="module")
def run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of three sources whose every token bears loss, and one with masks."""
    runs = tmp_path_factory.mktemp("runs")
    train(config_of(tiny_data, runs))
    return runs / "run"


@pytest.fixture(scope="module")
def order(tiny_data: Path) -> SampleOrder:
    config = RunConfig.of(config_of(tiny_data, Path("nowhere")))
    sequences = {name: shards(tiny_data, name).train.n_sequences(T) for name in SOURCES}
    return build_sample_order(config, config.curriculum, sequences, ResumePoint(None, 0, None, False))


def shards(data_dir: Path, source: str) -> SourceShards:
    return SourceShards(data_dir / "bpe_512" / source)


def drawn(order: SampleOrder, source: str, begin: int, end: int) -> list[int]:
    """The sequences that steps `begin` to `end` - 1 draw of a source."""
    located = map(order.locate, range(begin * GLOBAL_BATCH, end * GLOBAL_BATCH))
    return [sequence for name, _, sequence in located if name == source]


def loss_bearing(data_dir: Path, source: str, sequences: list[int]) -> int:
    stream = shards(data_dir, source).train
    borders = stream.sequences(T, whole=True)
    return sum(int(stream.read_mask(borders[j], borders[j + 1]).sum()) for j in sequences)


def test_a_row_says_seven_things_of_every_source(run: Path) -> None:
    rows = metrics(run)
    assert [row["step"] for row in rows if "tokens" in row] == [3, 6, 9, 12]
    for row in rows:
        expected = {f"mix/{kind}/{source}" for kind in KINDS for source in SOURCES} if "tokens" in row else set()
        assert {key for key in row if key.startswith("mix/")} == expected


def test_what_is_realised_is_what_the_order_names(run: Path, order: SampleOrder, tiny_data: Path) -> None:
    """Sequences and loss-bearing tokens since the row before, passes and tokens since the run began."""
    for row in (row for row in metrics(run) if "tokens" in row):
        step = row["step"]
        recent = {source: drawn(order, source, step - EVERY, step) for source in SOURCES}
        bearing = {source: loss_bearing(tiny_data, source, recent[source]) for source in SOURCES}
        assert bearing["docstrings"] < len(recent["docstrings"]) * T or not recent["docstrings"]
        for source in SOURCES:
            sequences = row[f"mix/realised/{source}"] * GLOBAL_BATCH * EVERY
            assert sequences == pytest.approx(len(recent[source]), abs=1e-9)
            share = bearing[source] / sum(bearing.values())
            assert row[f"mix/realised_loss_bearing/{source}"] == pytest.approx(share, rel=1e-12)
            so_far = len(drawn(order, source, 0, step))
            assert row[f"mix/epochs/{source}"] == so_far / order.sequences[source]
            assert row[f"mix/tokens/{source}"] == so_far * T
        assert row["tokens"] == step * GLOBAL_BATCH * T == sum(row[f"mix/tokens/{source}"] for source in SOURCES)


def test_what_is_planned_follows_the_weights(run: Path, order: SampleOrder, tiny_data: Path) -> None:
    """Of the steps since the row before; of loss-bearing tokens by what a sequence of each source has on average."""
    mean = {s: loss_bearing(tiny_data, s, list(range(n))) / n for s, n in order.sequences.items()}
    assert mean["docstrings"] < mean["pydoc"] == T
    for row in (row for row in metrics(run) if "tokens" in row):
        steps = np.arange(row["step"])
        weights = order.curriculum.weights_at(steps)
        recent = dict(zip(order.curriculum.sources, weights[-EVERY:].mean(axis=0).tolist(), strict=True))
        total = dict(zip(order.curriculum.sources, weights.sum(axis=0).tolist(), strict=True))
        bearing = {source: recent[source] * mean[source] for source in SOURCES}
        for source in SOURCES:
            assert row[f"mix/planned/{source}"] == pytest.approx(recent[source], abs=1e-6)
            share = bearing[source] / sum(bearing.values())
            assert row[f"mix/planned_loss_bearing/{source}"] == pytest.approx(share, abs=1e-6)
            ahead = row[f"mix/tokens/{source}"] / T - total[source] * GLOBAL_BATCH
            assert row[f"mix/drift/{source}"] == pytest.approx(ahead, abs=1e-5)
            assert abs(row[f"mix/drift/{source}"]) < 2


@pytest.mark.parametrize("after", [4, 8])
def test_its_totals_survive_a_kill_between_two_rows(run: Path, tiny_data: Path, tmp_path: Path, after: int) -> None:
    assert after % EVERY
    killed = as_if_killed(run, tmp_path, after=after)
    ledger = final_checkpoint(killed)["ledger"]
    assert sum(sequences for sequences, _ in ledger["seen"].values()) == after * GLOBAL_BATCH
    assert sum(sequences for sequences, _ in ledger["logged"].values()) == after // EVERY * EVERY * GLOBAL_BATCH
    train(config_of(tiny_data, tmp_path))
    assert metrics(killed) == metrics(run)
    assert final_checkpoint(killed)["ledger"] == final_checkpoint(run)["ledger"]


def test_it_does_not_matter_to_the_training_how_often_it_is_kept(run: Path, tiny_data: Path, tmp_path: Path) -> None:
    train(config_of(tiny_data, tmp_path, "callbacks.mix_ledger.every=1"))
    often = [row for row in metrics(tmp_path / "run") if "tokens" in row]
    assert [row["step"] for row in often] == list(range(1, STEPS + 1))
    assert same_bits(final_weights(tmp_path / "run"), final_weights(run))
    assert final_checkpoint(tmp_path / "run")["ledger"]["seen"] == final_checkpoint(run)["ledger"]["seen"]


def test_a_batch_that_the_order_does_not_name_ends_the_run(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sequence of one micro-batch of the third step is said to come from another source."""
    served = 0

    def once_wrong(module: MixedDataModule, batch: Batch, dataloader_idx: int) -> Batch:
        nonlocal served
        served += 1
        if served != 6:
            return batch
        other = (batch.sources[:1] + 1) % len(module.sources)
        return batch._replace(sources=torch.cat([other, batch.sources[1:]]))

    monkeypatch.setattr(MixedDataModule, "on_before_batch_transfer", once_wrong)
    with pytest.raises(
        RuntimeError,
        match=r"at step 3, \d+ sequences of \w+ were trained on: the sample order has \d+, with [\d.]+ due",
    ):
        train(config_of(tiny_data, tmp_path))
    assert not list(tmp_path.rglob("*.pt"))
