"""The LightningDataModule: training micro-batches for this rank, in the sample order, and validation batches per source."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import cached_property
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from data_modules.batch import Batch, to_tensors
from data_modules.batch_settings import BatchSettings
from data_modules.order.sample_order import SampleOrder
from data_modules.read_ahead_processes import BatchPrefetcher
from data_modules.shards.memory_mapped_shards import SourceShards, TokenStream
from data_modules.shards.shard_integrity import DataChangedError, damage_message
from data_modules.training_batches import RankSlice, TrainingBatches, ValidationBatches
from gpt_lightning.tokenizer import Tokenizer

_ENDLESS = 2**40  # micro-batches; the run's only epoch ends after max_steps, not at the end of the data


class MixedDataModule(L.LightningDataModule):
    """Batches of a weighted, scheduled mix of sources.

    Args:
        sources: The prepared sources of the curriculum, by name.
        order: Which sequence is trained on at which step.
        tokenizer: The tokenizer with which the sources were prepared; kept for users of the batches.
        batches: How sequences are grouped into batches.

    Raises:
        ValueError: A source has no loss-bearing validation token.
    """

    def __init__(
        self,
        *,
        sources: Mapping[str, SourceShards],
        order: SampleOrder,
        tokenizer: Tokenizer,
        batches: BatchSettings,
    ) -> None:
        super().__init__()
        self._copies: torch.cuda.Stream | None = None
        self.sources = {name: sources[name] for name in order.sources}
        self.order = order
        self.tokenizer = tokenizer
        self.batches = batches
        self.told_to_stop: Callable[[], bool] = lambda: False
        """Whether the run was asked to stop. If so, the data module does not wait long for processes that read ahead."""
        self._training_batches: TrainingBatches | None = None
        self._read_ahead: BatchPrefetcher | None = None
        for name, source in self.sources.items():
            windows = self.chosen_val_windows(source.val)
            if not any(source.val.read_mask(start, stop).any() for start, stop in windows.tolist()):
                raise ValueError(
                    f"source {name} has no loss-bearing validation token: it must have at least one. Prepare more of "
                    "it."
                )

    @cached_property
    def train_borders(self) -> dict[str, np.ndarray]:
        """Source -> borders of its training sequences, see `sequence_borders`."""
        length = self.batches.max_seq_len
        return {name: source.train.sequences(length, whole=True) for name, source in self.sources.items()}

    def loss_bearing_per_sequence(self) -> dict[str, float]:
        """Return the mean number of loss-bearing targets in a training sequence of each source."""
        return {
            name: float(source.train.loss_bearing(self.train_borders[name]).mean())
            for name, source in self.sources.items()
        }

    def chosen_val_windows(self, stream: TokenStream) -> np.ndarray:
        """Return (sequences, 2) int64, [start, stop) of validation sequences: all, or `val_sequences` evenly spaced."""
        borders = stream.sequences(self.batches.max_seq_len, whole=False)
        available = len(borders) - 1
        wanted = min(available, self.batches.val_sequences or available)
        chosen = np.linspace(0, available - 1, wanted).round().astype(np.int64)
        return np.stack([borders[chosen], borders[chosen + 1]], axis=1)

    def identity(self) -> dict[str, Any]:
        """Return everything that determines the order of the run's tokens, as plain values, for checkpoints."""
        return {
            "curricula": [
                {
                    "from_step": order.first_step,
                    "steps": order.steps,
                    "curriculum": asdict(order.curriculum.curriculum),
                    "updates": [[step, dict(weights)] for step, weights in order.updates],
                    "policy_digest": shares.digest if (shares := order.curriculum.policy_shares) else None,
                }
                for order in self.order.history
            ],
            "global_batch": self.order.global_batch,
            "max_seq_len": self.batches.max_seq_len,
            "seed": self.order.seed,
            "tokenizer": self.tokenizer.fingerprint,
            "sources": {name: source.fingerprint for name, source in self.sources.items()},
        }

    def touched_files(self) -> list[str]:
        """Return the source files that were written to, replaced or removed since they were opened."""
        return [str(file.path) for source in self.sources.values() for file in source.touched()]

    def refuse_changed_files(self) -> None:
        """Check that the source files are unchanged since they were opened. Files that were touched are read again.

        Raises:
            DataChangedError: The content of a file changed.
        """
        changed = {source.folder: clauses for source in self.sources.values() if (clauses := source.changed())}
        for folder, clauses in changed.items():
            raise DataChangedError(
                f"data changed during training: {damage_message(folder, clauses)}. Then start the same command again; "
                "it resumes from the newest checkpoint, because later steps may have used changed data."
            )

    def go_on_with(self, order: SampleOrder) -> None:
        """Continue with an order that is equal up to the last step. Not possible with workers, which read ahead."""
        assert self.batches.workers == 0, "workers read ahead"
        self.order = order
        if self._training_batches:
            self._training_batches.order = order

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """On CUDA, copy on a separate stream, so that the copy does not wait for steps queued on the device."""
        if device.type != "cuda":
            moved: Batch = super().transfer_batch_to_device(batch, device, dataloader_idx)
            return moved
        self._copies = self._copies or torch.cuda.Stream(device)
        current = torch.cuda.current_stream(device)
        with torch.cuda.stream(self._copies):
            moved = super().transfer_batch_to_device(batch, device, dataloader_idx)
        current.wait_stream(self._copies)
        # keep the memory of a batch from being reused for the next copy before the current stream has read it
        for tensor in moved:
            if tensor is not None:
                tensor.record_stream(current)
        return moved

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        cut = self._cut()
        accumulation = self.order.global_batch // (cut.micro_batch * cut.world_size)
        assert accumulation * cut.micro_batch * cut.world_size == self.order.global_batch
        streams = [source.train for source in self.sources.values()]
        borders = [self.train_borders[name] for name in self.sources]
        self._training_batches = TrainingBatches(self.order, streams, borders, cut)
        if self.batches.workers:
            self._read_ahead = BatchPrefetcher(
                self._training_batches,
                self.batches.workers,
                told_to_stop=lambda: self.told_to_stop(),
                check_files=self.refuse_changed_files,
            )
        batches = self._read_ahead or self._training_batches
        return _loader(batches, _From(self.trainer.global_step * accumulation))

    def val_dataloader(self) -> list[DataLoader]:
        """Return one loader per source, in the order of `order.sources`."""
        loaders = []
        for k, source in enumerate(self.sources.values()):
            batches = ValidationBatches(source.val, self.chosen_val_windows(source.val), k, self._cut())
            loaders.append(_loader(batches, range(len(batches))))
        return loaders

    def teardown(self, stage: str) -> None:
        self._end_readers()

    def on_exception(self, exception: BaseException) -> None:
        self._end_readers()

    def _end_readers(self) -> None:
        if self._read_ahead:
            self._read_ahead.end()

    def _cut(self) -> RankSlice:
        assert self.trainer is not None
        return RankSlice(
            self.batches.max_seq_len,
            self.batches.micro_batch,
            self.trainer.global_rank,
            self.trainer.world_size,
            self.batches.eot_id,
        )


def _loader(batches: Any, sampler: Sampler | range) -> DataLoader:
    return DataLoader(
        batches,
        sampler=sampler,
        batch_size=None,  # its items are whole micro-batches
        collate_fn=to_tensors,  # type: ignore[arg-type]  # typed for lists of items, but an item is a whole micro-batch
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # otherwise each start of a loader would draw from the global generator
    )


class _From(Sampler):
    """Yield first, first + 1, …: a resumed run continues from its completed steps alone."""

    def __init__(self, first: int) -> None:
        self._first = first

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._first, _ENDLESS))

    def __len__(self) -> int:
        return _ENDLESS  # the same after a resume, because Lightning counts micro-batches from the start of the run
