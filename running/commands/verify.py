"""verify.py: check that a run that is killed and resumed with other workers or ranks equals an uninterrupted run."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from data_modules import SourceShards
from data_modules.order.curriculum import Curriculum
from gpt_lightning.checkpoint_retention import newest_valid_checkpoint
from gpt_lightning.console import Console
from gpt_lightning.device_and_precision import choose_device
from gpt_lightning.optim import optimizer_traits
from gpt_lightning.verified_checkpoint import read_checkpoint
from running.config.allowed_targets import resolve_optimizer
from running.config.compose import CONF, write_config
from running.config.run_config import RunConfig
from running.config.settings_parser import build_section
from running.training.builders import build_schedule
from running.training.prepared_data import open_sources

# source, document, offset of the first target in the document, checksum of the model's input
Served = tuple[str, int, int, int]


@dataclass(frozen=True)
class ReplayEvidence:
    """What a run recorded and learned, for comparison with another run."""

    diet: list[Served]
    losses: list[float]
    weights: dict[str, torch.Tensor]


def verify(config: Mapping[str, Any]) -> dict[str, Any]:
    """Train one uninterrupted run and two that are killed and resumed: with other workers, and with other ranks too.

    Args:
        config: the composed settings of conf/verify.yaml and the command line.

    Returns:
        For each resumed run the first sequence that differs (or None), the number of sequences, and the largest
        relative differences of losses and weights.

    Raises:
        ValueError: a setting is wrong, a run fails, or the resumed runs differ by more than the tolerance.
    """
    console = Console(soft_wrap=True)
    if not console.is_terminal:
        console.width = 120
    base, other = _runs(config)
    _, sources = open_sources(RunConfig.of(base))
    folder = Path(base["runs_dir"]) / f"{base['name']}_verify"
    if folder.exists() and not (folder / "straight.yaml").is_file():
        raise ValueError(f"{folder} exists and was not made by verify.py: choose another name with name=….")
    shutil.rmtree(folder, ignore_errors=True)
    half = base["max_steps"] // 2
    _train(folder / "straight", base, console)
    straight = _evidence(folder / "straight", sources)
    end = {"callbacks": base["callbacks"] | {"end": {"_target_": "callbacks.KillAtStep", "at": half + 1}}}
    results: dict[str, Any] = {}
    for name, later in (
        ("other workers", base | {"data": other["data"]}),
        ("other ranks, micro-batch and workers", other),
    ):
        run = folder / name.replace(" ", "_").replace(",", "")
        _train(run, base | end, console, dies=True)
        _train(run, later | end, console)
        results[name] = _compared(straight, _evidence(run, sources))
    _print(results, base, other, console)
    for name, result in results.items():
        same = result["weights"] == 0 if name == "other workers" else result["losses"] <= _tolerance(base)
        if not same or result["diet"] is not None:
            raise ValueError(f"a run that resumes with {name} differs from the uninterrupted run: see the table.")
    console.print("verified: the resumed runs equal the uninterrupted run.")
    return results


def _runs(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Configs before and after the resume."""
    wanted = config["verify"]
    for key in ("steps", "devices"):
        if not isinstance(wanted[key], int) or wanted[key] < 1:
            raise ValueError(f"verify.{key} is {wanted[key]!r}: it must be a whole number, 1 or more.")
    if wanted["steps"] < 4:
        raise ValueError(
            f"verify.steps is {wanted['steps']}: it must be 4 or more, so that the run can be killed half-way."
        )
    if not isinstance(wanted["workers"], int) or wanted["workers"] < 0:
        raise ValueError(f"verify.workers is {wanted['workers']!r}: it must be a number of processes, 0 or more.")
    n_gpus = torch.cuda.device_count()
    if choose_device(config["trainer"]["accelerator"]) == "cuda" and wanted["devices"] > n_gpus:
        raise ValueError(
            f"verify.devices is {wanted['devices']}, but the number of GPUs here is {n_gpus}: set verify.devices={n_gpus} "
            "or trainer.accelerator=cpu."
        )
    if config["model"]["dropout"]:
        raise ValueError(
            f"model.dropout is {config['model']['dropout']}: dropout draws depend on how the global batch is split, so "
            "other ranks cannot repeat them. Set model.dropout=0."
        )
    if (ado := build_section(Curriculum, "curriculum", config["curriculum"]).ado) and not ado.record:
        raise ValueError(
            "curriculum.ado depends on losses, whose last bits depend on how the batch is split: verify.py needs "
            "curriculum.ado.record (the mix_weights.jsonl of a run) or another curriculum."
        )
    if config["branch"]["run"] is not None:
        raise ValueError("verify.py always trains from step 0: leave out branch.run and branch.step.")
    steps, per_rank = wanted["steps"], config["global_batch"] // wanted["devices"]
    base = {key: value for key, value in config.items() if key != "verify"}
    base |= {"max_steps": steps, "log_every": 1, "val_every": steps}
    base["trainer"] = config["trainer"] | {"devices": 1, "num_nodes": 1, "strategy": "auto"}
    base["schedule"] = config["schedule"] | {"warmup_steps": min(config["schedule"]["warmup_steps"], steps // 5)}
    base["callbacks"] = {
        "diet_log": {"_target_": "callbacks.SampleOrderLog"},
        "mix_ledger": {"_target_": "callbacks.MixLedger", "every": 1},
        "checkpoints": {"_target_": "callbacks.Checkpoints", "every": steps // 2, "keep": 3},
    }
    build_schedule(RunConfig.of(base))
    smaller = (n for n in range(config["micro_batch"] - 1, 0, -1) if per_rank % n == 0)
    micro_batch = wanted["micro_batch"] or next(smaller, 1)
    other = base | {
        "micro_batch": micro_batch,
        "trainer": config["trainer"] | {"devices": wanted["devices"], "num_nodes": 1},
        "data": config["data"] | {"workers": wanted["workers"]},
    }
    RunConfig.of(other)  # checks that its micro-batch divides the global batch
    return base, other


def _train(run: Path, config: Mapping[str, Any], console: Console, *, dies: bool = False) -> None:
    """Run train.py in a new process, through torchrun if there are several ranks."""
    console.print(
        f"{run}: {config['trainer']['devices']} ranks, micro-batch {config['micro_batch']}"
        + " until it is killed" * dies
    )
    run.parent.mkdir(parents=True, exist_ok=True)
    path = run.with_suffix(".yaml")
    write_config(path, {**config, "run_dir": str(run)})
    ranks = config["trainer"]["devices"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    script = [
        str(CONF.parent / "train.py"),
        "--config-path",
        str(path.parent.resolve()),
        "--config-name",
        path.stem,
        *(
            [f"imports=[{','.join(config['imports'])}]"] if config.get("imports") else []
        ),  # a config file may not name modules
    ]
    environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}  # the same for all runs
    answer = subprocess.run(
        [sys.executable, *torchrun, *script], capture_output=True, text=True, check=False, env=environment
    )
    if answer.returncode != (-signal.SIGKILL if dies else 0):
        raise ValueError(f"{run} failed:\n{answer.stdout[-2000:]}{answer.stderr[-4000:]}")


def _evidence(run: Path, sources: Mapping[str, SourceShards]) -> ReplayEvidence:
    checkpoint = newest_valid_checkpoint(run / "checkpoints")
    assert checkpoint is not None
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return ReplayEvidence(
        _diet(run, sources), [row["train/loss"] for row in rows], read_checkpoint(checkpoint)["state_dict"]
    )


def _diet(run: Path, sources: Mapping[str, SourceShards]) -> list[Served]:
    """The training sequences in order. Steps that a killed run made after its last checkpoint were made again."""
    at: dict[int, Served] = {}
    for path in sorted((run / "diet").iterdir()):
        for line in path.read_text(encoding="utf-8").splitlines():
            place, source, start, checksum = json.loads(line)
            document, offset = sources[source].train.locate(start)
            at[place] = (source, document, offset, checksum)
    if sorted(at) != list(range(len(at))):
        raise ValueError(f"{run}: the sample order log has gaps: {len(at)} sequences, the last with number {max(at)}.")
    return [at[place] for place in sorted(at)]


def _compared(straight: ReplayEvidence, other: ReplayEvidence) -> dict[str, Any]:
    """The first sequence that differs (or None), and the largest relative differences of losses and weights."""
    pairs = enumerate(zip(straight.diet, other.diet, strict=False))
    first = next((place for place, (ours, theirs) in pairs if ours != theirs), None)
    if first is None and len(straight.diet) != len(other.diet):
        first = min(len(straight.diet), len(other.diet))
    losses = _largest(abs(a - b) / abs(a) for a, b in zip(straight.losses, other.losses, strict=True))
    weights = _largest(
        float((ours - other.weights[name]).norm() / ours.norm().clamp(min=1e-30))
        for name, ours in straight.weights.items()
    )
    identical = all(torch.equal(ours, other.weights[name]) for name, ours in straight.weights.items())
    return {
        "diet": first,
        "sequences": len(other.diet),
        "losses": losses,
        "weights": 0.0 if identical else max(weights, sys.float_info.min),
    }


def _largest(differences: Iterable[float]) -> float:
    """The largest difference; infinite if one is NaN, which `max` would ignore."""
    return max(difference if math.isfinite(difference) else math.inf for difference in differences)


def _tolerance(config: Mapping[str, Any]) -> float:
    return optimizer_traits(resolve_optimizer(config["optimizer"])).verify_tolerance


def _print(results: Mapping[str, Any], base: Mapping[str, Any], other: Mapping[str, Any], console: Console) -> None:
    half = base["max_steps"] // 2
    table = Table("killed in step " + f"{half + 2}, resumed after {half} with", box=None, pad_edge=False)
    for column in ("source, document, offset of every sequence", "losses", "weights"):
        table.add_column(column, justify="right")
    for name, result in results.items():
        diet = (
            f"the same {result['sequences']:,}"
            if result["diet"] is None
            else f"different from number {result['diet']:,} on"
        )
        exact = ["bit-identical" if result[key] == 0 else f"within {result[key]:.1e}" for key in ("losses", "weights")]
        table.add_row(name, diet, *exact)
    console.print(table)
    console.print(
        f"{base['max_steps']} steps of {base['global_batch']} sequences; before the kill 1 rank, micro-batch "
        f"{base['micro_batch']} and {base['data']['workers']} workers, afterwards {other['trainer']['devices']} ranks, "
        f"micro-batch {other['micro_batch']} and {other['data']['workers']} workers. Losses may differ by "
        f"{_tolerance(base):g} if the batch is split differently; nothing else may differ."
    )
