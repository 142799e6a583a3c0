"""plan.py: what a run would consume, cost and reach, computed before it starts; writes plan.png and plan.json."""

import json
import math
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from analysis import time_and_loss_forecast
from analysis.number_formatting import format_bytes, format_count, format_duration
from data_modules import Curriculum, SampleOrder
from data_modules.order.curriculum_repair import smallest_change
from data_modules.order.sample_order import SourceExhaustedError
from data_modules.order.source_plan import SourcePlan, plan_sources
from gpt_lightning.checkpoint_retention import checkpoint_step, list_checkpoints
from gpt_lightning.console import Console, escape_control_characters, say
from running.config.callback_configs import check_known_callbacks
from running.config.compose import read_config
from running.config.run_config import PlanConfig, RunConfig
from running.config.settings_parser import parse
from running.sweeps.multirun import Multirun
from running.training.builders import build_sample_order, build_schedule
from running.training.cost_estimate import estimate_costs
from running.training.prepared_data import SourceSize, source_sizes
from running.training.resume import ResumePoint, find_resume_point
from running.training.run_directory import RunDirectory

_POINTS = 200  # on each curve
_WIDTH = 110  # of tables in characters, when the output is not a terminal


def plan(config: Mapping[str, Any], *, silently: bool = False) -> dict[str, Any]:
    """Compose what train.py would run, print its plan and draw it.

    This builds no model and reads only the sizes of the data.

    Args:
        config: the composed settings of train.py and of `plan`.
        silently: print, draw and write nothing. Problems are returned in the result and not raised.

    Returns:
        The content of plan.json.

    Raises:
        ValueError: train.py would refuse the run; or, after everything is printed, the plan exceeds a limit, a source
            or the disk. Then the message names the smallest change that makes it feasible.
    """
    run_config = RunConfig.of(config)
    if config["mix_design"] is not None:
        from running.sweeps.mix_design import propose_mixes  # SciPy is slow to import

        return propose_mixes(run_config, config["mix_design"])
    assumed = parse(PlanConfig, config["plan"], name="plan")
    return _plan(_as_begun(run_config), assumed, silently=silently)


