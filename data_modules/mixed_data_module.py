"""The LightningDataModule: sequences in the order's order, cut into micro-batches for this rank; validation by source."""

import signal
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cached_property
from multiprocessing import forkserver, get_all_start_methods, resource_tracker
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from data_modules.batches import Batch, SequenceReader
from data_modules.order import SampleOrder
from data_modules.shards import SourceShards, TokenStream
from gpt_lightning.tokenizer import Tokenizer

# Forked from a process with threads (gloo's, TensorBoard's) a worker can be born with a lock that nobody will ever release.
_START_METHOD = "forkserver" if "forkserver" in get_all_start_methods() else "spawn"
# A terminal and Slurm send them to every process of a run; which step is the last is the training process's to say.
_NOT_FOR_WORKERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_LOCATED_AT_ONCE = 4096  # sequences: looking up a few at a time would cost as much as reading them
_ENDLESS = 2**40  # micro-batches: the run's one epoch ends by its number of steps, never by its data


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
        eot_id: the id that stands before a document, where batches say where their documents begin; None: they do not.

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
        eot_id: int | None = None,
    ) -> None:
        super().__init__()
        self.eot_id = eot_id
        self._copies: torch.cuda.Stream | None = None
        self.sources = {name: sources[name] for name in order.sources}
        self.order = order
        self.tokenizer = tokenizer
        self.max_seq_len = max_seq_len
        self.micro_batch = micro_batch
        self.val_sequences = val_sequences
        self.workers = workers
        self._training_batches: _TrainingBatches | None = None
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

    @cached_property
    def train_borders(self) -> dict[str, np.ndarray]:
        """Where the training sequences of each source begin and end."""
        return {name: source.train.sequences(self.max_seq_len, whole=True) for name, source in self.sources.items()}

    def loss_bearing_per_sequence(self) -> dict[str, float]:
        """The mean number of loss-bearing targets in a training sequence of each source."""
        return {
            name: float(source.train.loss_bearing(self.train_borders[name]).mean())
            for name, source in self.sources.items()
        }

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
            "curricula": [
                {
                    "from_step": order.first_step,
                    "steps": order.steps,
                    "curriculum": asdict(order.curriculum.curriculum),
                    "updates": [[step, dict(weights)] for step, weights in order.updates],
                }
                for order in self.order.history
            ],
            "global_batch": self.order.global_batch,
            "max_seq_len": self.max_seq_len,
            "seed": self.order.seed,
            "tokenizer": self.tokenizer.fingerprint,
            "sources": {name: source.fingerprint for name, source in self.sources.items()},
        }

    def go_on_with(self, order: SampleOrder) -> None:
        """Train by an order that is this one up to the step just done; without workers, which would have read ahead of it."""
        assert self.workers == 0, "workers read ahead"
        self.order = order
        if self._training_batches:
            self._training_batches.order = order

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """On CUDA by a stream of its own: the copy does not wait for the steps that the device has yet to do."""
        if device.type != "cuda":
            moved: Batch = super().transfer_batch_to_device(batch, device, dataloader_idx)
            return moved
        self._copies = self._copies or torch.cuda.Stream(device)
        current = torch.cuda.current_stream(device)
        with torch.cuda.stream(self._copies):
            moved = super().transfer_batch_to_device(batch, device, dataloader_idx)
        current.wait_stream(self._copies)
        # the memory of a batch is not given to the next copy before the current stream has read it
        for tensor in moved:
            if tensor is not None:
                tensor.record_stream(current)
        return moved

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        world_size, rank = self.trainer.world_size, self.trainer.global_rank
        accumulation = self.order.global_batch // (self.micro_batch * world_size)
        assert accumulation * self.micro_batch * world_size == self.order.global_batch
        dataset = _TrainingBatches(self, accumulation=accumulation, rank=rank, world_size=world_size)
        self._training_batches = dataset
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
        n_workers = self.workers if workers is None else workers
        if n_workers:
            _start_forkserver()
        return DataLoader(
            dataset,
            sampler=sampler,
            batch_size=None,  # the dataset's items are whole micro-batches
            num_workers=n_workers,
            multiprocessing_context=_START_METHOD if n_workers else None,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # of its own: PyTorch draws a number at each start, also of a validation
        )


