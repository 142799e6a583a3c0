"""A plan that does not hold says why, and the smallest change by which it does; what is typed then holds."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from running.commands.plan import plan
from running.commands.train import train
from running.config.compose import compose_config
from tests.conftest import ROOT

MIXED = ["experiment=mixed_curriculum"]


class Usage(NamedTuple):
    """As shutil says it, in bytes."""

    free: float


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """Nothing is prepared: sizes are those that are expected."""
    return [f"data_dir={tmp_path / 'nothing'}", f"runs_dir={tmp_path / 'runs'}"]


def planned(*overrides: str) -> dict[str, Any]:
    return plan(compose_config("plan", overrides))


def refusal(*overrides: str) -> str:
    """What is said after everything is printed and drawn."""
    with pytest.raises(ValueError, match=r"^the plan is not feasible: ") as refused:
        planned(*overrides)
    assert len(str(refused.value).splitlines()) == 1
    return str(refused.value)


def smallest_change(message: str) -> list[str]:
    (change,) = re.findall(r"The smallest change: (.*)\.$", message)
    settings: list[str] = change.split(" ")
    return settings


def times(settings: list[str], factor: float) -> list[str]:
    return [f"{name}={float(value) * factor:g}" for name, _, value in (s.partition("=") for s in settings)]


@pytest.mark.parametrize(
    ("overrides", "keyframe", "places"),
    [
        (
            ["curriculum.keyframes.settled.weights.alpaca=0.02"],
            "keyframe settled",
            ["keyframes.switch.weights", "keyframes.settled.weights"],
        ),
        (["curriculum=gradual", "curriculum.mixes.target.alpaca=0.1"], "keyframes switch to settled", ["mixes.target"]),
        (
            [
                "curriculum=constant",
                "+curriculum.keyframes.start.weights.alpaca=0.1",
                "+curriculum.mixes.base.alpaca=0.1",
            ],
            "keyframe start",
            ["keyframes.start.weights", "mixes.base"],
        ),
        (
            ["curriculum=replay", "+curriculum.mixes.base.alpaca=0.02", "curriculum.mixes.target.alpaca=0"],
            "keyframe start",
            ["mixes.base"],
        ),
    ],
    ids=["keyframes", "mix", "both", "replay"],
)
def test_a_cap_is_mended_by_the_weights_that_are_said_and_not_by_two_percent_more(
    overrides: list[str], keyframe: str, places: list[str], folders: list[str], tmp_path: Path
) -> None:
    options = [*folders, *MIXED, *overrides]
    message = refusal(*options)
    assert message.startswith("the plan is not feasible: curriculum.max_epochs.alpaca is ")
    assert f", {keyframe}). The smallest change" in message
    content = json.loads((tmp_path / "runs" / "mixed_curriculum" / "plan.json").read_text())
    assert f"the plan is not feasible: {content['problems'][0]}" == message
    alpaca = content["sources"]["alpaca"]
    assert f"the plan draws {alpaca['epochs']:.2f} epochs" in message
    assert alpaca["epochs"] > alpaca["max_epochs"]
    change = smallest_change(message)
    assert [setting.rpartition(".alpaca=")[0] for setting in change] == [f"curriculum.{place}" for place in places]
    assert planned(*options, *change)["sources"]["alpaca"]["epochs"] <= alpaca["max_epochs"]
    assert "max_epochs.alpaca" in refusal(*options, *times(change, 1.02))


def test_two_caps_are_mended_at_once(folders: list[str]) -> None:
    options = [*folders, *MIXED, "+curriculum.max_epochs.python=0.5", "curriculum.max_epochs.alpaca=3"]
    change = smallest_change(refusal(*options))
    assert {setting.partition("=")[0].rpartition(".")[2] for setting in change} == {"alpaca", "python"}
    sources = planned(*options, *change)["sources"]
    assert sources["alpaca"]["epochs"] == pytest.approx(3, rel=0.02)
    assert sources["python"]["epochs"] == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize(
    "overrides",
    [
        ["curriculum=unimax", "curriculum.max_epochs.all=0.5"],
        ["curriculum=anneal", "+curriculum.max_epochs.all=0.8"],
    ],
    ids=["spread", "redistribute"],
)
def test_where_everything_runs_out_limits_are_said_that_are_enough_and_two_percent_less_are_not(
    overrides: list[str], folders: list[str]
) -> None:
    options = [*folders, *MIXED, *overrides]
    message = refusal(*options)
    assert re.search(r"at step [\d,]+ no source with weight has sequences left \(keyframe \w+\)", message)
    change = smallest_change(message)
    assert {setting.partition("=")[0] for setting in change} == {
        "curriculum.max_epochs.all",
        "curriculum.max_epochs.alpaca",
    }
    planned(*options, *change)
    assert "has sequences left" in refusal(*options, *times(change, 0.98))


def test_what_no_weight_mends_says_what_else_does(folders: list[str]) -> None:
    options = ["experiment=gpt2_5", "curriculum.max_epochs.fineweb=4", *folders]  # it is the only source
    assert "The smallest change: curriculum.max_epochs.fineweb=4.24." in refusal(*options)
    assert planned(*options, "max_steps=75000")["sources"]["fineweb"]["epochs"] < 4
    assert planned(*options, "data.limit_tokens.fineweb=10.8e9")["sources"]["fineweb"]["epochs"] < 4


def test_of_a_run_that_is_begun_only_what_is_to_come_is_changed(tiny_overrides: list[str], tmp_path: Path) -> None:
    """And what is said then can really be trained."""
    options = [*tiny_overrides, "experiment=quickstart", "name=run", "curriculum.interpolation=step"]
    train(compose_config("train", options))
    for path in (tmp_path / "runs" / "run" / "checkpoints").glob("step_00000012.*"):
        path.unlink()
    more = [*options, "curriculum.keyframes.settled.weights.docstrings=3", "curriculum.max_epochs.docstrings=0.01"]
    (change,) = smallest_change(refusal(*more))
    assert change.startswith("curriculum.keyframes.settled.weights.docstrings=")
    planned(*more, change)
    assert train(compose_config("train", [*more, change]))["step"] == 12


def test_a_disk_that_is_too_small_is_refused_with_what_fits(
    folders: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten checkpoints of 1.49 GB: three that are kept, the one that is written, the best, and five permanent ones."""
    options = [*folders, *MIXED]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(13e9))
    message = refusal(*options)
    assert (
        "needs 14.9 GB for 10 checkpoints, but 13 GB are free. The smallest change: callbacks.checkpoints.keep=1"
        in message
    )
    assert "or free another 1.94 GB, or set runs_dir=… on another disk." in message
    planned(*options, "callbacks.checkpoints.keep=1")
    planned(*options, "max_steps=200", "schedule.warmup_steps=10")  # two checkpoints are all there will be
    both = refusal(*options, "curriculum.max_epochs.alpaca=3")
    assert "curriculum.max_epochs.alpaca is 3" in both
    assert "are free" in both
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2e9))
    assert "keep=" not in refusal(*options)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("plan.device=B52", r"plan\.device=B52 is not known: it must be one of cpu, B200, H200, H100, A100, "),
        ("gradient_clip=-1", r"gradient_clip is -1: it must be a number above 0, or null"),
        ("max_hours=-2", r"max_hours is -2: it must be a number above 0, or null"),
        ("jobs_at_once=0", r"jobs_at_once is 0: it must be a whole number, 1 or more"),
        ("plan.device=null", r"plan\.device is None: it must be a string"),
        ("plan.mfu=0", r"plan\.mfu is 0: it must be a number above 0 and at most 1\."),
        ("plan.mfu=40", r"plan\.mfu is 40"),
        ("plan.mfu=null", r"plan\.mfu is None"),
        ("+model.foo=1", r"model: .*unexpected keyword argument 'foo'"),
        ("model.n_heads=7", r"model\.d_model is 768: it must be a multiple of model\.n_heads=7"),
        ("schedule.warmup_steps=25000", r"schedule\.warmup_steps is 25000"),
        ("micro_batch=5", r"global_batch=126 sequences cannot be divided"),
        ("callbacks.checkpoints.every=0", r"callbacks\.checkpoints\.every is 0"),
        ("callbacks.checkpoints.keep=0", r"callbacks\.checkpoints\.keep is 0"),
        ("~callbacks.checkpoints", r"callbacks\.checkpoints is missing"),
        (
            "+curriculum.keyframes.settled.weights.wiki=1",
            r"weights\.wiki names wiki, which is neither a source nor a mix",
        ),
        (
            "+curriculum.keyframes.settled.weights.readmes=1",
            r"the size of readmes is unknown until it is prepared: run python pre",
        ),
        ("curriculum.keyframes.settled.at=0.5", r"keyframes\.settled\.at is 0\.5: it must be above that of"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_nothing_is_written(
    override: str, message: str, folders: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        planned(*folders, *MIXED, override)
    assert len(str(refused.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["trainer=fsdp", "trainer.devices=2", "trainer.precision=16-mixed"],
            r"whose gradient scaler does not support",
        ),
        (["trainer=fsdp", "trainer.devices=2", "plan.device=T4"], r"whose gradient scaler does not support"),
        (
            ["model.attention=sdpa_cudnn", "trainer.deterministic=true"],
            r"sdpa_cudnn cannot be used with trainer\.determi",
        ),
        (
            ["model.attention=flash", "trainer.precision=32-true"],
            r"model\.attention=flash cannot run: flash needs float16 or",
        ),
        (["optimizer._target_=torch.optim.SGD"], r"optimizer: SGD\.__init__\(\) got an unexpected keyword argument"),
        (
            ["~callbacks.validation", "callbacks.checkpoints.best=true"],
            r"callbacks\.validation, which finds the best one",
        ),
    ],
)
def test_a_plan_for_a_gpu_refuses_what_no_machine_can_train(
    overrides: list[str], message: str, folders: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        planned(*folders, *MIXED, "global_batch=128", "micro_batch=8", "plan.device=H100", *overrides)
    assert not list(tmp_path.iterdir())


def test_a_plan_for_a_gpu_does_not_depend_on_this_machine(folders: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no_such_compiler")
    of_a_gpu = ["model.attention=flash", "trainer.loss_kernel=triton", "trainer.compile=true", "trainer.precision=auto"]
    machines = ["trainer=ddp", "trainer.devices=8", "trainer.num_nodes=2", "global_batch=128", "micro_batch=8"]
    settings = [*folders, *MIXED, *of_a_gpu, *machines]
    for device, precision in (("H100", "bf16-mixed"), ("T4", "16-mixed")):
        content = planned(*settings, f"plan.device={device}")
        assert (content["precision"], content["devices"]) == (precision, 16)
    with pytest.raises(ValueError, match=r"model\.attention=flash cannot run: flash needs a CUDA device"):
        planned(*settings, "plan.device=cpu")


def test_the_command_line_prints_the_plan_and_then_one_sentence(folders: list[str]) -> None:
    command = [sys.executable, "plan.py", *folders, *MIXED, "curriculum.max_epochs.alpaca=3"]
    answer = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert answer.returncode == 1
    assert answer.stderr.startswith(
        "error: the plan is not feasible: curriculum.max_epochs.alpaca is 3, and the plan draws"
    )
    assert len(answer.stderr.splitlines()) == 1
    assert re.search(r"^alpaca \* .* 3\.66 of 3 ", answer.stdout, flags=re.MULTILINE)
    assert re.search(r"^compute .* hours on 1 A100 at 40% MFU in bf16-mixed$", answer.stdout, flags=re.MULTILINE)
