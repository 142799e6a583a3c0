"""Loading batches of sequences from two sources in a weighted mix, in one process: ours and others.

Every contestant gets the same random ids in its own file format, freshly written and therefore in the page cache, and
yields (batch, max_seq_len + 1) int64 ids; ours yields inputs and targets. The bare copies are windows at random places
of memory-mapped files: the work that no loader can avoid, without epochs or a reproducible order.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch

from data_modules import Curriculum, SampleOrder, SourceShards
from data_modules.batch_settings import BatchSettings
from data_modules.mixed_data_module import MixedDataModule
from data_modules.preparation import PreparationTarget, adopt_shards
from gpt_lightning.tokenizer import load_tokenizer

WEIGHTS = {"first": 0.7, "second": 0.3}  # of the sources
WARM_UP = 200  # batches that are not counted
Batches = Generator[Any, None, None]
Write = Callable[[Path, np.ndarray], None]  # a folder for one source, its sequences
Serve = Callable[[list[Path], int, int], Batches]  # the sources' folders, ids in a sequence, sequences in a batch


def measure(who: str, *, tokens: int, max_seq_len: int, batch: int, steps: int, seconds: float) -> dict[str, float]:
    """Tokens per second; for ours also the milliseconds until the first batch, in a new run and in one resumed at its
    last step.

    Args:
        who: ours, bare, litdata or mosaicml-streaming.
        tokens: ids in each source.
        max_seq_len: tokens per sequence.
        batch: sequences per batch.
        steps: length of the run that ours serves, with one batch per step.
        seconds: duration of the measurement.
    """
    contestants: dict[str, tuple[Write, Serve]] = {
        "ours": (_write_ours, partial(_ours, steps=steps)),
        "bare": (_write_flat, _bare),
        "litdata": (_write_litdata, _litdata),
        "mosaicml-streaming": (_write_mosaicml, _mosaicml),
    }
    write, serve = contestants[who]
    # a batch is too small for several threads, and a thread that waits for a busy core costs milliseconds
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    length = max_seq_len + 1
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / source for source in WEIGHTS]
        for folder in folders:
            write(folder, random.integers(50257, size=(tokens // length, length), dtype=np.uint16))
        with closing(serve(folders, length, batch)) as batches:
            result = {"tokens_per_second": batch * max_seq_len * _batches_per_second(batches, seconds)}
        if who == "ours":
            result["first_batch_ms"] = _first_batch_ms(folders, length, batch, steps, begin=0)
            result["resumed_batch_ms"] = _first_batch_ms(folders, length, batch, steps, begin=steps - 1)
    return result


def _batches_per_second(batches: Batches, seconds: float) -> float:
    for _ in range(WARM_UP):
        next(batches)
    served, begin = 0, time.perf_counter()
    while (passed := time.perf_counter() - begin) < seconds:
        next(batches)
        served += 1
    return served / passed


def _first_batch_ms(folders: list[Path], length: int, batch: int, steps: int, *, begin: int) -> float:
    """Median over three new orders of the milliseconds to build the loader and get one batch."""
    seconds = []
    for seed in (1, 2, 3):
        module = _data_module(folders, length, batch, steps, begin=begin, seed=seed)
        start = time.perf_counter()
        next(iter(module.train_dataloader()))
        seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds)


def _write_flat(folder: Path, sequences: np.ndarray) -> None:
    folder.mkdir()
    sequences.tofile(folder / "ids.bin")


def _bare(folders: list[Path], length: int, batch: int) -> Batches:
    files = [np.memmap(folder / "ids.bin", dtype=np.uint16, mode="r") for folder in folders]
    random = np.random.default_rng(0)
    rows = random.choice(len(files), size=batch, p=list(WEIGHTS.values())).tolist()
    while True:
        ids = np.empty((batch, length), dtype=np.int64)
        starts = random.integers(len(files[0]) - length, size=batch).tolist()
        for row, (file, start) in enumerate(zip(rows, starts, strict=True)):
            ids[row] = files[file][start : start + length]
        yield torch.from_numpy(ids)


def _write_ours(folder: Path, sequences: np.ndarray) -> None:
    _write_flat(folder, sequences)
    adopt_shards(
        folder / "ids.bin",
        PreparationTarget(name=folder.name, tokenizer=load_tokenizer("gpt2"), folder=folder, licence=""),
        format="nanogpt",
        val_fraction=0.001,
    )


def _ours(folders: list[Path], length: int, batch: int, *, steps: int) -> Batches:
    yield from _data_module(folders, length, batch, steps, begin=0, seed=0).train_dataloader()


def _data_module(folders: list[Path], length: int, batch: int, steps: int, *, begin: int, seed: int) -> MixedDataModule:
    """The data module as train.py builds it, in a run with `begin` completed steps."""
    max_seq_len = length - 1
    sources = {folder.name: SourceShards(folder) for folder in folders}
    curriculum = Curriculum(keyframes={"all": {"at": 0, "weights": WEIGHTS}})
    order = SampleOrder(
        curriculum.resolve(steps=steps, tokens_per_step=batch * max_seq_len),
        sequences={name: len(source.train.sequences(max_seq_len, whole=True)) - 1 for name, source in sources.items()},
        global_batch=batch,
        seed=seed,
    )
    module = MixedDataModule(
        sources=sources,
        order=order,
        tokenizer=load_tokenizer("gpt2"),
        batches=BatchSettings(max_seq_len=max_seq_len, micro_batch=batch, val_sequences=None, workers=0),
    )
    module.trainer = SimpleNamespace(world_size=1, global_rank=0, global_step=begin)  # type: ignore[assignment]
    return module


def _write_litdata(folder: Path, sequences: np.ndarray) -> None:
    from litdata import TokensLoader, optimize  # a peer, installed for the benchmark only, like the next one

    optimize(
        fn=torch.from_numpy,
        inputs=[piece.ravel() for piece in np.array_split(sequences, 100)],
        output_dir=str(folder),
        chunk_bytes="64MB",
        item_loader=TokensLoader(),
        num_workers=1,
        start_method="fork",
        verbose=False,
    )


def _litdata(folders: list[Path], length: int, batch: int) -> Batches:
    from litdata import CombinedStreamingDataset, StreamingDataLoader, StreamingDataset, TokensLoader

    datasets = [StreamingDataset(str(f), item_loader=TokensLoader(block_size=length), shuffle=True) for f in folders]
    mix = CombinedStreamingDataset(datasets, weights=list(WEIGHTS.values()), iterate_over_all=False)
    loader = StreamingDataLoader(mix, batch_size=batch, num_workers=0)
    while True:  # epoch after epoch
        for ids in loader:
            yield ids.long()


def _write_mosaicml(folder: Path, sequences: np.ndarray) -> None:
    columns = {"ids": f"ndarray:uint16:{sequences.shape[1]}"}
    with _streaming().MDSWriter(out=str(folder), columns=columns) as writer:
        for ids in sequences:
            writer.write({"ids": ids})


def _mosaicml(folders: list[Path], length: int, batch: int) -> Batches:
    streaming = _streaming()
    streaming.base.util.clean_stale_shared_memory()  # left by processes that were killed
    streams = [streaming.Stream(local=str(f), proportion=WEIGHTS[f.name]) for f in folders]
    dataset = streaming.StreamingDataset(streams=streams, shuffle=True, batch_size=batch)
    loader = streaming.StreamingDataLoader(dataset, batch_size=batch, num_workers=0)
    try:
        while True:
            for samples in loader:
                yield samples["ids"].long()
    finally:
        dataset._iterator.exit()  # stops its threads before their files are deleted


def _streaming() -> Any:
    """mosaicml-streaming without its vision datasets, which need the torchvision version that fits this torch."""
    sys.modules["streaming.vision"] = ModuleType("streaming.vision")
    import streaming

    return streaming
