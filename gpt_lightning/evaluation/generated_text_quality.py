"""Metrics of generated text: length, repetition, and whether it is valid Python. All sampling follows from a seed."""

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

GENERATION_BATCH = (
    16  # prompts per batch; a constant, because the random numbers depend on a prompt's place in its batch
)
_MAY_GO_ON: int = codeop.PyCF_ALLOW_INCOMPLETE_INPUT  # type: ignore[attr-defined]  # missing from the type stubs
_REPEATED = 4  # length in tokens of the n-grams that count as repeated


@dataclass(frozen=True, kw_only=True)
class GenerationTask:
    """Prompts to continue, each several times."""

    name: str
    protocol: str
    prompts: Sequence[str]
    ids: Sequence[Sequence[int]]
    """Token ids of each prompt."""
    samples: int
    """Number of continuations per prompt."""
    max_new_tokens: int
    sampling: Sampling
    language: str | None
    """`python`: measure whether prompt plus continuation is valid Python. None: do not."""
    data: Mapping[str, Any]

    def __len__(self) -> int:
        """Return the number of texts to generate."""
        return len(self.prompts) * self.samples


def generate_texts(
    model: GPT, tokenizer: Tokenizer, task: GenerationTask, numbers: Sequence[int]
) -> list[tuple[str, list[int]]]:
    """Generate one batch of a task's texts.

    Args:
        model: The model to evaluate.
        tokenizer: The model's tokenizer.
        task: The prompts and the sampling settings.
        numbers: `GENERATION_BATCH` consecutive text numbers (fewer at the end); text n continues prompt n // samples.

    Returns:
        (text, ids) of each continuation, without the prompt.
    """
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
    """Compute the metrics of all texts of a task.

    Args:
        task: The task.
        texts: (text, ids) of every continuation, in order.

    Returns:
        `tokens`: mean length; `ended`: share of texts that the model ended before max_new_tokens; `repetition`: share
            of
        4-grams that occurred before in the same text (seq-rep-4, arXiv:1908.04319); `parses`: share that is valid
        Python.
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
    """Return whether a text is valid Python with at least one statement.

    Args:
        text: The source code.
        ended: False if the text was cut off. Then the last line and an incomplete last statement are ignored.
    """
    if ended:
        return _is_whole(text)
    lines = text.split("\n")[:-1]
    begins = [n for n, line in enumerate(lines) if line[:1].strip() and line[0] not in ")]}#"]
    cuts = (
        len(lines),
        *reversed(begins),
    )  # try earlier cuts too: a line may be inside a string, or belong to a decorated statement
    return any(_is_whole("\n".join(lines[:cut])) and _is_begun("\n".join(lines[cut:])) for cut in cuts)


def _is_whole(text: str) -> bool:
    """Return whether a text consists of one or more complete statements."""
    tree = _parsed(text)
    return isinstance(tree, ast.Module) and bool(tree.body)


def _is_begun(text: str) -> bool:
    """Return whether more text could complete the statements of this one."""
    tree = _parsed(text)
    return isinstance(tree, ast.Module) or (tree is not None and tree.msg == "incomplete input")


def _parsed(text: str) -> ast.Module | SyntaxError | None:
    """Parse a text. Returns the error for a syntax error, None if Python cannot process the text."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # Python accepts "\\d" but warns
            flags = ast.PyCF_ONLY_AST | _MAY_GO_ON
            tree: ast.Module = compile(text, "<text>", "exec", flags)
            return tree
    except SyntaxError as error:
        return error
    except (ValueError, RecursionError, MemoryError):
        return None
