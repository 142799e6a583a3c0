"""Evaluate a model on tasks. The results go into a table and into evaluation.json."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.table import Table

from analysis.comparison.evaluation_section import format_metric_value as digits_of
from gpt_lightning.checkpoint_folder import newest_valid_checkpoint
from gpt_lightning.console import Console
from gpt_lightning.convert import load_model
from gpt_lightning.device_and_precision import choose_device
from gpt_lightning.durable_files import make_folder, write_durably
from gpt_lightning.evaluation import Estimate
from gpt_lightning.evaluation.multiple_choice import exp
from gpt_lightning.evaluation.sliding_window_perplexity import mean_over_sources
from gpt_lightning.verified_checkpoint import checkpoint_fingerprint
from running.config.command_configs import EvaluateConfig
from running.evaluation.resumable_task_runner import EvaluationRanks, LoadedModel, ResumableTaskRunner
from running.evaluation.task_loading import EvaluatedModel, load_tasks
from running.training.find_tokenizer import load_model_tokenizer

_DIGITS = {"perplexity": 2, "tokens": 1}  # decimals in the table; 4 for other metrics


def evaluate_model(config: EvaluateConfig) -> dict[str, Any]:
    """Run the tasks of a config, write evaluation.json and one file per task, and print the table.

    All checks run before any example is scored. To continue a stopped evaluation, call this again.

    Args:
        config: settings of evaluate.py.

    Returns:
        The content of evaluation.json.

    Raises:
        ValueError: the model cannot be read, a task is unknown, or a task's records cannot be used.
    """
    path, run, folder = evaluation_places(config)
    tokenizer = load_model_tokenizer(path, config.tokenizer.name)
    model = load_model(path)
    if model.config.vocab_size < tokenizer.vocab_size:
        raise ValueError(
            f"{path} has a vocabulary of {model.config.vocab_size}, smaller than the {tokenizer.vocab_size} tokens of "
            f"tokenizer {tokenizer.name}: set the model's own tokenizer with tokenizer.name=…."
        )
    tasks = load_tasks(config, EvaluatedModel(tokenizer, model.config.max_seq_len, run))
    console = Console(soft_wrap=True)
    weights, device = checkpoint_fingerprint(model.state_dict()), choose_device("auto")
    ranks = EvaluationRanks()
    examination = ResumableTaskRunner(
        folder,
        LoadedModel(model=model.to(device), tokenizer=tokenizer, weights=weights),
        batch_tokens=config.batch_tokens,
        ranks=ranks,
        console=console,
    )
    make_folder(folder)
    results: list[dict[str, Any]] = []
    for task in tasks:
        results += examination.take(task)
    results += _means(results)
    report = {
        "model": {"path": str(path), "weights": weights, "parameters": model.n_parameters()},
        "tokenizer": {"name": tokenizer.name, "fingerprint": tokenizer.fingerprint},
        "device": device,
        "versions": {name: version(name) for name in ("gpt-lightning", "torch")},
        "results": _finite(results),
    }
    if ranks.rank == 0:
        write_durably(folder / "evaluation.json", _merged(folder / "evaluation.json", report))
        console.print(f"{path}: {model.n_parameters():,} parameters, tokenizer {tokenizer.name}")
        _print(results, console)
        console.print(f"\n{folder / 'evaluation.json'}; the results of each example are in the same folder")
    return report


def evaluation_places(config: EvaluateConfig) -> tuple[Path, Path | None, Path]:
    """Path of the model, the run directory (None if the model does not belong to a run), and the folder for the
    results.

    Args:
        config: settings of evaluate.py.

    Raises:
        ValueError: the run has no valid checkpoint.
    """
    path = config.model
    assert path is not None
    if path.is_dir() and (path / "checkpoints").is_dir():
        newest = newest_valid_checkpoint(path / "checkpoints")
        if newest is None:
            raise ValueError(f"{path} has no valid checkpoint in its checkpoints folder.")
        path = newest
    run = next((folder for folder in path.parents if (folder / "environment.json").is_file()), None)
    of_run = run is not None and path.is_file()
    default = (
        run / "evaluation" / path.stem if of_run and run else (path if path.is_dir() else path.parent) / "evaluation"
    )
    return path, run if of_run else None, default if config.out_dir is None else config.out_dir


def _means(results: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Unweighted means over the parts of a task, such as the sources of perplexity.

    A mean perplexity is the exponential of the mean loss.
    """
    parts: dict[str, dict[str, list[Estimate]]] = {}
    protocols: dict[str, dict[str, None]] = {}
    data: dict[str, dict[str, Any]] = {}
    for result in results:
        whole, of_several, _ = result["task"].partition("/")
        if of_several:
            estimate = Estimate(*(result[key] for key in ("value", "low", "high", "n")))
            parts.setdefault(whole, {}).setdefault(result["metric"], []).append(estimate)
            protocols.setdefault(whole, {})[result["protocol"]] = None
            data.setdefault(whole, {})[result["task"]] = result["data"]
    for task, metrics in parts.items():
        if len(metrics["loss"]) > 1:
            loss = mean_over_sources(metrics["loss"])
            means = {
                "loss": loss,
                "perplexity": loss.through(exp),
                "bits_per_byte": mean_over_sources(metrics["bits_per_byte"]),
            }
            for metric, estimate in means.items():
                yield {
                    "task": f"{task}/mean",
                    "protocol": "; ".join(protocols[task]),
                    "metric": metric,
                    **vars(estimate),
                    "data": data[task],
                }


