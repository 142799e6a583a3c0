"""A checkpoint that would run code as it is read: the run is refused, and the code has not run."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch

from tests.faults.disturbed_runs import ACCUMULATION, Run
from tests.run_files import contents

Runs = Callable[..., Run]


class Malicious:
    """Touches a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self._marker,)


def replaced_by_malice(checkpoint: Path, marker: Path) -> None:
    """With a manifest that agrees, as whoever hands it out would write it."""
    content = torch.load(checkpoint, weights_only=True) | {"callbacks": {"state": Malicious(marker)}}
    torch.save(content, checkpoint)
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    manifest = {"file": checkpoint.name, "sha256": digest, "size": checkpoint.stat().st_size, "step": 10}
    checkpoint.with_suffix(".json").write_text(json.dumps(manifest))


def test_a_checkpoint_that_runs_code_is_refused(new_run: Runs, tmp_path: Path) -> None:
    """The newest of the run's own, and one that `resume` or `init_from` names."""
    run, marker = new_run(), tmp_path / "marker"
    stop = ("send", {"signal_name": "SIGTERM", "micro_batch": 9 * ACCUMULATION})
    assert run.live(faults=[stop]).codes == [143]
    checkpoint = run.checkpoints / "step_00000010.pt"
    replaced_by_malice(checkpoint, marker)
    before = contents(run.path)
    resumed = f"resume={checkpoint}"
    initialised = new_run().live(f"init_from={checkpoint}", plain=True)  # it is read as the config is composed
    for life in (run.live(), run.live(resumed), new_run().live(resumed), initialised):
        assert life.codes == [1], life.output
        assert "error: " in life.output
        assert "Traceback" not in life.output
        assert str(checkpoint) in life.output
        assert len(life.output.splitlines()) == 1
    assert contents(run.path) == before
    assert not marker.exists()
