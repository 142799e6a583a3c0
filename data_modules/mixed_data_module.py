"""The LightningDataModule: sequences in the order's order, cut into micro-batches for this rank; validation by source."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from data_modules.order import SampleOrder
from data_modules.shards import SourceShards, TokenStream
from gpt_lightning.tokenizer import Tokenizer

_ENDLESS = 2**40  # micro-batches: the run's one epoch ends by its number of steps, never by its data


class Batch(NamedTuple):
    """Sequences of one micro-batch."""

    token_ids: Tensor  # (batch, time) int64
    targets: Tensor  # (batch, time) int64, the token after each
    mask: Tensor | None  # (batch, time) bool: does the target bear loss? None: all of them do
    sources: Tensor  # (batch,) int64, index into the order's sources


class MixedDataModule(L.LightningDataModule):
    """Batches of a weighted, scheduled mix of sources.

    Args:
        sources: the prepared sources of the curriculum, by name.
        order: which sequence is trained on when.
        tokenizer: the one the sources were prepared with; for those who read batches.
        max_seq_len: tokens in a sequence.
        micro_batch: sequences in one forward pass on one rank.
        val_sequences: at most this many validation sequences of each source, evenly spaced over its split; None: all.
        workers: processes that read ahead; 0 reads in the training process. The batches are the same.

    Raises:
        ValueError: a number is out of range, or a source has nothing to validate with.
    """

    def __init__(
        self,
        *,
        sources: Mapping[str, SourceShards],
        order: SampleOrder,
        tokenizer: Tokenizer,
        max_seq_len: int,
        micro_batch: int,
        val_sequences: int | None,
        workers: int,
    ) -> None:
        super().__init__()
        self.sources = {name: sources[name] for name in order.sources}
        self.order = order
        self.tokenizer = tokenizer
        self.max_seq_len = max_seq_len
        self.micro_batch = micro_batch
        self.val_sequences = val_sequences
        self.workers = workers
        if not isinstance(workers, int) or workers < 0:
            raise ValueError(f"data.workers is {workers!r}: it must be a number of processes, 0 or more.")
        if val_sequences is not None and (not isinstance(val_sequences, int) or val_sequences < 1):
            raise ValueError(
                f"data.val_sequences is {val_sequences!r}: it must be a number of sequences, 1 or more, or null."
            )
        for name, source in self.sources.items():
            windows = self.chosen_val_windows(source.val)
            if not any(source.val.read_mask(start, stop).any() for start, stop in windows.tolist()):
                raise ValueError(f"source {name} has no loss-bearing token to validate with: prepare more of it.")

    def chosen_val_windows(self, stream: TokenStream) -> np.ndarray:
        """Where the sequences begin and end that are scored: all, or `val_sequences` spread evenly; (sequences, 2) int64."""
        borders = stream.sequences(self.max_seq_len, whole=False)
        available = len(borders) - 1
        wanted = min(available, self.val_sequences or available)
        chosen = np.linspace(0, available - 1, wanted).round().astype(np.int64)
        return np.stack([borders[chosen], borders[chosen + 1]], axis=1)

    def identity(self) -> dict[str, Any]:
        """All that decides the order of the run's tokens, as plain values: what a checkpoint keeps of its diet."""
        return {
            "curriculum": asdict(self.order.curriculum.curriculum),
            "steps": self.order.steps,
            "global_batch": self.order.global_batch,
            "max_seq_len": self.max_seq_len,
            "seed": self.order.seed,
            "tokenizer": self.tokenizer.fingerprint,
            "sources": {name: source.fingerprint for name, source in self.sources.items()},
        }

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        world_size, rank = self.trainer.world_size, self.trainer.global_rank
        accumulation = self.order.global_batch // (self.micro_batch * world_size)
        assert accumulation * self.micro_batch * world_size == self.order.global_batch
        dataset = _TrainingBatches(self, accumulation=accumulation, rank=rank, world_size=world_size)
        return self._loader(dataset, _From(self.trainer.global_step * accumulation))

    def val_dataloader(self) -> list[DataLoader]:
        """One loader per source, in the order's order of sources."""
        assert self.trainer is not None
        loaders = []
        for k, source in enumerate(self.sources.values()):
            dataset = _ValidationBatches(
                self, source.val, source_index=k, rank=self.trainer.global_rank, world_size=self.trainer.world_size
            )
            loaders.append(self._loader(dataset, range(len(dataset)), workers=0))
        return loaders

    def _loader(self, dataset: Dataset, sampler: Sampler | range, *, workers: int | None = None) -> DataLoader:
        return DataLoader(
            dataset,
            sampler=sampler,
            batch_size=None,  # the dataset's items are whole micro-batches
            num_workers=self.workers if workers is None else workers,
            pin_memory=torch.cuda.is_available(),
        )


