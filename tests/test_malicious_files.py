"""A run or a model of a stranger's runs nothing: behind every door a pickle that would make a marker is refused."""

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from running.commands.convert import convert
from running.commands.generate import generate
from running.commands.report import report
from running.commands.train import train
from running.config.compose import compose_config
from tests.conftest import TINY
from tests.malicious_pickle import MARKER, PICKLE, Evil, nothing_run_in, refusal

Content = dict[str, Any]
Written = Callable[[Path, Content], object]


@pytest.fixture(autouse=True)
def _nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with nothing_run_in(tmp_path, monkeypatch):
        yield


@pytest.fixture(scope="module")
def finished(trained: Callable[..., Path]) -> Path:
    return trained()


def killed(finished: Path, folder: Path) -> Path:
    """A copy of it that has a checkpoint of step 8 and none of later steps."""
    run: Path = shutil.copytree(finished, folder / "run")
    for path in (run / "checkpoints").glob("step_00000012.*"):
        path.unlink()
    return run


def put(run: Path, write: Written) -> Path:
    """Put another file in the place of the run's last checkpoint, with a manifest that agrees."""
    path = run / "checkpoints" / "step_00000008.pt"
    content = torch.load(path, weights_only=True)
    write(path, content)
    manifest = json.loads(path.with_suffix(".json").read_text())
    manifest |= {"size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    path.with_suffix(".json").write_text(json.dumps(manifest))
    return path


def of_everybody(run: Path, checkpoint: Path, data_dir: Path, folder: Path) -> dict[str, str]:
    """What each door says of a checkpoint."""
    training = [*TINY, f"data_dir={data_dir}"]
    own, other = [*training, f"runs_dir={run.parent}", "name=run"], [*training, f"runs_dir={folder}", "name=other"]
    return {
        "resume": refusal(train, "train", *own),
        "resume=": refusal(train, "train", *other, f"resume={checkpoint}"),
        "branch": refusal(train, "train", *other, f"branch.run={run}", "branch.step=8"),
        "init_from": refusal(train, "train", *other, f"init_from={run}"),
        "init_from file": refusal(train, "train", *other, f"init_from={checkpoint}"),
        "convert": refusal(convert, "convert", f"input={run}", f"output={folder / 'out'}"),
        "generate": refusal(generate, "generate", f"run={checkpoint}", "prompt=a"),
    }


def scripted(path: Path, content: Content) -> None:
    """As TorchScript writes it."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl"):
            archive.writestr(f"archive/{name}", PICKLE)
        archive.writestr("archive/version", "3\n")


CHECKPOINTS: dict[str, Written] = {
    "beside the weights": lambda path, content: torch.save(content | {"evil": Evil()}, path),
    "among the weights": lambda path, content: torch.save(content | {"state_dict": {"a": Evil()}}, path),
    "as torch wrote once": lambda path, content: torch.save(
        content | {"evil": Evil()}, path, _use_new_zipfile_serialization=False
    ),
    "in an array": lambda path, content: torch.save(content | {"evil": np.array([Evil()], dtype=object)}, path),
    "a pickle": lambda path, content: path.write_bytes(PICKLE),
    "a program": scripted,
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_no_door_runs_a_checkpoint(kind: str, finished: Path, tiny_data: Path, tmp_path: Path) -> None:
    run = killed(finished, tmp_path / "runs")
    checkpoint = put(run, CHECKPOINTS[kind])
    for door, said in of_everybody(run, checkpoint, tiny_data, tmp_path / "others").items():
        assert str(checkpoint) in said, door
    assert not (tmp_path / "others").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"foo": 1}, "unexpected keyword argument 'foo'"),
        ({"_target_": "os.mkdir"}, "unexpected keyword argument '_target_'"),
        ({"norm": {"_target_": "os.mkdir", "path": MARKER}}, "model.norm is {'_target_': 'os.mkdir'"),
        ({"norm": ["rmsnorm"]}, "model.norm is ['rmsnorm']"),
        ({"d_model": "32"}, "model.d_model is '32'"),
        ({"eot_id": "x"}, "model.eot_id is 'x'"),
        ({"d_model": None}, "model.d_model is None"),
    ],
)
def test_a_checkpoint_builds_only_a_model(
    change: Content, message: str, finished: Path, tiny_data: Path, tmp_path: Path
) -> None:
    def write(path: Path, content: Content) -> None:
        torch.save(content | {"model_config": content["model_config"] | change}, path)

    checkpoint = put(killed(finished, tmp_path / "runs"), write)
    said = refusal(generate, "generate", f"run={checkpoint}", "prompt=a")
    assert said.startswith(f"{checkpoint}: ")
    assert message in said
    other = [*TINY, f"data_dir={tiny_data}", f"runs_dir={tmp_path / 'others'}", "name=other"]
    assert refusal(train, "train", *other, f"init_from={checkpoint}") == said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"diet": [1]}, "diet is [1] and must be a dict"),
        ({"diet": {"sources": {}, "curricula": [3]}}, "an item of curricula is 3 and must be a dict"),
        ({"diet": {"sources": {}, "curricula": [{"curriculum": {}, "steps": "12"}]}}, "steps is '12'"),
        (
            {"diet": {"sources": {}, "curricula": [{"curriculum": {"_target_": "os.mkdir"}, "steps": 12, "from_step": 0}]}},
            "unexpected keyword argument '_target_'",
        ),
        ({"state_dict": None}, "state_dict is None"),
        ({"global_step": "8"}, "global_step is '8'"),
        ({"model_config": [1]}, "model_config is [1]"),
    ],
)  # fmt: skip
def test_a_checkpoint_of_another_form_is_not_gone_on_from(
    change: Content, message: str, finished: Path, tiny_data: Path, tmp_path: Path
) -> None:
    run = killed(finished, tmp_path / "runs")
    checkpoint = put(run, lambda path, content: torch.save(content | change, path))
    own = [*TINY, f"data_dir={tiny_data}", f"runs_dir={run.parent}", "name=run"]
    said = refusal(train, "train", *own)
    assert str(checkpoint) in said
    assert message in said


def test_a_manifest_names_no_other_file(finished: Path, tmp_path: Path) -> None:
    """What it says of the file's name is for people: beside a checkpoint lies its manifest."""
    run = killed(finished, tmp_path / "runs")
    evil = tmp_path / "evil.pt"
    evil.write_bytes(PICKLE)
    checkpoint = put(run, lambda path, content: torch.save(content, path))
    manifest = json.loads(checkpoint.with_suffix(".json").read_text())
    checkpoint.with_suffix(".json").write_text(json.dumps(manifest | {"file": str(evil)}))
    generate(compose_config("generate", [f"run={run}", "prompt=a", "max_new_tokens=1"]))


@pytest.mark.parametrize("name", ["config.yaml", "environment.json", "metrics.jsonl", "samples.jsonl"])
@pytest.mark.parametrize("content", [PICKLE + b"\n", b"[1]\n", b"a: !!python/object/apply:os.mkdir [marker]\n"])
def test_no_record_of_a_run_is_run(name: str, content: bytes, finished: Path, tiny_data: Path, tmp_path: Path) -> None:
    run = killed(finished, tmp_path / "runs")
    (run / name).write_bytes(content)
    if name == "config.yaml":
        own = [*TINY, f"data_dir={tiny_data}", f"runs_dir={run.parent}"]
        assert str(run / name) in refusal(train, "train", *own, "name=run")
        assert str(run / name) in refusal(train, "train", *own, "name=tail", f"branch.run={run}", "branch.step=8")
        assert str(run) in refusal(generate, "generate", f"run={run}", "prompt=a")
    elif name == "environment.json":
        assert str(run / name) in refusal(report, "report", f"run={run}")
    elif name == "metrics.jsonl":  # there is no other row, and so no step
        assert str(run) in refusal(report, "report", f"run={run}")
    else:
        report(compose_config("report", [f"run={run}"]))
        assert f"1 line of {name} cannot be read" in (run / "report" / "report.html").read_text()
    assert not Path("marker").exists()
