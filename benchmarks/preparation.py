"""Text to tokens on disk: our preparation compared with tiktoken's batch encoding and litdata's optimize.

The text is Python source and prose that every environment has: files of the installed packages. All contestants get the
same documents and the same number of cores. Ours and litdata read them from a JSON Lines file and write shards.
tiktoken holds them in memory and writes nothing: the work that no preparation with this tokenizer can avoid.
"""

import json
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from data_modules.corpora import FileCorpus, find_local_files
from data_modules.preparation import PreparationSettings, PreparationTarget, prepare_source
from gpt_lightning.tokenizer import load_tokenizer
from gpt_lightning.tokenizer.gpt2 import GPT2Tokenizer


def measure(who: str, *, mb: int, workers: int) -> dict[str, Any]:
    """Tokens per second, and the added megabytes of all processes together at the peak.

    Args:
        who: ours, tiktoken or litdata.
        mb: megabytes of text.
        workers: number of processes or threads.
    """
    contestants = {"ours": _ours, "tiktoken": _tiktoken, "litdata": _litdata}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texts.jsonl"
        _write_texts(path, mb)
        with _peak_memory() as peak:
            tokens, seconds = contestants[who](path, workers)
    return {"tokens_per_second": tokens / seconds, "mb": peak["mb"], "tokens": tokens}


def _ours(path: Path, workers: int) -> tuple[int, float]:
    begin = time.perf_counter()
    information = prepare_source(
        FileCorpus(find_local_files(str(path)), fields={"text": "text"}, origin={}, max_record_mb=32),
        PreparationTarget(
            name="texts", tokenizer=load_tokenizer("gpt2"), folder=path.parent / "gpt2" / "texts", licence=""
        ),
        PreparationSettings(),
        workers=workers,
    )
    return sum(split["tokens"] for split in information["splits"].values()), time.perf_counter() - begin


def _tiktoken(path: Path, workers: int) -> tuple[int, float]:
    encoding = GPT2Tokenizer(chat=False)._encoding
    texts = list(_texts(path))
    begin = time.perf_counter()
    encoded = encoding.encode_ordinary_batch(texts, num_threads=workers)
    seconds = time.perf_counter() - begin
    return sum(len(ids) + 1 for ids in encoded), seconds


def _litdata(path: Path, workers: int) -> tuple[int, float]:
    """One input per worker: the lines whose number modulo `workers` is the worker's."""
    from litdata import TokensLoader, optimize  # a peer, installed for the benchmark only

    begin = time.perf_counter()
    output = path.parent / "litdata"
    optimize(
        fn=partial(_litdata_tokens, path, workers),
        inputs=list(range(workers)),
        output_dir=str(output),
        chunk_size=10_000_000,
        item_loader=TokensLoader(),
        num_workers=workers,
    )
    seconds = time.perf_counter() - begin
    chunks = json.loads((output / "index.json").read_text())["chunks"]
    return sum(chunk["dim"] for chunk in chunks), seconds


def _litdata_tokens(path: Path, workers: int, rest: int) -> Iterator[Any]:
    import torch  # litdata's writer takes tensors

    tokenizer = load_tokenizer("gpt2")
    for number, text in enumerate(_texts(path)):
        if number % workers == rest:
            ids = np.append(tokenizer.encode_batch([text])[0], tokenizer.eot_id)
            yield torch.from_numpy(ids.astype(np.uint16))


def _texts(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)["text"]


def _write_texts(path: Path, mb: int) -> None:
    """Write text files of the installed packages as records, up to `mb` megabytes; start over if there are too few."""
    root = Path(sysconfig.get_path("purelib"))
    files = sorted(f for suffix in ("*.py", "*.pyi", "*.md", "*.rst", "*.txt") for f in root.rglob(suffix))
    n_bytes = 0
    with path.open("w", encoding="utf-8") as output:
        while n_bytes < mb * 1e6:
            for file in files:
                text = file.read_text(encoding="utf-8", errors="replace")
                if 200 < len(text) < 1_000_000 and n_bytes < mb * 1e6:
                    n_bytes += len(text.encode())
                    output.write(json.dumps({"text": text}) + "\n")


@contextmanager
def _peak_memory() -> Iterator[dict[str, float]]:
    """Yield a dict; its `mb` is at the end the added peak memory of this process and its children, unshared."""
    ended = threading.Event()
    peak = {"mb": 0.0}
    before = _unique_mb()

    def watch() -> None:
        while not ended.wait(0.1):
            peak["mb"] = max(peak["mb"], _unique_mb() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def _unique_mb() -> float:
    total = 0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            total += process.memory_full_info().uss
        except psutil.NoSuchProcess:
            continue  # it ended meanwhile
    return total / 1e6
