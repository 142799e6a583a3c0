"""The results of an evaluation in a folder. A restart keeps all finished work of all ranks.

    <folder>/<task>.scores.<rank>.jsonl   while a task runs: a key, then (number, result) of each request
    <folder>/<task>.jsonl                 the result of each example
    <folder>/evaluation.json              every metric, with interval, and the data it was measured on

The key is a hash of the model and of every request, so results of another evaluation are never reused.
"""

import glob
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gpt_lightning.console import Console
from gpt_lightning.evaluation import Score, generated_text_quality, group_request_indices, score_batch
from gpt_lightning.evaluation.generated_text_quality import GenerationTask
from gpt_lightning.evaluation.log_likelihood_tasks import ScoredTask
from gpt_lightning.model import GPT
from gpt_lightning.tokenizer import Tokenizer
from running.evaluation.task_loading import Task
from running.training.rank_processes import detect_launcher


class EvaluationRanks:
    """The processes of an evaluation.

    Each process scores a share of the requests. The processes exchange results only through the folder.
    """

    def __init__(self) -> None:
        self.rank, self.n_ranks = 0, 1
        if detect_launcher() is not None:
            if "MASTER_ADDR" not in os.environ:
                raise ValueError("an evaluation on several processes must be started by torchrun, or with devices=….")
            torch.distributed.init_process_group("gloo")
            self.rank, self.n_ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
            if torch.cuda.is_available():  # one GPU per process if there are enough
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", self.rank)) % torch.cuda.device_count())

    def meet(self) -> None:
        """Wait for all ranks."""
        if self.n_ranks > 1:
            torch.distributed.barrier()


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model on its device, with its tokenizer."""

    model: GPT
    """The model, on its device."""
    tokenizer: Tokenizer
    """The tokenizer of the model."""
    weights: str
    """Fingerprint of the model's weights."""


class ResumableTaskRunner:
    """Runs tasks one after the other. A task that was stopped continues where it stopped.

    Args:
        folder: where results are stored.
        loaded: the model to evaluate.
        batch_tokens: tokens per forward pass.
        ranks: the processes that share the requests.
        console: console of the progress bar.
    """

    def __init__(
        self, folder: Path, loaded: LoadedModel, *, batch_tokens: int, ranks: EvaluationRanks, console: Console
    ) -> None:
        self._folder, self._batch_tokens = folder, batch_tokens
        self._model, self._tokenizer, self._weights = loaded.model, loaded.tokenizer, loaded.weights
        self._ranks, self._console = ranks, console

    def take(self, task: Task) -> list[dict[str, Any]]:
        """Run a task and write the result of each example.

        Args:
            task: the task, with its requests or prompts.

        Returns:
            The metrics of the task, as evaluation.json has them.
        """
        began = time.monotonic()
        key = _key(f"{self._weights} {self._tokenizer.fingerprint}", task)
        ledger = _Ledger(self._folder / f"{_file_name(task.name)}.scores", key=key)
        if isinstance(task, ScoredTask):
            requests = task.requests
            groups = group_request_indices(requests, batch_tokens=self._batch_tokens)
            done = self._work(
                task.name, ledger, groups, lambda group: score_batch(self._model, [requests[n] for n in group])
            )
            scores = [Score(*result) for result in done]
            figures, examples = task.figures(scores), task.examples(scores)
        else:
            groups = [
                list(range(n, min(n + generated_text_quality.GENERATION_BATCH, len(task))))
                for n in range(0, len(task), generated_text_quality.GENERATION_BATCH)
            ]
            texts = self._work(
                task.name,
                ledger,
                groups,
                lambda group: generated_text_quality.generate_texts(self._model, self._tokenizer, task, group),
            )
            figures = generated_text_quality.generation_metrics(task, texts)
            examples = (
                {"prompt": task.prompts[n // task.samples], "text": text, "tokens": len(ids)}
                for n, (text, ids) in enumerate(texts)
            )
        if self._ranks.rank == 0:
            self._write_examples(task.name, examples)
        self._ranks.meet()  # all ranks have read the files that are now removed
        if self._ranks.rank == 0:
            ledger.remove()
        about = {
            "data": dict(task.data),
            "left_out": list(task.left_out) if isinstance(task, ScoredTask) else [],
            "cut": list(task.cut) if isinstance(task, ScoredTask) else [],
            "seconds": round(time.monotonic() - began, 2),
        }
        chance = {"chance": task.chance} if isinstance(task, ScoredTask) and task.chance is not None else {}
        return [
            {"task": task.name, "protocol": task.protocol, "metric": metric, **vars(estimate)}
            | (chance if metric.startswith("acc") else {})
            | about
            for metric, estimate in figures.items()
        ]

    def _work(
        self, what: str, ledger: "_Ledger", groups: Sequence[list[int]], work: Callable[[list[int]], Sequence[Any]]
    ) -> list[Any]:
        """Results of all groups, in the order of the requests' numbers. Finished requests are not computed again."""
        self._ranks.meet()  # no rank writes while another still reads
        done = ledger.read()
        self._ranks.meet()
        left = [group for group in groups if not all(number in done for number in group)]
        add = ledger.begin(self._ranks.rank)
        for group in self._shown(what, left[self._ranks.rank :: self._ranks.n_ranks]):
            add(group, work(group))
        self._ranks.meet()
        results = ledger.read()
        return [results[number] for number in range(sum(map(len, groups)))]

    def _shown(self, what: str, groups: Sequence[list[int]]) -> Iterator[list[int]]:
        """The groups, with a progress bar on rank 0 at a terminal."""
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn("batches,"), TimeRemainingColumn())
        hidden = self._ranks.rank > 0 or not self._console.is_terminal
        with Progress(*columns, TextColumn("left"), console=self._console, transient=True, disable=hidden) as progress:
            yield from progress.track(groups)

    def _write_examples(self, task: str, examples: Iterable[Mapping[str, Any]]) -> None:
        path = self._folder / f"{_file_name(task)}.jsonl"
        temporary = path.with_suffix(".tmp")
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(example, ensure_ascii=False)}\n" for example in examples)
        temporary.replace(path)