def _plan(config: RunConfig, assumed: PlanConfig, *, silently: bool) -> dict[str, Any]:
    run, curriculum, schedule = RunDirectory(config.run_dir), config.curriculum, build_schedule(config)
    if not check_known_callbacks(config.callbacks):
        from running.training.callback_builders import build_callbacks  # Lightning takes seconds to import

        build_callbacks(config.callbacks)
    beginning, sizes, refused = _beginning(run.path, config, may_be_another=not silently)
    sequences = {name: size.sequences for name, size in sizes.items()}

    def order_by(changed: Curriculum) -> SampleOrder:
        return build_sample_order(config, changed, sequences, beginning)

    problems = []
    try:
        order = order_by(curriculum)
    except SourceExhaustedError as error:
        order = order_by(replace(curriculum, on_exhausted="repeat"))
        change = (
            " ".join(smallest_change(config.settings["curriculum"], error, order_by))
            or "curriculum.on_exhausted=repeat"
        )
        problems.append(f"{error.fact}. The smallest change: {change}.")
    sources = plan_sources(order, {name: size.loss_bearing for name, size in sizes.items()})
    costs = estimate_costs(config, assumed, order, beginning)
    problems += _disk_problems(config, run.path, costs)
    expected = [name for name, size in sizes.items() if size.is_expected]
    content = {
        "name": config.name,
        "steps": order.steps,
        "tokens_per_step": config.tokens_per_step,
        "sources": {name: asdict(source) for name, source in sources.items()},
        "not_prepared": expected,
        **costs,
        "problems": problems,
    }
    if silently:
        return content
    _print(config, assumed, sources, costs, expected)
    if refused:
        say(f"\n{run.path} is complete. This is the plan of a new run, which needs another name=…: {refused}")
    else:
        run.path.mkdir(parents=True, exist_ok=True)
        _draw(run.path / "plan.png", config, order, schedule, beginning.step)
        (run.path / "plan.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        say(f"\n{run.path / 'plan.png'}, {run.path / 'plan.json'}")
    if problems:
        raise ValueError("the plan is not feasible: " + " ".join(problems))
    return content


def plan_silently(config: Mapping[str, Any]) -> dict[str, Any]:
    """Call `plan` for one job of a sweep, without output."""
    return plan(config, silently=True)


def _beginning(
    run: Path, config: RunConfig, *, may_be_another: bool
) -> tuple[ResumePoint, dict[str, SourceSize], str | None]:
    """Find where the run would start and how large each source is.

    If the run is complete and cannot continue with these settings, the third item says why, and the others describe a
    new run.
    """
    anew = ResumePoint(None, 0, None, False)
    if not (may_be_another and _is_done(run)):
        beginning = find_resume_point(run, config)
        return beginning, source_sizes(config, _sources(beginning, config.curriculum)), None
    try:
        beginning = find_resume_point(run, config)
        sizes = source_sizes(config, _sources(beginning, config.curriculum))
        with suppress(SourceExhaustedError):
            build_sample_order(
                config, config.curriculum, {name: size.sequences for name, size in sizes.items()}, beginning
            )
    except ValueError as error:
        return anew, source_sizes(config, config.curriculum.sources), str(error)
    return beginning, sizes, None


def _sources(beginning: ResumePoint, curriculum: Curriculum) -> list[str]:
    return list(dict.fromkeys((*beginning.sources, *curriculum.sources)))


def _is_done(run: Path) -> bool:
    """Whether the folder holds a run that has completed its own `max_steps`."""
    own, config = list_checkpoints(run / "checkpoints"), run / "config.yaml"
    return bool(own) and config.is_file() and checkpoint_step(own[0]) == read_config(config).get("max_steps")


def _as_begun(config: RunConfig) -> RunConfig:
    """If the run exists, replace `auto` by the precision that it started with."""
    begun = config.run_dir / "config.yaml"
    if config.trainer.precision != "auto" or not begun.is_file():
        return config
    return config.with_precision(read_config(begun)["trainer"]["precision"])


def _disk_problems(config: RunConfig, run: Path, costs: Mapping[str, Any]) -> list[str]:
    """Check the free disk space.

    One checkpoint more than `keep` exists while one is written, plus the best and permanent ones.
    """
    exists = next(folder for folder in (run, *run.resolve().parents) if folder.is_dir())
    ours = sum(path.stat().st_size for path in (run / "checkpoints").glob("step_*.pt"))
    free, needed = shutil.disk_usage(exists).free + ours, costs["disk_bytes"]
    if free >= needed:
        return []
    most = needed // costs["checkpoint_bytes"]
    fits = config.callbacks["checkpoints"]["keep"] + free // costs["checkpoint_bytes"] - most
    fewer = f"callbacks.checkpoints.keep={fits}, or " if fits >= 1 else ""
    return [
        f"{run} needs {format_bytes(needed)} for {most} checkpoints, but {format_bytes(free)} are free. "
        f"The smallest change: {fewer}free another {format_bytes(needed - free)}, or set runs_dir=… on another disk."
    ]


def _print(
    config: RunConfig,
    assumed: PlanConfig,
    sources: Mapping[str, SourcePlan],
    costs: Mapping[str, Any],
    expected: list[str],
) -> None:
    console = Console(soft_wrap=True)
    if not console.is_terminal:
        console.width = _WIDTH
    max_seq_len = config.model.max_seq_len
    if costs["from_step"]:
        console.print(f"resuming after step {costs['from_step']:,}: FLOPs and hours are of the remaining steps")
    console.print(
        f"{config.name}: {config.max_steps:,} steps of {config.global_batch * max_seq_len:,} tokens "
        f"({config.global_batch} sequences of {max_seq_len:,}), {format_count(costs['tokens'])} in all\n"
    )
    table = Table("source", *_HEAD, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
        column.no_wrap = True
    for name, source in sources.items():
        table.add_row(
            name + " *" * (name in expected),
            format_count(source.sequences * max_seq_len),
            format_count(source.unique_sequences * max_seq_len),
            f"{source.epochs:.2f}" + (f" of {source.max_epochs:g}" if source.max_epochs else ""),
            "" if source.repeats_after is None else f"{source.repeats_after:,}",
            "" if source.limit_reached_after is None else f"{source.limit_reached_after:,}",
            f"{source.loss_bearing:.2%}",
            f"{source.loss_bearing_last_tenth:.2%}",
        )
    console.print(table)
    if expected:
        console.print("* not prepared yet: its size is an estimate")
    if beyond := [name for name, source in sources.items() if source.max_epochs and source.epochs > source.max_epochs]:
        console.print(f"beyond the limit of epochs (on_exhausted=repeat): {', '.join(beyond)}")
    console.print()
    tenths = Table("% of the sequences in tenth", *map(str, range(1, 11)), box=None, pad_edge=False)
    for name, source in sources.items():
        tenths.add_row(name, *(f"{share:.1%}".rstrip("%") for share in source.tenths))
    for column in tenths.columns[1:]:
        column.justify = "right"
    console.print(tenths)
    console.print()
    for name, text in _lines(config, assumed, costs):
        console.print(f"{name:14}{text}")


def _lines(config: RunConfig, assumed: PlanConfig, costs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if (ado := config.curriculum.ado) and not ado.record:
        first = ado.next_update(0, steps=config.max_steps)
        yield (
            "weights",
            f"ADO updates them every {ado.every:,} steps from step {first:,}; this plan uses the initial mix"
            if first < config.max_steps
            else "ADO would update them, but this run ends before the first update: lower curriculum.ado.every or warmup",
        )
    loss, memory, there = costs["loss"], costs["peak_memory_bytes"], costs["device_memory_bytes"]
    best = time_and_loss_forecast.CHINCHILLA_TOKENS_PER_PARAMETER
    yield (
        "parameters",
        f"{costs['parameters']:,}; {costs['tokens_per_parameter']:.1f} tokens per parameter (Chinchilla: {best})",
    )
    expected = f"{loss['loss']:.2f} nats per token expected ({loss['low']:.2f} to {loss['high']:.2f})"
    sensible = loss["loss"] < math.log(config.model.vocab_size)
    yield "loss", "; ".join([expected if sensible else "no forecast", *filter(None, [loss["note"]])])
    preset = config.settings.get("hardware", {})
    own = (preset.get("device"), preset.get("mfu")) == (assumed.device, assumed.mfu)
    origin = f" ({preset['mfu_from']})" if own else ""
    where = f"on {costs['devices']} {assumed.device} at {assumed.mfu:.0%} MFU{origin} in {costs['precision']}"
    time = (
        "no time estimate: the peak FLOP/s of a CPU is unknown"
        if costs["hours"] is None
        else f"{format_duration(costs['hours'])} {where}"
    )
    yield "compute", f"{costs['flops']:.3g} FLOPs: {time}"
    if costs["price"] is not None:
        yield "price", f"{costs['price']:,.2f} at {assumed.price_per_hour:g} per hour and device"
    fits = "" if memory < there else "; this does not fit: set a smaller micro_batch"
    yield (
        "memory",
        f"about {format_bytes(memory)} of {format_bytes(there)} at micro-batch {config.micro_batch}{fits}",
    )
    most = f"{format_bytes(costs['disk_bytes'])} at most at any time"
    yield "disk", f"{costs['checkpoints']:,} checkpoints of {format_bytes(costs['checkpoint_bytes'])}, {most}"


_HEAD = ("tokens", "unique", "epochs", "all seen at", "limit at", "of the loss", "in the last tenth")


def _draw(path: Path, config: RunConfig, order: SampleOrder, schedule: Callable[[int], float], from_step: int) -> None:
    steps = np.unique(np.linspace(0, order.steps, min(_POINTS, order.steps) + 1).round().astype(np.int64))
    begins, ends = steps[:-1].tolist(), steps[1:].tolist()
    drawn = np.array([list(order.due_between(begin, end).values()) for begin, end in zip(begins, ends, strict=True)])
    shares = drawn / drawn.sum(axis=1, keepdims=True)  # (intervals, sources)
    passes = order.drawn_before(steps) / np.array(list(order.sequences.values()))
    rates = [config.optimizer["lr"] * schedule(min(step, order.steps - 1)) for step in steps.tolist()]
    from analysis.plan_plot import PlannedCurves, draw_plan  # Matplotlib is slow to import

    tokens = order.steps * order.global_batch * config.model.max_seq_len
    curves = PlannedCurves(
        steps=steps,
        shares=dict(zip(order.sources, np.concatenate([shares, shares[-1:]]).T, strict=True)),
        epochs=dict(zip(order.sources, passes.T, strict=True)),
        max_epochs=order.curriculum.curriculum.limits,
        learning_rates=np.array(rates),
        from_step=from_step,
    )
    draw_plan(path, curves, title=f"Plan of {config.name}: {format_count(tokens)} tokens")


def price(sweep: Multirun) -> None:
    """Print what a whole sweep would cost. Exit with an error if some job is not feasible."""
    from analysis.sweep_cost import print_sweep_cost, sweep_problems  # slow to import

    print_sweep_cost(sweep.answers)
    if problems := sweep_problems(sweep.answers, free=shutil.disk_usage(".").free):
        sys.exit(escape_control_characters("\n  ".join(["error: the plan is not feasible:", *problems])))
