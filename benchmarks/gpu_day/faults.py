"""Effects of fp16 overflow and non-finite numbers on a real run on CUDA, and whether the host waits within a step."""

import traceback
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu_day.result_rows import Day
from benchmarks.gpu_day.small_run_config import REHEARSED, SMALL, Overflow, config_of, rehearse
from gpt_lightning.checkpoint_folder import newest_valid_checkpoint
from gpt_lightning.lit_gpt import NonFiniteLossError
from gpt_lightning.verified_checkpoint import read_checkpoint
from running.commands.train import train

AT = 3  # the disturbed step, counted from 0


def run(day: Day) -> None:
    rehearse(day.rehearse)
    base = [*SMALL, *(REHEARSED if day.rehearse else []), "max_steps=8", f"trainer.accelerator={day.device}"]
    base += [f"data_dir={day.folder}/data", f"runs_dir={day.folder}/faults"]
    day.check("fp16: a step that overflows is left out", partial(overflow, base))
    day.check("a loss that is not finite ends the run", partial(not_finite, base))
    for name, overrides in (("gpt2", []), ("documents apart, compiled", ["trainer.compile=true", *APART])):
        more = [*overrides, f"name=waiting_{len(overrides)}"]
        day.check(f"nothing waits within a step, {name}", partial(nothing_waits, base, more))


APART = ["model.attend_across_documents=false"]


def overflow(base: list[str]) -> dict[str, Any]:
    """The scaled gradient of one step overflows.

    Check that weights and schedule do not change and the scale is halved.
    """
    overrides = [*base, "name=overflow", "trainer.precision=16-mixed", "model.dropout=0", "micro_batch=${global_batch}"]
    train(config_of(overrides, probe={"kind": "Overflow", "at": AT}))
    seen = Overflow.seen
    said = {
        "left_out": seen["left_out"] is not None and seen["weights_before"] == seen["weights_after"],
        "scale_halved": seen["scale_after"] == 2.0**59,
        "schedule_waits": seen["schedule_before"] == seen["schedule_after"],
    }
    return {"passed": all(said.values()), **said, "why": seen["left_out"]}


def not_finite(base: list[str]) -> dict[str, Any]:
    """The loss of a step is not finite.

    Check that the run ends with that step, and that no checkpoint contains its effect.
    """
    every_step = "callbacks.checkpoints.every=1"
    config = config_of([*base, "name=ruined", every_step, "model.dropout=0"], probe={"kind": "Poison", "at": AT})
    try:
        train(config)
    except NonFiniteLossError as end:
        path = newest_valid_checkpoint(Path(config["run_dir"]) / "checkpoints")
        if path is None:
            return {"passed": False, "step": end.step, "why": "no checkpoint was saved before"}
        saved = read_checkpoint(path)
        finite = all(bool(value.isfinite().all()) for value in saved["state_dict"].values())
        said = {
            "step": end.step,
            "exit_code": end.exit_code,
            "saved_step": saved["global_step"],
            "saved_finite": finite,
        }
        return {"passed": (end.step, end.exit_code, saved["global_step"], finite) == (AT, 65, AT, True), **said}
    return {"passed": False, "why": "the run continued"}


def nothing_waits(base: list[str], more: list[str]) -> dict[str, Any]:
    """Check that nothing synchronises within a step; torch then raises an error."""
    config = config_of(
        [*base, *more, "log_every=8", "trainer.precision=bf16-mixed", "model.dropout=0"],
        probe={"kind": "NoWaiting", "after": AT, "before": AT + 3},
    )
    try:
        train(config)
    except RuntimeError as error:
        root = error
        while root.__cause__ is not None:
            root = root.__cause__  # type: ignore[assignment]
        frames = traceback.extract_tb(root.__traceback__)
        ours = [
            f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames if "site-packages" not in frame.filename
        ]
        return {"passed": False, "why": str(root)[:200], "where": ours[-3:]}
    return {"passed": True}
