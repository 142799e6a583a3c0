"""Weights that were updated before: those of a checkpoint, and those of another run's record."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_modules import ResolvedCurriculum
from data_modules.sample_order import MixWeightUpdate
from gpt_lightning.jsonl import iterate_rows
from running.config.run_config import RunConfig


def check_no_prefetching(config: RunConfig) -> None:
    """Workers would fetch batches whose weights are not known yet.

    Raises:
        ValueError: the weights follow the losses, and there are workers.
    """
    ado, workers = config.curriculum.ado, config.data.workers
    if ado and not ado.record and workers:
        raise ValueError(
            f"data.workers is {workers}, and with curriculum.ado the next batch depends on the losses of this one: set "
            "data.workers=0, or curriculum.ado.record to the weights.jsonl of a run to repeat."
        )


def checkpoint_updates(checkpoint: Path | None, entry: Mapping[str, Any]) -> list[MixWeightUpdate]:
    """Those of one curriculum in a checkpoint's diet.

    Raises:
        ValueError: they are none.
    """
    try:
        return [(int(step), dict(weights)) for step, weights in entry.get("updates", [])]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{checkpoint}: its updates of the weights cannot be read.") from error


def recorded_updates(
    curriculum: ResolvedCurriculum, *, first_step: int, done: Sequence[MixWeightUpdate], beginning: int
) -> list[MixWeightUpdate]:
    """What the run's `curriculum.ado.record` says of each update of the run.

    Args:
        curriculum: the run's, with a record.
        first_step: from which on it is in force.
        done: the updates that the run has made by it so far.
        beginning: steps that are completed.

    Raises:
        ValueError: there is no such file, it is of other sources, updates are missing, or the run was trained by others.
    """
    ado = curriculum.curriculum.ado
    assert ado is not None
    where = f"curriculum.ado.record={ado.record}"
    path = Path(str(ado.record))
    if not path.is_file():
        raise ValueError(f"{where}: there is no such file; it must be the weights.jsonl of a run.")
    rows = {row["step"]: row.get("weights") for row in iterate_rows(path)}
    opened = [update for update in done if update[0] == first_step]
    updates: list[MixWeightUpdate] = list(opened)
    for step in ado.updates(after=first_step, steps=curriculum.steps):
        weights = rows.get(step)
        if not isinstance(weights, Mapping):
            have = ", ".join(map(str, sorted(rows)[:4])) or "none"
            raise ValueError(
                f"{where} has no weights for step {step:,}, where this run updates them; it has those of the steps {have}"
                f"{', …' * (len(rows) > 4)}: take its run's curriculum.ado.every, curriculum.ado.warmup and max_steps."
            )
        if set(weights) != set(curriculum.sources):
            raise ValueError(
                f"{where} has weights of {', '.join(weights)}, and this run trains on {', '.join(curriculum.sources)}."
            )
        try:
            curriculum.held(weights, steps=curriculum.steps)
        except ValueError as error:
            raise ValueError(f"{where}, step {step:,}: {error}") from error
        updates.append((step, dict(weights)))
    for step, weights in done:
        if dict(updates).get(step) != weights:
            raise ValueError(
                f"{where} has other weights for step {step:,} than this run, of which {beginning:,} steps are done: choose "
                "another run with name=…, or leave the record out."
            )
    return updates