def _start_forkserver() -> None:
    """Start the process that starts the workers, deaf as they will be to what ends a run."""
    if _START_METHOD == "forkserver":
        resource_tracker.ensure_running()  # which would unblock signals when it starts
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_FOR_WORKERS)
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _TrainingBatches(Dataset):
    """Item b is this rank's b-th micro-batch of the whole run: step b // accumulation, micro-batch b % accumulation."""

    def __init__(self, module: MixedDataModule, *, accumulation: int, rank: int, world_size: int) -> None:
        self.order = module.order
        self._streams = [source.train for source in module.sources.values()]
        self._borders = [module.train_borders[name] for name in module.sources]
        self._max_seq_len = module.max_seq_len
        self._micro_batch = module.micro_batch
        self._accumulation = accumulation
        self._of_rank = module.order.global_batch // world_size
        self._first_slot = rank * self._of_rank
        self._eot_id = module.eot_id
        self._found: tuple[range, SequenceReader] | None = None

    def __getitem__(self, b: int) -> Batch:
        step, micro = divmod(b, self._accumulation)
        if step >= self.order.steps:  # read ahead by a worker, never trained on
            step = self.order.steps - 1
        first, found = self._of_steps(step)
        start = (step - first) * self._of_rank + micro * self._micro_batch
        return found.batch(slice(start, start + self._micro_batch))

    def _of_steps(self, step: int) -> "tuple[int, SequenceReader]":
        """The first of some steps around this one, and what this rank is trained on in them."""
        n_steps = max(1, _LOCATED_AT_ONCE // self._of_rank)
        first = step - step % n_steps
        steps = range(first, min(first + n_steps, self.order.settled))
        if self._found is None or self._found[0] != steps:
            slots = np.arange(self._first_slot, self._first_slot + self._of_rank)
            located = self.order.locate_many(np.add.outer(np.array(steps) * self.order.global_batch, slots).ravel())
            windows = np.empty((len(located.source), 2), dtype=np.int64)
            for k, borders in enumerate(self._borders):
                chosen = np.flatnonzero(located.source == k)
                sequence = located.sequence[chosen]
                windows[chosen, 0], windows[chosen, 1] = borders[sequence], borders[sequence + 1]
            found = SequenceReader(
                self._streams,
                located.source,
                windows,
                self._max_seq_len,
                masked=self._masked,
                eot_id=self._eot_id,
            )
            self._found = (steps, found)
        return first, self._found[1]

    @cached_property
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
        self._eot_id = module.eot_id
        self._windows = module.chosen_val_windows(stream)

    def __len__(self) -> int:
        return -(-len(self._windows) // (self._micro_batch * self._world_size))

    def __getitem__(self, b: int) -> Batch:
        start = (b * self._world_size + self._rank) * self._micro_batch
        chosen = self._windows[start : start + self._micro_batch]
        blank = len(chosen) == 0
        if blank:
            chosen = self._windows[:1]
        of_the_one = np.zeros(len(chosen), dtype=np.int64)
        reader = SequenceReader([self._stream], of_the_one, chosen, self._max_seq_len, masked=True, eot_id=self._eot_id)
        batch = reader.batch(slice(None))
        batch = batch._replace(sources=torch.full_like(batch.sources, self._source_index))
        return batch._replace(mask=torch.zeros_like(batch.targets, dtype=torch.bool)) if blank else batch


class _From(Sampler):
    """first, first + 1, …: where a run goes on follows from its completed steps alone."""

    def __init__(self, first: int) -> None:
        self._first = first

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._first, _ENDLESS))

    def __len__(self) -> int:
        return _ENDLESS  # the same wherever the run goes on, as Lightning counts micro-batches from the run's start