class _Ledger:
    """Results by number of the request, in one file per rank. Each rank reads all files."""

    def __init__(self, path: Path, *, key: str) -> None:
        self._path, self._head = path, json.dumps(key) + "\n"

    def read(self) -> dict[int, Any]:
        """The finished results. A torn last line is ignored."""
        done: dict[int, Any] = {}
        for path in self._files():
            text = path.read_text(encoding="utf-8")
            if text.startswith(self._head):
                done |= {number: result for number, result in map(json.loads, text.split("\n")[1:-1])}
        return done

    def begin(self, rank: int) -> Callable[[Sequence[int], Sequence[Any]], None]:
        """A function that appends results of this rank. Results of an earlier start with the same key are kept."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        path = self._path.with_name(f"{self._path.name}.{rank}.jsonl")
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        path.write_text(text[: text.rfind("\n") + 1] if text.startswith(self._head) else self._head, encoding="utf-8")

        def add(numbers: Sequence[int], results: Sequence[Any]) -> None:
            lines = "".join(f"{json.dumps(pair)}\n" for pair in zip(numbers, results, strict=True))
            with path.open("a", encoding="utf-8") as file:
                file.write(lines)

        return add

    def remove(self) -> None:
        """Delete the files, whose content is in the file of the task by now."""
        for path in self._files():
            path.unlink()

    def _files(self) -> list[Path]:
        return sorted(self._path.parent.glob(f"{glob.escape(self._path.name)}.*.jsonl"))


def _file_name(task: str) -> str:
    return re.sub(r"[^\w.,=+-]", "_", task)


def _key(examinee: str, task: Task) -> str:
    """A hash of everything that determines a task's results."""
    digest = hashlib.sha256(examinee.encode())
    if isinstance(task, ScoredTask):
        for request in task.requests:
            for part in (request.ids, [request.first], () if request.mask is None else request.mask):
                digest.update(np.asarray(part, dtype=np.int64).tobytes() + b"|")
    else:
        assert isinstance(task, GenerationTask)
        of = (task.prompts, [list(ids) for ids in task.ids], task.samples, task.max_new_tokens, vars(task.sampling))
        digest.update(json.dumps(of).encode())
    return digest.hexdigest()
