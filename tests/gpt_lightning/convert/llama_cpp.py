"""A model in llama.cpp, as its server gives it. Everything is computed in f32."""

import json
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xllamacpp


class LlamaCpp:
    """The server of llama.cpp with one model.

    Its flash attention rounds to 16 bits, even with a cache of f32; without it, all numbers are f32.
    """

    def __init__(self, file: Path, *, max_seq_len: int) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = str(file)
        params.n_ctx, params.n_parallel, params.warmup = max_seq_len, 1, False
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.verbosity = -1
        self._server = xllamacpp.Server(params)

    def ask(self, path: str, **body: Any) -> dict[str, Any]:
        """The answer to a request."""
        url, head = f"{self._server.listening_address}{path}", {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), head)) as answer:
            return dict(json.load(answer))

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of a text, with the token that stands before each text."""
        return list(self.ask("/tokenize", content=text, add_special=True, parse_special=special)["tokens"])

    def greedy(self, ids: Sequence[int], n: int) -> list[int]:
        """The n ids after a prompt; text may go on after an end of text."""
        answer = self.ask(
            "/completion", prompt=list(ids), n_predict=n, temperature=0, return_tokens=True, cache_prompt=False
        )
        return list(answer["tokens"])
