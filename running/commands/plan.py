"""plan.py: what data a run would use, what it would cost, and what loss it would reach. Writes plan.png and plan.json."""

import json
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from analysis.number_formatting import format_bytes
from data_modules import Curriculum, SampleOrder
from data_modules.order.sample_order import SourceExhaustedError
from data_modules.order.smallest_feasible_change import smallest_change
from data_modules.order.source_plan import plan_sources
from gpt_lightning.checkpoint_folder import checkpoint_step, list_checkpoints
from gpt_lightning.console import escape_control_characters, say
from running.commands.plan_output import draw_plan_curves, print_plan
from running.config.callback_configs import checkpoints_config
from running.config.compose import read_config
from running.config.plan_and_verify_configs import PlanCommandConfig
from running.config.run_config import RunConfig
from running.config.settings_parser import parse
from running.sweeps.multirun import Multirun
from running.training.builders import build_sample_order
from running.training.callback_builders import build_callbacks, check_average_kept
from running.training.check_settings import CheckedSettings, check_settings
from running.training.cost_estimate import estimate_costs
from running.training.prepared_data import SourceSize, source_sizes
from running.training.resume import ResumePoint, find_resume_point
from running.training.run_directory import RunDirectory


def plan(config: Mapping[str, Any], *, silently: bool = False) -> dict[str, Any]:
    """Compose the run that train.py would train, and print and draw the plan of this run.

    This builds no model and reads only the sizes of the data.

    Args:
        config: the composed settings of train.py and of `plan`.
        silently: print, draw and write nothing. Problems are returned in the result and not raised.

    Returns:
        The content of plan.json.

    Raises:
        ValueError: train.py would refuse the run; or, after everything is printed, the plan exceeds a limit, a source
            or the disk. Then the message names the smallest change that makes the plan feasible.
    """
    run_config, settings = RunConfig.of(config), parse(PlanCommandConfig, config)
    if settings.mix_design is not None:
        from running.sweeps.propose_mixes import propose_mixes  # SciPy is slow to import

        return propose_mixes(run_config, settings.mix_design)
    gpu = settings.plan.gpu
    checked = check_settings(_as_begun(run_config), "cuda" if gpu else "cpu", planned=gpu)
    return _plan(checked, settings, silently=silently)


def _plan(checked: CheckedSettings, settings: PlanCommandConfig, *, silently: bool) -> dict[str, Any]:
    config = checked.config
    run, curriculum = RunDirectory(config.run_dir), config.curriculum
    beginning, sizes, refused = _beginning(checked, may_be_another=not silently)
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
    costs = estimate_costs(config, settings.plan, order, beginning)
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
    print_plan(config, settings, sources, costs, expected)
    if refused:
        say(f"\n{run.path} is complete. This is the plan of a new run, which needs another name=…: {refused}")
    else:
        run.path.mkdir(parents=True, exist_ok=True)
        draw_plan_curves(run.path / "plan.png", config, order, checked.schedule, beginning.step)
        (run.path / "plan.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        say(f"\n{run.path / 'plan.png'}, {run.path / 'plan.json'}")
    if problems:
        raise ValueError("the plan is not feasible: " + " ".join(problems))
    return content


def plan_silently(config: Mapping[str, Any]) -> dict[str, Any]:
    """Call `plan` for one job of a sweep, without output."""
    return plan(config, silently=True)


def _beginning(
    checked: CheckedSettings, *, may_be_another: bool
) -> tuple[ResumePoint, dict[str, SourceSize], str | None]:
    """Find where the run would start and how large each source is.

    If the run is complete and cannot continue with these settings, the third item says why, and the others describe a
    new run.
    """
    config, anew = checked.config, ResumePoint(None, 0, None, False)
    if not (may_be_another and _is_done(config.run_dir)):
        beginning = _resume_point(checked)
        return beginning, source_sizes(config, _sources(beginning, config.curriculum)), None
    try:
        beginning = _resume_point(checked)
        sizes = source_sizes(config, _sources(beginning, config.curriculum))
        with suppress(SourceExhaustedError):
            build_sample_order(
                config, config.curriculum, {name: size.sequences for name, size in sizes.items()}, beginning
            )
    except ValueError as error:
        return anew, source_sizes(config, config.curriculum.sources), str(error)
    return beginning, sizes, None


def _resume_point(checked: CheckedSettings) -> ResumePoint:
    config = checked.config
    beginning = find_resume_point(config.run_dir, config)
    if beginning.averaged:
        check_average_kept(checked.callbacks or build_callbacks(config.callbacks), beginning)
    return beginning


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
    fits = checkpoints_config(config.callbacks).keep + free // costs["checkpoint_bytes"] - most
    fewer = f"callbacks.checkpoints.keep={fits}, or " if fits >= 1 else ""
    return [
        f"{run} needs {format_bytes(needed)} for {most} checkpoints, but {format_bytes(free)} are free. "
        f"The smallest change: {fewer}free another {format_bytes(needed - free)}, or set runs_dir=… on another disk."
    ]


def price(sweep: Multirun) -> None:
    """Print what a whole sweep would cost. Exit with an error if some job is not feasible."""
    from analysis.planned_sweep_cost import print_sweep_cost, sweep_problems  # slow to import

    print_sweep_cost(sweep.answers)
    if problems := sweep_problems(sweep.answers, free=shutil.disk_usage(".").free):
        sys.exit(escape_control_characters("\n  ".join(["error: the plan is not feasible:", *problems])))
