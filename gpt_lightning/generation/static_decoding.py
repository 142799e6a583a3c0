"""Decoding by a step of fixed shapes, so that a CUDA graph can repeat it.

The newest ids, the lengths, the random numbers and the cache lie on the device, and the step updates them there. It reads
the keys of a whole bucket, and a mask hides those that a text does not have yet. A longer text moves to the next bucket.
The host launches a step and reads the ids of the step before it meanwhile, so that the device does not wait for the host.
So a text that has ended is decoded a little further, and the host leaves out those ids.
"""

from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor

from gpt_lightning.generation.continued_texts import ContinuedTexts
from gpt_lightning.generation.cuda_graph_step import CudaGraphStep
from gpt_lightning.generation.sampling import TokenSampler
from gpt_lightning.model.kv_cache import StaticCache

BUCKET = 256
"""Keys by which a step's shapes grow. Smaller: more captures; larger: more keys that are read and masked."""


class _State(NamedTuple):
    """What a step reads and writes, all on the device."""

    newest: Tensor
    """(rows, 1) int64, the newest id of each text."""
    uniforms: Tensor | None
    """(rows, 1) float64, the random number of each text; None: none is needed."""
    cache: StaticCache


class _Launched(NamedTuple):
    """Ids that the host has not read yet."""

    rows: list[int]
    """The number of each id's text."""
    ids: Tensor
    """(rows, 1) on the CPU, valid once the device has reached `done`."""
    done: torch.cuda.Event | None


class StaticDecoding:
    """Continues texts by one token each at a time, with the ids of `EagerDecoding`.

    Args:
        max_new_tokens: no step is launched beyond them.
    """

    def __init__(self, reader: ContinuedTexts, drawing: TokenSampler, max_new_tokens: int) -> None:
        self._reader = reader
        self._drawing = drawing
        self._to_launch = max_new_tokens
        self._going = set(reader.rows)
        self._launched: deque[_Launched] = deque()
        self._state: _State | None = None
        self._step = CudaGraphStep(reader.device)

    def next_ids(self) -> dict[int, int]:
        """The next id of every text, by the text's number."""
        while self._to_launch and len(self._launched) < 2:
            if self._launched and self._reader.full():
                break  # a new window begins with the newest ids, which the host must know first
            self._launch()
        rows, ids, done = self._launched.popleft()
        if done is not None:
            done.synchronize()
        chosen = {row: i for row, i in zip(rows, ids.flatten().tolist(), strict=True) if row in self._going}
        for row, token_id in chosen.items():
            self._reader.texts[row].append(token_id)
        return chosen

    def drop(self, rows: set[int]) -> None:
        """Do not continue these texts."""
        self._going -= rows

    def _launch(self) -> None:
        """Have the next ids computed and copied to the host."""
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
        """The step: read the newest ids, draw the next."""
        assert self._state is not None
        newest, uniforms, cache = self._state
        newest.copy_(self._drawing.draw(self._reader.read(newest, cache), uniforms)[:, None])

    def _fitted(self, state: _State) -> _State:
        """The state for the next step: the same tensors while the shapes stay."""
        reader, newest = self._reader, state.newest
        places = [place for place, row in enumerate(reader.rows) if row in self._going]
        if 2 * len(places) <= len(reader.rows):  # not at each text that ends, as other shapes cost another capture
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
        """Keys that the next step reads, those that it masks included."""
        needed = int(self._reader.cache.lengths.max()) + 1
        return min(-(-needed // BUCKET) * BUCKET, self._reader.cache.room)
