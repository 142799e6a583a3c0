"""Batches: the order's sequences, whole and once, however they are cut."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from data_modules import Curriculum, SampleOrder, SourceShards
from data_modules.batch import Batch
from data_modules.batch_settings import BatchSettings
from data_modules.mixed_data_module import MixedDataModule
from data_modules.sequence_reader import document_borders
from gpt_lightning.tokenizer import load_tokenizer

T = 32
WEIGHTS = {"readmes": 0.4, "docstrings": 0.4, "stdlib": 0.2}


def make_module(
    data_dir: Path, *, micro_batch: int = 2, weights: dict[str, float] = WEIGHTS, **options: Any
) -> MixedDataModule:
    sources = {name: SourceShards(data_dir / "bpe_512" / name) for name in weights}
    curriculum = Curriculum(keyframes={"all": {"at": 0, "weights": weights}}).resolve(steps=6, tokens_per_step=8 * T)
    order = SampleOrder(
        curriculum, sequences={n: len(s.train) // T for n, s in sources.items()}, global_batch=8, seed=5
    )
    tokenizer = load_tokenizer(data_dir / "bpe_512")
    arguments: dict[str, Any] = {"val_sequences": None, "workers": 0}
    batches = BatchSettings(max_seq_len=T, micro_batch=micro_batch, **arguments | options)
    return MixedDataModule(sources=sources, order=order, tokenizer=tokenizer, batches=batches)


def training_batches(
    module: MixedDataModule, n: int, *, rank: int = 0, world_size: int = 1, step: int = 0
) -> list[Batch]:
    module.trainer = SimpleNamespace(world_size=world_size, global_rank=rank, global_step=step)  # type: ignore[assignment]
    iterator = iter(module.train_dataloader())
    return [next(iterator) for _ in range(n)]


def joined(batches: list[Batch]) -> list[torch.Tensor]:
    fields = [values for values in zip(*batches, strict=True) if values[0] is not None]
    return [torch.cat(values) for values in fields]


def test_batches_are_the_sequences_that_the_order_names(tiny_data: Path) -> None:
    module = make_module(tiny_data)
    token_ids, targets, mask, sources, starts = joined(training_batches(module, 24))
    for i in range(48):
        name, _, sequence = module.order.locate(i)
        stream = module.sources[name].train
        start, stop = stream.sequences(T, whole=True)[sequence : sequence + 2].tolist()
        length = stop - start
        assert starts[i] == start
        assert targets[i][:length].tolist() == stream.read(start, stop).tolist()
        assert token_ids[i][:length].tolist() == stream.read(start - 1, stop - 1).tolist()
        assert mask[i].tolist() == stream.read_mask(start, stop).tolist() + [False] * (
            T - length
        )  # padding bears no loss
        assert length == T or name == "docstrings"
        assert list(module.sources)[int(sources[i])] == name


@pytest.mark.parametrize(
    ("micro_batch", "world_size", "workers"), [(1, 1, 0), (8, 1, 0), (2, 2, 0), (4, 2, 0), (2, 1, 2)]
)
def test_cutting_and_reading_ahead_change_nothing(
    tiny_data: Path, micro_batch: int, world_size: int, workers: int
) -> None:
    expected = joined(training_batches(make_module(tiny_data), 24))
    module = make_module(tiny_data, micro_batch=micro_batch, workers=workers)
    per_step = 8 // (micro_batch * world_size)
    ranks = [training_batches(module, 6 * per_step, rank=rank, world_size=world_size) for rank in range(world_size)]
    module.teardown("fit")  # ends the readers
    steps = [[batch for rank in ranks for batch in rank[s * per_step : (s + 1) * per_step]] for s in range(6)]
    for ours, wanted in zip(joined([batch for step in steps for batch in step]), expected, strict=True):
        assert torch.equal(ours, wanted)


def test_a_run_goes_on_from_its_completed_steps(tiny_data: Path) -> None:
    module = make_module(tiny_data)
    straight = training_batches(module, 24)[12:]
    resumed = training_batches(module, 12, step=3)
    assert all(torch.equal(a, b) for a, b in zip(joined(straight), joined(resumed), strict=True))


def test_without_masked_sources_there_is_no_mask(tiny_data: Path) -> None:
    module = make_module(tiny_data, weights={"readmes": 1.0, "stdlib": 1.0})
    assert training_batches(module, 1)[0].mask is None


@pytest.mark.parametrize("world_size", [1, 3, 50])
def test_validation_covers_every_token_once(tiny_data: Path, world_size: int) -> None:
    module = make_module(tiny_data, micro_batch=4)
    per_source: dict[str, list[int]] = {name: [] for name in module.sources}
    lengths = set()
    for rank in range(world_size):
        module.trainer = SimpleNamespace(world_size=world_size, global_rank=rank)  # type: ignore[assignment]
        for name, loader in zip(per_source, module.val_dataloader(), strict=True):
            lengths.add((name, len(loader)))
            for batch in loader:
                assert batch.mask is not None
                per_source[name] += batch.targets[batch.mask].tolist()
    for name, scored in per_source.items():
        stream = module.sources[name].val
        bearing = stream.read(0, len(stream))[stream.read_mask(0, len(stream))]
        assert sorted(scored) == sorted(bearing.tolist())
    assert len(lengths) == len(module.sources)  # every rank has as many batches, however few there are


def test_validation_can_be_a_spread_out_part(tiny_data: Path) -> None:
    module = make_module(tiny_data, val_sequences=3, micro_batch=2)
    module.trainer = SimpleNamespace(world_size=1, global_rank=0)  # type: ignore[assignment]
    stream = module.sources["stdlib"].val
    targets = joined(list(module.val_dataloader()[2]))[1]
    last = -(-len(stream) // T) - 1
    for row, sequence in enumerate(np.linspace(0, last, 3).round().astype(int).tolist()):
        stop = min((sequence + 1) * T, len(stream))
        assert targets[row, : stop - sequence * T].tolist() == stream.read(sequence * T, stop).tolist()
    assert len(targets) == 3


@pytest.mark.parametrize("masked", [False, True])
def test_batches_can_be_copied_to_a_gpu_whole(tiny_data: Path, masked: bool) -> None:
    """Pinned memory that is not contiguous is copied page by page, and waited for."""
    weights = WEIGHTS if masked else {"readmes": 1.0, "stdlib": 1.0}
    module = make_module(tiny_data, weights=weights, eot_id=load_tokenizer(tiny_data / "bpe_512").eot_id)
    for batch in training_batches(module, 4):
        assert all(tensor.is_contiguous() for tensor in batch if tensor is not None)


def test_borders_are_where_documents_begin(tiny_data: Path) -> None:
    tokenizer = load_tokenizer(tiny_data / "bpe_512")
    for batch in training_batches(make_module(tiny_data, eot_id=tokenizer.eot_id), 24):
        flat = batch.token_ids.flatten().tolist()
        begins = [at for at, token_id in enumerate(flat) if token_id == tokenizer.eot_id or at % T == 0]
        assert batch.borders is not None
        assert batch.borders.dtype == torch.int32
        assert batch.borders.tolist() == begins + [len(flat)] * (len(batch.borders) - len(begins))
        assert len(batch.borders) > len(begins)
    assert training_batches(make_module(tiny_data), 1)[0].borders is None


def test_borders_keep_their_shape_in_all_but_extreme_batches() -> None:
    ids = np.ones((2, 128), dtype=np.uint16)
    few = document_borders(ids, 0)
    ids[:, 50] = 0
    assert document_borders(ids, 0).shape == few.shape
    ids[:] = 0
    every = document_borders(ids, 0)  # exact in the extreme, in another shape
    assert every[:257].tolist() == list(range(257))
