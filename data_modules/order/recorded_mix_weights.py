"""Mix-weight updates that another run recorded in its mix_weights.jsonl."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from data_modules.order.curriculum import ResolvedCurriculum
from data_modules.order.sample_order import MixWeightUpdate
from gpt_lightning.jsonl_reader import iterate_rows


def recorded_updates(
    curriculum: ResolvedCurriculum, *, first_step: int, done: Sequence[MixWeightUpdate], beginning: int
) -> list[MixWeightUpdate]:
    """The updates of the run, read from the file `curriculum.ado.record`.

    Args:
        curriculum: the run's, with a record.
        first_step: first step with this curriculum.
        done: updates of this curriculum that the run has already made.
        beginning: number of completed steps.

    Raises:
        ValueError: the file does not exist, is of other sources, or lacks an update; or the run has made other updates.
    """
    ado = curriculum.curriculum.ado
    assert ado is not None
    where = f"curriculum.ado.record={ado.record}"
    path = Path(str(ado.record))
    if not path.is_file():
        raise ValueError(f"{where}: the file does not exist; it must be the mix_weights.jsonl of a run.")
    rows = {row["step"]: row.get("weights") for row in iterate_rows(path)}
    opened = [update for update in done if update[0] == first_step]
    updates: list[MixWeightUpdate] = list(opened)
    for step in ado.updates(after=first_step, steps=curriculum.steps):
        weights = rows.get(step)
        if not isinstance(weights, Mapping):
            have = ", ".join(map(str, sorted(rows)[:4])) or "none"
            raise ValueError(
                f"{where} has no weights for step {step:,}, where this run needs an update; it has steps "
                f"{have}{', …' * (len(rows) > 4)}: set curriculum.ado.every, curriculum.ado.warmup and max_steps as in "
                "the recorded run."
            )
        if set(weights) != set(curriculum.sources):
            raise ValueError(
                f"{where} has weights of {', '.join(weights)}, but this run trains on {', '.join(curriculum.sources)}."
            )
        try:
            curriculum.held(weights, steps=curriculum.steps)
        except ValueError as error:
            raise ValueError(f"{where}, step {step:,}: {error}") from error
        updates.append((step, dict(weights)))
    for step, weights in done:
        if dict(updates).get(step) != weights:
            raise ValueError(
                f"{where} has other weights for step {step:,} than this run, which has completed {beginning:,} steps: "
                "start a new run with name=…, or leave the record out."
            )
    return updates
