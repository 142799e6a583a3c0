"""Load the tasks of an evaluation from conf/task, with their records, texts and prompts."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_modules import SourceShards
from data_modules.corpora import BadRecord, TextOrConversation, open_task_records
from data_modules.corpora.file_formats import FORMATS, WHOLE_TEXTS
from data_modules.corpora.record_fields import RecordFields
from data_modules.shards.memory_mapped_shards import TokenStream
from gpt_lightning.evaluation import QuestionsConfig, Request
from gpt_lightning.evaluation.generated_text_quality import GenerationTask
from gpt_lightning.evaluation.log_likelihood_tasks import (
    ScoredTask,
    TaskDescription,
    question_task,
    read_questions,
    sample_evenly,
    text_task,
)
from gpt_lightning.evaluation.sliding_window_perplexity import text_requests
from gpt_lightning.generation import Sampling
from gpt_lightning.hub_dataset_config import HubDataset
from gpt_lightning.tokenizer import Tokenizer
from running.config import compose
from running.config.command_configs import EvaluateConfig
from running.evaluation.task_config import ConversationsConfig, TaskConfig, TextConfig, WritingConfig, read_task

Task = ScoredTask | GenerationTask
_OfRecords = QuestionsConfig | ConversationsConfig


class EvaluatedModel(NamedTuple):
    """What loading a task needs to know about the model."""

    tokenizer: Tokenizer
    max_seq_len: int
    run: Path | None
    """The run whose validation splits perplexity is measured on; None: the model does not belong to a run."""


def load_tasks(config: EvaluateConfig, examinee: EvaluatedModel) -> list[Task]:
    """Load every task that the config of evaluate.py names, in that order.

    Args:
        config: settings of evaluate.py.
        examinee: the model to evaluate.

    Raises:
        ValueError: a task is unknown, its records cannot be read or used, or something that a task needs is missing.
    """
    names, known = config.tasks, compose.group_choices("task")
    for name in names:
        if name not in known:
            raise ValueError(f"tasks: there is no task {name!r}; {compose.list_choices('task')}.")
    chosen = {name: read_task(name) for name in names}
    if config.path is not None and not any(isinstance(task, _OfRecords) for task in chosen.values()):
        raise ValueError(
            f"path is {config.path}, but none of the tasks reads records: to compute perplexity on a text of your "
            "own, use data=…."
        )
    if config.data is not None and not any(isinstance(task, TextConfig) for task in chosen.values()):
        raise ValueError(f"data is {config.data}, but none of the tasks reads a text: set records with path=….")
    tasks: list[Task] = []
    for name, task in chosen.items():
        try:
            tasks += _load(name, task, config, examinee)
        except ValueError as error:
            raise ValueError(f"task {name}: {error}") from error
    return tasks


def _load(name: str, task: TaskConfig, config: EvaluateConfig, examinee: EvaluatedModel) -> Iterator[Task]:
    if isinstance(task, QuestionsConfig):
        return _questions(name, task, config, examinee)
    if isinstance(task, ConversationsConfig):
        return _conversations(name, task, config, examinee)
    return _writing(name, task, examinee) if isinstance(task, WritingConfig) else _texts(name, config, examinee)


def _questions(name: str, task: QuestionsConfig, config: EvaluateConfig, examinee: EvaluatedModel) -> Iterator[Task]:
    records, origin = open_task_records(_path(name, config), task.hub, tell=print)
    rows = list(records)
    if rows and all(isinstance(row, str) for _, row in rows):
        others = " ".join(ending for ending in FORMATS if ending not in WHOLE_TEXTS)
        raise ValueError(f"path={config.path} contains texts: {name} needs records, in files of type {others}.")
    questions, left_out = read_questions(rows, task, limit=config.limit)
    description = TaskDescription(name=name, protocol=task.protocol, data=origin, left_out=left_out)
    asked = question_task(description, questions, examinee.tokenizer, max_seq_len=examinee.max_seq_len)
    yield replace(asked, protocol=_limited(task.protocol, config, len(rows)))


def _limited(protocol: str, config: EvaluateConfig, n_examples: int) -> str:
    """The protocol, with the limit if not all examples are used."""
    limit = config.limit
    return protocol if limit is None or limit >= n_examples else f"{protocol}, limit {limit}"


def _texts(name: str, config: EvaluateConfig, examinee: EvaluatedModel) -> Iterator[Task]:
    """One task for the validation split of each source of the run; or a single task for the text that `data` names."""
    max_seq_len, tokenizer = examinee.max_seq_len, examinee.tokenizer
    stride = max_seq_len if config.stride is None else config.stride
    windowed = f"windows of {max_seq_len}, stride {stride}"
    if config.data is not None:
        try:
            documents, left_out, origin = _documents(str(config.data), {"text": "text"})
        except ValueError as error:  # its message says path=
            raise ValueError(str(error).replace(f"path={config.data}", f"data={config.data}")) from error
        ids = [tokenizer.eot_id]
        for document in documents:
            ids += [*tokenizer.encode(str(document)), tokenizer.eot_id]
        requests = text_requests(np.array(ids), max_seq_len=max_seq_len, stride=stride)
        place = f"{name}/{Path(config.data).name}"
        protocol = _limited(windowed, config, len(requests))
        description = TaskDescription(name=place, protocol=protocol, data=origin, left_out=left_out)
        yield text_task(description, sample_evenly(requests, config.limit), tokenizer)
        return
    if examinee.run is None:
        raise ValueError("this model does not belong to a run with validation splits: set a text with data=….")
    for source, shards in _sources(examinee.run).items():
        stream = shards.val
        requests = (
            list(_conversations_of(stream, max_seq_len))
            if stream.masked
            else text_requests(stream.read(-1, len(stream)), max_seq_len=max_seq_len, stride=stride)
        )
        description = TaskDescription(
            name=f"{name}/{source}",
            protocol=_limited("whole conversations" if stream.masked else windowed, config, len(requests)),
            data={"source": source, "split": "val", "fingerprint": shards.fingerprint},
        )
        yield text_task(description, sample_evenly(requests, config.limit), tokenizer)


def _conversations_of(stream: TokenStream, max_seq_len: int) -> Iterator[Request]:
    """Sequences of a chat source's validation split, as in training.

    Sequences without loss-bearing tokens are skipped.
    """
    borders = stream.sequences(max_seq_len, whole=False).tolist()
    for start, stop in pairwise(borders):
        mask = stream.read_mask(start, stop)
        if mask.any():
            yield Request(stream.read(start - 1, stop), 1, mask)


def _conversations(
    name: str, task: ConversationsConfig, config: EvaluateConfig, examinee: EvaluatedModel
) -> Iterator[Task]:
    """One request per conversation, starting with the end-of-text id.

    A conversation longer than the context is truncated.
    """
    tokenizer, max_seq_len = examinee.tokenizer, examinee.max_seq_len
    documents, left_out, origin = _documents(_path(name, config), task.fields, task.hub)
    requests, cut = [], []
    for number, document in enumerate(sample_evenly(documents, config.limit)):
        assert not isinstance(document, str)  # the fields describe a conversation
        ids, mask = tokenizer.encode_chat(document)
        if len(ids) > max_seq_len:
            cut.append(f"conversation {number + 1}")
        if not any(mask[:max_seq_len]):
            left_out.append(f"conversation {number + 1}: no answer of the assistant lies within the model's context")
        else:
            requests.append(
                Request([tokenizer.eot_id, *ids[:max_seq_len]], 1, np.array(mask[:max_seq_len], dtype=np.bool_))
            )
    if not requests:
        raise ValueError("no conversation has an answer of the assistant within the model's context.")
    protocol = _limited("answers alone", config, len(documents))
    description = TaskDescription(name=name, protocol=protocol, data=origin, left_out=left_out)
    yield text_task(description, requests, tokenizer, cut=cut)


def _writing(name: str, task: WritingConfig, examinee: EvaluatedModel) -> Iterator[Task]:
    tokenizer = examinee.tokenizer
    encoded = [
        tokenizer.encode_chat_prompt([{"role": "user", "content": prompt}])
        if task.mode == "chat"
        else tokenizer.encode(prompt)
        for prompt in task.prompts
    ]
    yield GenerationTask(
        name=name,
        protocol=f"{task.mode}, temperature {task.temperature}, top_p {task.top_p}, seed {task.seed}",
        prompts=task.prompts,
        ids=[[tokenizer.eot_id, *ids] for ids in encoded],
        samples=task.samples,
        max_new_tokens=task.max_new_tokens,
        sampling=Sampling(temperature=task.temperature, top_p=task.top_p, seed=task.seed),
        language=task.language,
        data={"prompts": len(task.prompts), "samples of each": task.samples},
    )


def _path(name: str, config: EvaluateConfig) -> str | None:
    """Where the records of a task are: `path`, or the file with the task's name in the folder `path`; None: on the hub.

    Raises:
        ValueError: there is no such file, or several tasks would read the same one.
    """
    if config.path is None:
        return None
    path = config.path
    if path.is_dir() and (own := sorted(file for file in path.iterdir() if file.name.split(".")[0] == name)):
        return str(own[0])
    others = [other for other in config.tasks if other != name and isinstance(read_task(other), _OfRecords)]
    if others:
        raise ValueError(
            f"path={path} would also be read by {', '.join(others)}: for several tasks, path must be a folder with "
            f"{name}.jsonl (or another format), and such a file for each task."
        )
    return str(path)


def _documents(
    path: str | None, fields: Mapping[str, str | None], hub: HubDataset | None = None
) -> tuple[list[TextOrConversation], list[str], dict[str, Any]]:
    """The documents in local files or on the hub; why records were skipped; and the origin of the data."""
    records, origin = open_task_records(path, hub, tell=print)
    made_of = RecordFields(fields)
    documents, left_out = [], []
    for where, row in records:
        document = made_of.document(row)
        if isinstance(document, BadRecord):
            left_out.append(f"{where}: {document}")
        else:
            documents.append(document)
    if not documents:
        raise ValueError(f"there are no usable documents: {left_out[0] if left_out else 'there are no records'}.")
    return documents, left_out, origin


def _sources(run: Path) -> dict[str, SourceShards]:
    """The sources of a run, unchanged since it was trained.

    Raises:
        ValueError: a source has changed or is missing.
    """
    recorded = compose.read_config(run / "config.yaml")
    folder = Path(recorded["data_dir"]) / recorded["tokenizer"]["name"]
    begun: dict[str, Any] = json.loads((run / "environment.json").read_text(encoding="utf-8"))["data"]
    sources = {name: SourceShards(folder / name) for name in begun}
    for name, shards in sources.items():
        if shards.fingerprint != begun[name]["fingerprint"]:
            raise ValueError(
                f"{folder / name} was prepared again since the run was trained, so its validation split may contain "
                "training data of the model. Prepare it as before, or set a text with data=…."
            )
    return sources
