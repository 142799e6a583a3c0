"""What a model writes, measured: how long, how repetitive, and whether Python can read it. All drawn from a seed."""

import ast
import codeop
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpt_lightning.evaluation.confidence_intervals import Estimate, proportion_interval, ratio_interval
from gpt_lightning.generation import Sampling, generate
from gpt_lightning.model import GPT
from gpt_lightning.tokenizer import Tokenizer

GENERATION_BATCH = 16  # prompts that are continued side by side; a constant, as each draws by its number among them
_MAY_GO_ON: int = codeop.PyCF_ALLOW_INCOMPLETE_INPUT  # type: ignore[attr-defined]  # its stubs do not know it
_REPEATED = 4  # tokens in a row


@dataclass(frozen=True, kw_only=True)
class GenerationTask:
    """Prompts to be continued, each several times."""

    name: str
    protocol: str
    prompts: Sequence[str]
    ids: Sequence[Sequence[int]]
    """Of each prompt, as the model reads it."""
    samples: int
    """Of each prompt."""
    max_new_tokens: int
    sampling: Sampling
    language: str | None
    """`python`: whether prompt and continuation together are Python is measured; None: it is not."""
    data: Mapping[str, Any]

    def __len__(self) -> int:
        """Texts to be written."""
        return len(self.prompts) * self.samples


def generate_texts(
    model: GPT, tokenizer: Tokenizer, task: GenerationTask, numbers: Sequence[int]
) -> list[tuple[str, list[int]]]:
    """Generate `GENERATION_BATCH` consecutive texts of a task, or its last ones: (text, ids) of each, without the prompt."""
    sampling = Sampling(
        **{**vars(task.sampling), "seed": task.sampling.seed * 1_000_003 + numbers[0] // GENERATION_BATCH}
    )
    written = generate(
        model,
        [task.ids[number // task.samples] for number in numbers],
        task.max_new_tokens,
        sampling=sampling,
        stop_ids=list(tokenizer.special_ids.values()),
        vocab_size=tokenizer.vocab_size,
    )
    return [(tokenizer.decode(ids), ids) for ids in written]


def generation_metrics(task: GenerationTask, texts: Sequence[tuple[str, Sequence[int]]]) -> dict[str, Estimate]:
    """Of all of a task's texts, in their order:

    `tokens`, the mean length; `ended`, the share that the model ended itself; `repetition`, the share of runs of four tokens that
    their text has had before (seq-rep-4, arXiv:1908.04319); `parses`, the share that Python reads.
    """
    lengths = [len(ids) for _, ids in texts]
    metrics = {
        "tokens": ratio_interval(lengths, np.ones(len(texts))),
        "ended": proportion_interval(sum(length < task.max_new_tokens for length in lengths), len(texts)),
    }
    runs = [[tuple(ids[n : n + _REPEATED]) for n in range(len(ids) - _REPEATED + 1)] for _, ids in texts]
    if any(runs):
        metrics["repetition"] = ratio_interval([len(run) - len(set(run)) for run in runs], [len(run) for run in runs])
    if task.language == "python":
        whole = [
            is_python(task.prompts[number // task.samples] + text, ended=len(ids) < task.max_new_tokens)
            for number, (text, ids) in enumerate(texts)
        ]
        metrics["parses"] = proportion_interval(sum(whole), len(whole))
    return metrics


def is_python(text: str, *, ended: bool) -> bool:
    """Whether Python can read a text, in which there must be a statement.

    Of a text that was cut off, the last line is left out, and what it leaves unfinished: a statement that could still become one.
    """
    if ended:
        return _is_whole(text)
    lines = text.split("\n")[:-1]
    begins = [n for n, line in enumerate(lines) if line[:1].strip() and line[0] not in ")]}#"]
    cuts = (
        len(lines),
        *reversed(begins),
    )  # more than one: a decorator, or a line in a string, begins no statement of its own
    return any(_is_whole("\n".join(lines[:cut])) and _is_begun("\n".join(lines[cut:])) for cut in cuts)


def _is_whole(text: str) -> bool:
    """Whether a text is one or more statements."""
    tree = _parsed(text)
    return isinstance(tree, ast.Module) and bool(tree.body)


def _is_begun(text: str) -> bool:
    """Whether more text could make statements of this one."""
    tree = _parsed(text)
    return isinstance(tree, ast.Module) or (tree is not None and tree.msg == "incomplete input")


def _parsed(text: str) -> ast.Module | SyntaxError | None:
    """What Python says of a text; None: that it is beyond it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # Python reads "\\d", and says that it need not for ever
            flags = ast.PyCF_ONLY_AST | _MAY_GO_ON
            tree: ast.Module = compile(text, "<text>", "exec", flags)
            return tree
    except SyntaxError as error:
        return error
    except (ValueError, RecursionError, MemoryError):
        return None
