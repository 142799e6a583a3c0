"""verify.py: is a run that was killed, and goes on elsewhere, the run it would have been?"""

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
from data_modules.curriculum import Curriculum
from gpt_lightning.checkpoint_retention import newest_valid_checkpoint
from gpt_lightning.console import Console
from gpt_lightning.device_and_precision import choose_device
from gpt_lightning.verified_checkpoint import read_checkpoint
from running.config.compose import CONF, write_config
from running.config.run_config import RunConfig
from running.config.settings_parser import build_section
from running.training.builders import build_schedule
from running.training.prepared_data import open_sources

LOSS_TOLERANCE = 1e-5  # relative, between runs whose global batch is cut otherwise
MUON_TOLERANCE = 1e-3  # the same with Muon, whose products of matrices are in bf16

Served = tuple[
    str, int, int, int
]  # source, document, offset of the first target in it, checksum of what the model was given


@dataclass(frozen=True)
class ReplayEvidence:
    """What a run leaves behind to be compared."""

    diet: list[Served]
    losses: list[float]
    weights: dict[str, torch.Tensor]


def verify(config: Mapping[str, Any]) -> dict[str, Any]:
    """Train straight, and twice with a kill and a resume: with other workers, and with other ranks and micro-batches too.

    Raises:
        ValueError: the run cannot be as it is asked for, or what should be the same is not.
    """
    console = Console(soft_wrap=True)
    if not console.is_terminal:
        console.width = 120
    base, other = _runs(config)
    _, sources = open_sources(RunConfig.of(base))
    folder = Path(base["runs_dir"]) / f"{base['name']}_verify"
    if folder.exists() and not (folder / "straight.yaml").is_file():
        raise ValueError(f"{folder} is in the way, and no folder of verify.py: choose another name with name=….")
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
            raise ValueError(f"a run that goes on with {name} is not the run it would have been: see the table.")
    console.print("verified: it is the run it would have been.")
    return results


def _runs(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configs of the run before and after it is moved."""
    wanted = config["verify"]
    for key in ("steps", "devices"):
        if not isinstance(wanted[key], int) or wanted[key] < 1:
            raise ValueError(f"verify.{key} is {wanted[key]!r}: it must be a whole number, 1 or more.")
    if wanted["steps"] < 4:
        raise ValueError(f"verify.steps is {wanted['steps']}: it must be 4 or more, to be killed half-way.")
    if not isinstance(wanted["workers"], int) or wanted["workers"] < 0:
        raise ValueError(f"verify.workers is {wanted['workers']!r}: it must be a number of processes, 0 or more.")
    n_gpus = torch.cuda.device_count()
    if choose_device(config["trainer"]["accelerator"]) == "cuda" and wanted["devices"] > n_gpus:
        raise ValueError(
            f"verify.devices is {wanted['devices']}, and the GPUs here are {n_gpus}: set verify.devices={n_gpus}, or "
            "trainer.accelerator=cpu."
        )
    if config["model"]["dropout"]:
        raise ValueError(
            f"model.dropout is {config['model']['dropout']}: its random numbers follow the split of the global batch, so that no "
            "other ranks repeat them; set model.dropout=0."
        )
    if (ado := build_section(Curriculum, "curriculum", config["curriculum"]).ado) and not ado.record:
        raise ValueError(
            "curriculum.ado follows losses, whose last bits differ where the batch is cut otherwise: verify.py needs "
            "curriculum.ado.record, the weights.jsonl of a run, or another curriculum."
        )
    if config["branch"]["run"] is not None:
        raise ValueError("verify.py trains from the first step on: leave branch.run and branch.step out.")
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
    RunConfig.of(other)  # which checks that its micro-batch divides the global batch
    return base, other


def _train(run: Path, config: Mapping[str, Any], console: Console, *, dies: bool = False) -> None:
    """Run train.py; several ranks through torchrun."""
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
        *([f"imports=[{','.join(config['imports'])}]"] if config.get("imports") else []),  # which no file may name
    ]
    environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}  # of all runs the same
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
    """What was trained on, in the order of the run; what a killed start did beyond its checkpoint was done again."""
    at: dict[int, Served] = {}
    for path in sorted((run / "diet").iterdir()):
        for line in path.read_text(encoding="utf-8").splitlines():
            place, source, start, checksum = json.loads(line)
            document, offset = sources[source].train.locate(start)
            at[place] = (source, document, offset, checksum)
    if sorted(at) != list(range(len(at))):
        raise ValueError(f"{run}: the diet has gaps: {len(at)} sequences up to number {max(at)}.")
    return [at[place] for place in sorted(at)]


def _compared(straight: ReplayEvidence, other: ReplayEvidence) -> dict[str, Any]:
    """The first sequence that differs, if any does, and the largest relative differences of losses and of weights."""
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
    """Infinite where one is not a number, which `max` would overlook."""
    return max(difference if math.isfinite(difference) else math.inf for difference in differences)


def _tolerance(config: Mapping[str, Any]) -> float:
    return MUON_TOLERANCE if "Muon" in config["optimizer"]["_target_"] else LOSS_TOLERANCE


def _print(results: Mapping[str, Any], base: Mapping[str, Any], other: Mapping[str, Any], console: Console) -> None:
    half = base["max_steps"] // 2
    table = Table("killed in step " + f"{half + 2}, going on after {half} with", box=None, pad_edge=False)
    for column in ("source, document, offset of every sequence", "losses", "weights"):
        table.add_column(column, justify="right")
    for name, result in results.items():
        diet = (
            f"the same {result['sequences']:,}"
            if result["diet"] is None
            else f"differ from number {result['diet']:,} on"
        )
        exact = ["the same bits" if result[key] == 0 else f"within {result[key]:.1e}" for key in ("losses", "weights")]
        table.add_row(name, diet, *exact)
    console.print(table)
    console.print(
        f"{base['max_steps']} steps of {base['global_batch']} sequences. From 1 rank, micro-batch {base['micro_batch']} and "
        f"{base['data']['workers']} workers to {other['trainer']['devices']}, {other['micro_batch']} and "
        f"{other['data']['workers']}. Losses may differ by {_tolerance(base):g} where the batch is cut otherwise, else nothing "
        "may."
    )
