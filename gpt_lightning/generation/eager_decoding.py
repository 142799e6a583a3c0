"""Decode token by token, each pass launched separately and over exactly the existing keys."""

import torch
from torch import Tensor

from gpt_lightning.generation.rolling_kv_cache import RollingKVCache
from gpt_lightning.generation.sampling import TokenSampler


class EagerDecoding:
    """Continue texts by one token at a time."""

    def __init__(self, reader: RollingKVCache, drawing: TokenSampler) -> None:
        self._reader = reader
        self._drawing = drawing
        self._begun = False

    def next_ids(self) -> dict[int, int]:
        """Return the next id of every text, by the text's index."""
        reader, drawing = self._reader, self._drawing
        logits = self._read_newest() if self._begun else reader.read_prompts()
        self._begun = True
        uniforms = drawing.uniforms()
        ids = drawing.draw(logits, None if uniforms is None else reader.on_device(uniforms)).tolist()
        chosen = dict(zip(reader.rows, ids, strict=True))
        for row, token_id in chosen.items():
            reader.texts[row].append(token_id)
        return chosen

    def drop(self, rows: set[int]) -> None:
        """Stop continuing these texts."""
        places = [place for place, row in enumerate(self._reader.rows) if row not in rows]
        self._reader.keep(places)
        self._drawing.keep(places)

    def _read_newest(self) -> Tensor:
        reader = self._reader
        reader.renew(reader.full(), reader.rows)
        newest = [reader.texts[row][-1:] for row in reader.rows]
        return reader.read(reader.on_device(torch.tensor(newest)), reader.cache)