def _merged(path: Path, report: dict[str, Any]) -> dict[str, Any]:
    """Add the results that an earlier report has for other tasks of the same model."""
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        if (earlier["model"]["weights"], earlier["tokenizer"]) != (report["model"]["weights"], report["tokenizer"]):
            return report
        done = set(map(_measured, report["results"]))
        others = [result for result in earlier["results"] if _measured(result) not in done]
    except (OSError, ValueError, KeyError, TypeError):  # no earlier report, or not a report
        return report
    return report | {"results": [*others, *report["results"]]}


def _measured(result: Mapping[str, Any]) -> str:
    """What a result measures. The same task on other data is another result."""
    return json.dumps([result["task"], result["protocol"], result.get("data")], sort_keys=True)


def _finite(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Replace infinite values, such as the interval of a single example, by JSON's null."""
    return [
        {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in result.items()}
        for result in results
    ]


def _print(results: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print a table of each task's metrics."""
    for (task, protocol), of_task in groupby(results, key=lambda result: (result["task"], result["protocol"])):
        figures = list(of_task)
        seconds = f", {figures[0]['seconds']:,} s" if "seconds" in figures[0] else ""
        of = f"{figures[0]['n']:,} examples, data {digits_of(figures[0]['data'])}{seconds}"
        console.print(f"\n{task} ({protocol}), {of}", style="bold")
        chance = [f"{result['chance']:.4f}" if "chance" in result else "" for result in figures]
        heads = ["metric", "value", "95 % interval", *(["chance"] if any(chance) else [])]
        table = Table(*heads, box=None, pad_edge=False)
        for column in table.columns[1:]:
            column.justify = "right"
        for result, guessed in zip(figures, chance, strict=True):
            digits = _DIGITS.get(result["metric"], 4)
            value, low, high = (f"{result[key]:,.{digits}f}" for key in ("value", "low", "high"))
            table.add_row(result["metric"], value, f"{low} to {high}", *([guessed] if any(chance) else []))
        console.print(table)
        for what, places in (
            ("skipped records", figures[0].get("left_out")),
            ("contexts truncated to fit the model", figures[0].get("cut")),
        ):
            if places:
                console.print(f"{what}: {len(places):,}, the first: {places[0]}", style="bold red")
