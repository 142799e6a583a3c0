"""verify.py: check that a run that is killed and resumed with other workers or ranks equals an uninterrupted run."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table

from gpt_lightning.console import Console
from running.config.compose import CONF, write_config
from running.config.copy_with_changes import copy_with_changes
from running.config.plan_and_verify_configs import VerifyCommandConfig, VerifyConfig
from running.config.run_config import RunConfig
from running.config.settings_parser import parse

if TYPE_CHECKING:
    from running.training.replay_evidence import ReplayDifference


def verify(config: Mapping[str, Any]) -> "dict[str, ReplayDifference]":
    """Train one uninterrupted run and two that are killed and resumed: with other workers, and with other ranks too.

    Args:
        config: the composed settings of conf/verify.yaml and the command line.

    Returns:
        The name of each resumed run -> how it differs from the uninterrupted one.

    Raises:
        ValueError: a setting is wrong, a run fails, or the resumed runs differ by more than the tolerance.
    """
    run, wanted = RunConfig.of(config), parse(VerifyCommandConfig, config).verify
    _check_repeatable(run)
    folder = run.runs_dir / f"{run.name}_verify"
    base = _before_the_kill(run, wanted.steps, str(folder / "straight"))
    other = _after_the_kill(base, run, wanted)
    _check_here(other, wanted)
    if folder.exists() and not (folder / "straight.yaml").is_file():
        raise ValueError(f"{folder} exists and was not made by verify.py: choose another name with name=….")
    shutil.rmtree(folder, ignore_errors=True)
    # torch is slow to import
    from gpt_lightning.optim import optimizer_traits
    from running.config.allowed_targets import resolve_optimizer
    from running.training import replay_evidence
    from running.training.rank_agreement import RankAgreement
    from running.training.resolve import resolve

    sources = resolve(base, RankAgreement()).sources
    console = Console(soft_wrap=True)
    if not console.is_terminal:
        console.width = 120
    _train(base, console)
    straight = replay_evidence.read_evidence(base.run_dir, sources)
    results: dict[str, ReplayDifference] = {}
    for name, later in (
        ("other workers", copy_with_changes(base, {"data.workers": wanted.workers})),
        ("other ranks, micro-batch and workers", other),
    ):
        at = {
            "run_dir": str(folder / name.replace(" ", "_").replace(",", "")),
            "callbacks.end": {"_target_": "callbacks.KillAtStep", "at": base.max_steps // 2 + 1},
        }
        killed, resumed = copy_with_changes(base, at), copy_with_changes(later, at)
        _train(killed, console, dies=True)
        _train(resumed, console)
        results[name] = replay_evidence.compare_evidence(
            straight, replay_evidence.read_evidence(resumed.run_dir, sources)
        )
    tolerance = optimizer_traits(resolve_optimizer(run.optimizer.node)).verify_tolerance
    _print(results, base, other, tolerance, console)
    for name, result in results.items():
        same = result.weights == 0 if name == "other workers" else result.losses <= tolerance
        if not same or result.first_difference is not None:
            raise ValueError(f"a run that resumes with {name} differs from the uninterrupted run: see the table.")
    console.print("verified: the resumed runs equal the uninterrupted run.")
    return results


def _check_repeatable(run: RunConfig) -> None:
    """Check that a run with other ranks can repeat this one.

    Raises:
        ValueError: it cannot.
    """
    if (ado := run.curriculum.ado) and not ado.record:
        raise ValueError(
            "curriculum.ado depends on losses, whose last bits depend on how the batch is split: verify.py needs "
            "curriculum.ado.record (the mix_weights.jsonl of a run) or another curriculum."
        )
    if run.branch.run is not None:
        raise ValueError("verify.py always trains from step 0: leave out branch.run and branch.step.")
    if run.model.dropout:
        raise ValueError(
            f"model.dropout is {run.model.dropout}: dropout draws depend on how the global batch is split, so "
            "other ranks cannot repeat them. Set model.dropout=0."
        )


def _check_here(other: RunConfig, wanted: VerifyConfig) -> None:
    """Check that this machine can train the third run after it resumes.

    Raises:
        ValueError: a setting is wrong, or this machine lacks what it needs.
    """
    # torch is slow to import
    from gpt_lightning.device_and_precision import choose_device
    from running.training.check_settings import check_settings
    from running.training.rank_checks import check_gpu_count

    device = choose_device(other.trainer.accelerator)
    if device == "cuda":
        check_gpu_count(wanted.devices, setting="verify.devices")
    check_settings(other, device)


def _before_the_kill(run: RunConfig, steps: int, run_dir: str) -> RunConfig:
    """The uninterrupted run, and both others until they are killed: one rank, few steps."""
    callbacks = {
        "diet_log": {"_target_": "callbacks.SampleOrderLog"},
        "mix_ledger": {"_target_": "callbacks.MixLedger", "every": 1},
        "checkpoints": {"_target_": "callbacks.Checkpoints", "every": steps // 2, "keep": 3},
    }
    changes = {
        "run_dir": run_dir,
        "max_steps": steps,
        "log_every": 1,
        "val_every": steps,
        "trainer.devices": 1,
        "trainer.num_nodes": 1,
        "trainer.strategy": "auto",
        "schedule.warmup_steps": min(run.schedule.warmup_steps, steps // 5),
        "callbacks": callbacks,
    }
    return copy_with_changes(run, changes)


def _after_the_kill(base: RunConfig, run: RunConfig, wanted: VerifyConfig) -> RunConfig:
    """The third run after it resumes, with other ranks, workers and micro-batch."""
    per_rank = run.global_batch // wanted.devices
    smaller = (n for n in range(run.micro_batch - 1, 0, -1) if per_rank % n == 0)
    changes: dict[str, Any] = {
        "micro_batch": wanted.micro_batch or next(smaller, 1),
        "trainer.devices": wanted.devices,
        "trainer.strategy": run.trainer.strategy,
        "data.workers": wanted.workers,
    }
    return copy_with_changes(base, changes)


def _train(config: RunConfig, console: Console, *, dies: bool = False) -> None:
    """Run train.py in a new process, through torchrun if there are several ranks."""
    run, ranks = config.run_dir, config.trainer.devices
    console.print(f"{run}: {ranks} ranks, micro-batch {config.micro_batch}" + " until it is killed" * dies)
    run.parent.mkdir(parents=True, exist_ok=True)
    path = run.with_suffix(".yaml")
    write_config(path, config.settings)
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    script = [str(CONF.parent / "train.py"), "--config-path", str(path.parent.resolve()), "--config-name", path.stem]
    if config.imports:  # a config file may not name modules
        script.append(f"imports=[{','.join(config.imports)}]")
    environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}  # the same for all runs
    answer = subprocess.run(
        [sys.executable, *torchrun, *script], capture_output=True, text=True, check=False, env=environment
    )
    if answer.returncode != (-signal.SIGKILL if dies else 0):
        raise ValueError(f"{run} failed:\n{answer.stdout[-2000:]}{answer.stderr[-4000:]}")


def _print(
    results: "Mapping[str, ReplayDifference]", base: RunConfig, other: RunConfig, tolerance: float, console: Console
) -> None:
    half = base.max_steps // 2
    table = Table(f"killed in step {half + 2}, resumed after {half} with", box=None, pad_edge=False)
    for column in ("source, document, offset of every sequence", "losses", "weights"):
        table.add_column(column, justify="right")
    for name, result in results.items():
        served = (
            f"the same {result.sequences:,}"
            if result.first_difference is None
            else f"different from number {result.first_difference:,} on"
        )
        exact = [
            "bit-identical" if difference == 0 else f"within {difference:.1e}"
            for difference in (result.losses, result.weights)
        ]
        table.add_row(name, served, *exact)
    console.print(table)
    console.print(
        f"{base.max_steps} steps of {base.global_batch} sequences; before the kill 1 rank, micro-batch "
        f"{base.micro_batch} and {base.data.workers} workers, afterwards {other.trainer.devices} ranks, "
        f"micro-batch {other.micro_batch} and {other.data.workers} workers. Losses may differ by "
        f"{tolerance:g} if the batch is split differently; nothing else may differ."
    )