class _TrainingBatches(Dataset):
    """Item b is this rank's b-th micro-batch of the whole run: step b // accumulation, micro-batch b % accumulation."""

    def __init__(self, module: MixedDataModule, *, accumulation: int, rank: int, world_size: int) -> None:
        self._order = module.order
        self._streams = [source.train for source in module.sources.values()]
        self._borders = [stream.sequences(module.max_seq_len, whole=True) for stream in self._streams]
        self._max_seq_len = module.max_seq_len
        self._micro_batch = module.micro_batch
        self._accumulation = accumulation
        self._first_slot = rank * (module.order.global_batch // world_size)

    def __getitem__(self, b: int) -> Batch:
        step, micro = divmod(b, self._accumulation)
        if step >= self._order.steps:  # read ahead by a worker, never trained on
            step = self._order.steps - 1
        start = step * self._order.global_batch + self._first_slot + micro * self._micro_batch
        source, _, sequence = self._order.locate_many(np.arange(start, start + self._micro_batch))
        windows = np.array([self._borders[k][j : j + 2] for k, j in zip(source, sequence, strict=True)])
        return _assemble([self._streams[k] for k in source], windows, source, self._max_seq_len, self._masked)

    @property
    def _masked(self) -> bool:
        return any(stream.masked for stream in self._streams)


class _ValidationBatches(Dataset):
    """This rank's share of a source's validation sequences: every rank has as many batches, if need be one without loss.

    Sequences that are too short are filled up with targets that bear no loss.
    """

    def __init__(
        self, module: MixedDataModule, stream: TokenStream, *, source_index: int, rank: int, world_size: int
    ) -> None:
        self._stream = stream
        self._source_index = source_index
        self._max_seq_len = module.max_seq_len
        self._micro_batch = module.micro_batch
        self._rank = rank
        self._world_size = world_size
        self._windows = module.chosen_val_windows(stream)

    def __len__(self) -> int:
        return -(-len(self._windows) // (self._micro_batch * self._world_size))

    def __getitem__(self, b: int) -> Batch:
        start = (b * self._world_size + self._rank) * self._micro_batch
        chosen = self._windows[start : start + self._micro_batch]
        blank = len(chosen) == 0
        if blank:
            chosen = self._windows[:1]
        sources = np.full(len(chosen), self._source_index)
        batch = _assemble([self._stream] * len(chosen), chosen, sources, self._max_seq_len, True)
        return batch._replace(mask=torch.zeros_like(batch.targets, dtype=torch.bool)) if blank else batch


class _From(Sampler):
    """first, first + 1, …: where a run goes on follows from its completed steps alone."""

    def __init__(self, first: int) -> None:
        self._first = first

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._first, _ENDLESS))

    def __len__(self) -> int:
        return _ENDLESS  # the same wherever the run goes on, as Lightning counts micro-batches from the run's start


def _assemble(
    streams: list[TokenStream], windows: np.ndarray, sources: np.ndarray, max_seq_len: int, masked: bool
) -> Batch:
    """Read one sequence from each stream; windows (batch, 2). What they lack to `max_seq_len` is padding and bears no loss."""
    ids = np.zeros((len(streams), max_seq_len + 1), dtype=np.int64)  # the inputs and, shifted by one, the targets
    mask = np.zeros((len(streams), max_seq_len), dtype=np.bool_)
    for row, (stream, (start, stop)) in enumerate(zip(streams, windows.tolist(), strict=True)):
        ids[row, : stop - start + 1] = stream.read(start - 1, stop)
        mask[row, : stop - start] = stream.read_mask(start, stop)
    tensor = torch.from_numpy(ids)
    return Batch(
        token_ids=tensor[:, :-1].contiguous(),
        targets=tensor[:, 1:].contiguous(),
        mask=torch.from_numpy(mask) if masked else None,
        sources=torch.from_numpy(sources),
    )
