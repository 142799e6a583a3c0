"""Read the data and the results of a run from its folder, and compare two runs, for verify.py."""

import json
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from data_modules import SourceShards
from gpt_lightning.checkpoint_folder import newest_valid_checkpoint
from gpt_lightning.verified_checkpoint import read_checkpoint

# source, document, offset of the first target in the document, checksum of the model's input
Served = tuple[str, int, int, int]


@dataclass(frozen=True)
class ReplayEvidence:
    """What a run recorded and learned, for comparison with another run."""

    served: list[Served]
    """The training sequences in order."""
    losses: list[float]
    weights: dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class ReplayDifference:
    """How a resumed run differs from an uninterrupted one."""

    first_difference: int | None
    """Number of the first sequence that differs; None: all are the same."""
    sequences: int
    """Number of sequences of the resumed run."""
    losses: float
    """Largest relative difference of a loss; infinite if a loss is not finite."""
    weights: float
    """Largest relative difference of a parameter; 0: all bits are the same."""


def read_evidence(run: Path, sources: Mapping[str, SourceShards]) -> ReplayEvidence:
    """Read the sample order log, the losses and the final weights of a run.

    Args:
        run: folder of the run.
        sources: the sources that the run was trained on.

    Raises:
        ValueError: sequences are missing from the sample order log.
    """
    checkpoint = newest_valid_checkpoint(run / "checkpoints")
    assert checkpoint is not None
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return ReplayEvidence(
        _served(run, sources), [row["train/loss"] for row in rows], read_checkpoint(checkpoint)["state_dict"]
    )


def compare_evidence(straight: ReplayEvidence, other: ReplayEvidence) -> ReplayDifference:
    """Compare a resumed run with an uninterrupted one.

    Args:
        straight: of the uninterrupted run.
        other: of the resumed run.
    """
    pairs = enumerate(zip(straight.served, other.served, strict=False))
    first = next((place for place, (ours, theirs) in pairs if ours != theirs), None)
    if first is None and len(straight.served) != len(other.served):
        first = min(len(straight.served), len(other.served))
    weights = _largest(
        float((ours - other.weights[name]).norm() / ours.norm().clamp(min=1e-30))
        for name, ours in straight.weights.items()
    )
    identical = all(torch.equal(ours, other.weights[name]) for name, ours in straight.weights.items())
    return ReplayDifference(
        first_difference=first,
        sequences=len(other.served),
        losses=_largest(abs(a - b) / abs(a) for a, b in zip(straight.losses, other.losses, strict=True)),
        weights=0.0 if identical else max(weights, sys.float_info.min),
    )


def _served(run: Path, sources: Mapping[str, SourceShards]) -> list[Served]:
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


def _largest(differences: Iterable[float]) -> float:
    """The largest difference; infinite if one is NaN, which `max` would ignore."""
    return max(difference if math.isfinite(difference) else math.inf for difference in differences)
