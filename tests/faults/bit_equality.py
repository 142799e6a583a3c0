"""Is a run that was disturbed, bit for bit, the run that nobody disturbed?"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from tests.faults.disturbed_runs import ACCUMULATION, GLOBAL_BATCH, Life, Run
from tests.run_files import final_checkpoint, untimed

_OF_THE_START = ("data_dir", "runs_dir", "run_dir", "sweep_dir", "jobs_at_once", "resume", "max_hours")


def differences(ours: Any, theirs: Any, place: str = "") -> Iterator[str]:
    """Where two nests of dicts, lists, tensors and plain values are not the same bits."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key in {**ours, **theirs}:
            if key not in ours or key not in theirs:
                yield f"{place}.{key} is in one of them alone"
            else:
                yield from differences(ours[key], theirs[key], f"{place}.{key}")
    elif isinstance(ours, (list, tuple)) and isinstance(theirs, (list, tuple)):
        if len(ours) != len(theirs):
            yield f"{place} has {len(ours)} entries and {len(theirs)}"
        for n, (our, their) in enumerate(zip(ours, theirs, strict=False)):
            yield from differences(our, their, f"{place}[{n}]")
    elif not _same_bits(ours, theirs):
        yield f"{place}: {str(ours)[:60]} and {str(theirs)[:60]}"


def _same_bits(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, torch.Tensor) and isinstance(theirs, torch.Tensor):
        return ours.dtype == theirs.dtype and ours.shape == theirs.shape and _bytes(ours) == _bytes(theirs)
    if isinstance(ours, np.ndarray) and isinstance(theirs, np.ndarray):
        return ours.dtype == theirs.dtype and ours.shape == theirs.shape and ours.tobytes() == theirs.tobytes()
    return type(ours) is type(theirs) and bool(ours == theirs)


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def assert_equal(run: Run, straight: Run, *, diet: bool = True) -> None:
    """The same newest checkpoint in every bit, the same metrics and samples, and the sequences of the undisturbed run.

    Args:
        run: was disturbed, and has got to its end.
        straight: the same in one go.
        diet: False, where the run's lives were not recorded, to leave its sequences out.
    """
    ours, theirs = (final_checkpoint(one.path) for one in (run, straight))
    for checkpoint in (ours, theirs):
        for key in _OF_THE_START:
            del checkpoint["config"][key]
        del checkpoint["config"]["data"]["workers"]
    assert list(differences(ours, theirs)) == []
    assert untimed(run.path / "metrics.jsonl") == untimed(straight.path / "metrics.jsonl")
    assert (run.path / "samples.jsonl").read_bytes() == (straight.path / "samples.jsonl").read_bytes()
    if diet:
        assert_same_diet(run, straight)


def assert_same_diet(run: Run, straight: Run) -> None:
    """Each life was given what the undisturbed run was, from the newest checkpoint that the life before it had left."""
    expected = {row[0]: row for row in straight.lives[-1].diet}
    given = set()
    begun_at = 0
    for life in run.lives:
        places = sorted(row[0] for row in life.diet)
        assert life.diet == [expected[row[0]] for row in life.diet]
        assert len(set(places)) == len(places)
        assert not places or places[0] == begun_at * GLOBAL_BATCH
        given |= set(places)
        begun_at = life.saved
    assert given == set(expected) == set(range(len(expected)))


def micro_batches_lost(life: Life) -> int:
    """How many micro-batches it had begun beyond the checkpoint that it left: one, if it stopped in good order."""
    begun = -(-len(life.diet) // (GLOBAL_BATCH // ACCUMULATION))
    first = min((row[0] for row in life.diet), default=life.saved * GLOBAL_BATCH) // GLOBAL_BATCH
    return begun - (life.saved - first) * ACCUMULATION
