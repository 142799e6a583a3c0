"""What plan.py prints and draws."""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from analysis import hours_and_loss_from_sizes
from analysis.number_formatting import format_bytes, format_count, format_duration
from data_modules import SampleOrder
from data_modules.order.source_plan import SourcePlan
from gpt_lightning.console import Console
from running.config.plan_and_verify_configs import PlanCommandConfig
from running.config.run_config import RunConfig

_POINTS = 200  # on each curve
_WIDTH = 110  # of tables in characters, when the output is not a terminal
_HEAD = ("tokens", "unique", "epochs", "all seen at", "limit at", "of the loss", "in the last tenth")


def print_plan(
    config: RunConfig,
    settings: PlanCommandConfig,
    sources: Mapping[str, SourcePlan],
    costs: Mapping[str, Any],
    expected: list[str],
) -> None:
    """Print the plan of a run: a table of the sources, the mix over time, and the costs.

    Args:
        config: config of the run.
        settings: settings of plan.py.
        sources: what the run draws from each source.
        costs: as `estimate_costs` returns them.
        expected: sources that are not prepared, whose sizes are estimates.
    """
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
    for name, text in _lines(config, settings, costs):
        console.print(f"{name:14}{text}")


def _lines(config: RunConfig, settings: PlanCommandConfig, costs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if (ado := config.curriculum.ado) and not ado.record:
        first = ado.next_update(0, steps=config.max_steps)
        yield (
            "weights",
            f"ADO updates them every {ado.every:,} steps from step {first:,}; this plan uses the initial mix"
            if first < config.max_steps
            else "ADO would update them, but this run ends before the first update: lower curriculum.ado.every or warmup",
        )
    loss, memory, there = costs["loss"], costs["peak_memory_bytes"], costs["device_memory_bytes"]
    best = hours_and_loss_from_sizes.CHINCHILLA_TOKENS_PER_PARAMETER
    yield (
        "parameters",
        f"{costs['parameters']:,}; {costs['tokens_per_parameter']:.1f} tokens per parameter (Chinchilla: {best})",
    )
    expected = f"{loss['loss']:.2f} nats per token expected ({loss['low']:.2f} to {loss['high']:.2f})"
    sensible = loss["loss"] < math.log(config.model.vocab_size)
    yield "loss", "; ".join([expected if sensible else "no forecast", *filter(None, [loss["note"]])])
    assumed, preset = settings.plan, settings.hardware
    own = preset is not None and (preset.device, preset.mfu) == (assumed.device, assumed.mfu)
    origin = f" ({preset.mfu_from})" if preset and own else ""
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


def draw_plan_curves(
    path: Path, config: RunConfig, order: SampleOrder, schedule: Callable[[int], float], from_step: int
) -> None:
    """Draw the mix, the epochs and the learning rate of a planned run.

    Args:
        path: the PNG to write.
        config: config of the run.
        order: the sequences of the run.
        schedule: step -> fraction of the peak learning rate.
        from_step: the step after which the run resumes or branches off; 0 for a new run.
    """
    steps = np.unique(np.linspace(0, order.steps, min(_POINTS, order.steps) + 1).round().astype(np.int64))
    begins, ends = steps[:-1].tolist(), steps[1:].tolist()
    drawn = np.array([list(order.due_between(begin, end).values()) for begin, end in zip(begins, ends, strict=True)])
    shares = drawn / drawn.sum(axis=1, keepdims=True)  # (intervals, sources)
    passes = order.drawn_before(steps) / np.array(list(order.sequences.values()))
    rates = [config.optimizer.lr * schedule(min(step, order.steps - 1)) for step in steps.tolist()]
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
