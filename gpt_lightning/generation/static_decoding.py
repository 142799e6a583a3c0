"""Decode with steps of fixed shapes, so that a CUDA graph can replay them.

The newest ids, the lengths, the random numbers and the cache are on the device, and the step updates them there. A step
reads the keys of a whole bucket; a mask hides keys that do not exist yet. A text that outgrows its bucket moves to the
next one. The host launches a step and then reads the ids of the previous step, so that the device does not wait for the
host. A text that has ended is therefore decoded for a few more steps, and the host drops the ids of these steps.
"""

from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor

from gpt_lightning.generation.cuda_graph_step import CudaGraphStep
from gpt_lightning.generation.rolling_kv_cache import RollingKVCache
from gpt_lightning.generation.sampling import TokenSampler
from gpt_lightning.model.kv_cache import StaticCache

BUCKET = 256
"""Number of keys by which the shapes of a step grow. Smaller: more captures; larger: more masked keys."""


class _State(NamedTuple):
    """Tensors that a step reads and writes, all on the device."""

    newest: Tensor
    """(rows, 1) int64, the newest id of each text."""
    uniforms: Tensor | None
    """(rows, 1) float64, the random number of each text; None for temperature 0."""
    cache: StaticCache


class _Launched(NamedTuple):
    """Ids of a launched step that the host has not read yet."""

    rows: list[int]
    """The index of the text of each id."""
    ids: Tensor
    """(rows, 1) on the CPU, valid once the device has reached `done`."""
    done: torch.cuda.Event | None


class StaticDecoding:
    """Continue texts by one token at a time, with the same ids as `EagerDecoding`.

    Args:
        reader: The texts and their cache.
        drawing: Draws the ids.
        max_new_tokens: Maximum number of steps to launch.
    """

    def __init__(self, reader: RollingKVCache, drawing: TokenSampler, max_new_tokens: int) -> None:
        self._reader = reader
        self._drawing = drawing
        self._to_launch = max_new_tokens
        self._going = set(reader.rows)
        self._launched: deque[_Launched] = deque()
        self._state: _State | None = None
        self._step = CudaGraphStep(reader.device)

    def next_ids(self) -> dict[int, int]:
        """Return the next id of every text, by the text's index."""
        while self._to_launch and len(self._launched) < 2:
            if self._launched and self._reader.full():
                break  # a new window starts with the newest ids, so the host must read them first
            self._launch()
        rows, ids, done = self._launched.popleft()
        if done is not None:
            done.synchronize()
        chosen = {row: i for row, i in zip(rows, ids.flatten().tolist(), strict=True) if row in self._going}
        for row, token_id in chosen.items():
            self._reader.texts[row].append(token_id)
        return chosen

    def drop(self, rows: set[int]) -> None:
        """Stop continuing these texts."""
        self._going -= rows

    def _launch(self) -> None:
        """Launch the computation of the next ids and their copy to the host."""
        reader, drawing = self._reader, self._drawing
        if self._state is None:
            uniforms = drawing.uniforms()
            ids = drawing.draw(reader.read_prompts(), None if uniforms is None else reader.on_device(uniforms))
            self._state = self._new_state(ids[:, None])
        else:
            self._state = self._fitted(self._state)
            uniforms = drawing.uniforms()
            if uniforms is not None and self._state.uniforms is not None:
                self._state.uniforms.copy_(reader.pinned(uniforms), non_blocking=True)
            self._step(self._advance)
            reader.cache.lengths += 1
        done = torch.cuda.Event() if reader.device.type == "cuda" else None
        ids = self._state.newest.to("cpu", copy=True, non_blocking=True)
        if done is not None:
            done.record(torch.cuda.current_stream(reader.device))
        self._launched.append(_Launched(list(reader.rows), ids, done))
        self._to_launch -= 1

    def _advance(self) -> None:
        """The step that is captured: read the newest ids and draw the next ones."""
        assert self._state is not None
        newest, uniforms, cache = self._state
        newest.copy_(self._drawing.draw(self._reader.read(newest, cache), uniforms)[:, None])

    def _fitted(self, state: _State) -> _State:
        """Return the state for the next step; its tensors are the same as long as the shapes do not change."""
        reader, newest = self._reader, state.newest
        places = [place for place, row in enumerate(reader.rows) if row in self._going]
        if 2 * len(places) <= len(reader.rows):  # not whenever a text ends, because new shapes need a new capture
            reader.keep(places)
            self._drawing.keep(places)
            newest = newest[places]
        full = reader.full()
        reader.renew(full, self._going)
        if newest is not state.newest or self._n_keys() != state.cache.n_keys:
            self._step.forget()
            return self._new_state(newest)
        if full:
            self._copy_lengths(state.cache)
        return state

    def _new_state(self, newest: Tensor) -> _State:
        cache = StaticCache(self._reader.cache, self._n_keys())
        self._copy_lengths(cache)
        greedy = self._drawing.sampling.temperature == 0
        uniforms = None if greedy else torch.empty(newest.shape, dtype=torch.float64, device=newest.device)
        return _State(newest, uniforms, cache)

    def _copy_lengths(self, cache: StaticCache) -> None:
        cache.lengths.copy_(self._reader.pinned(self._reader.cache.lengths), non_blocking=True)

    def _n_keys(self) -> int:
        """Return the number of keys that the next step reads, including masked ones."""
        needed = int(self._reader.cache.lengths.max()) + 1
        return min(-(-needed // BUCKET) * BUCKET, self._reader.cache.room)
