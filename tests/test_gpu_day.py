"""benchmarks.gpu_day: its checks pass on the CPU where they should, fail for mutants, and a day loses no row."""

import importlib
import itertools
import re
import time
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor

from benchmarks.generation import random_model
from benchmarks.gpu_day import __main__ as main
from benchmarks.gpu_day import attention, download_wheels, faults, generation, loss_head, ranks, resume
from benchmarks.gpu_day.attention import Case
from benchmarks.gpu_day.json_subprocess import Child, ChildBroke
from benchmarks.gpu_day.result_rows import Day, read_rows
from benchmarks.gpu_day.small_run_config import config_of, fingerprint, fingerprints_of
from callbacks import RunStopped
from gpt_lightning.generation import cuda_graph_step
from gpt_lightning.lit_gpt import LitGPT
from gpt_lightning.model import loss_kernels
from gpt_lightning.model.part_registry import BACKENDS, LOSS_KERNELS
from running.commands.train import train
from tests.conftest import TINY

HEAD = {"tokens": 70, "d_model": 32, "vocab_size": 97, "device": "cpu", "oracle": "cpu"}


@pytest.fixture
def day(tmp_path: Path) -> Day:
    return Day(str(tmp_path / "rows.jsonl"), str(tmp_path), "stage", time.time() + 60, device="cpu")


@pytest.fixture
def overrides(tiny_data: Path, tmp_path: Path) -> list[str]:
    return [*TINY, f"data_dir={tiny_data}", f"runs_dir={tmp_path / 'runs'}", "trainer.accelerator=cpu"]


def wrong_scale(q: Tensor, *rest: Any) -> Tensor:
    return BACKENDS["sdpa"].attend(1.1 * q, *rest)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", ["manual", "sdpa"])
@pytest.mark.parametrize(("kv_heads", "documents"), [(4, False), (1, True)])
def test_attention_is_right(backend: str, dtype: torch.dtype, kv_heads: int, documents: bool) -> None:
    found = attention.errors(Case(backend, dtype, 64, kv_heads, documents), time=64, device="cpu")
    assert found["passed"], found


def test_a_graph_that_was_not_captured_or_draws_other_ids_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = partial(generation.sampled_by_graph, random_model("micro"), [[1, 2, 3]], 4, False)
    assert judge()["passed"]
    with monkeypatch.context() as patch:
        patch.setattr(cuda_graph_step, "_failed", ["a capture"])
        assert not judge()["passed"]
    ids = itertools.count()
    monkeypatch.setattr(generation, "generate", lambda *args, **kwargs: [[next(ids)]])
    assert not judge()["passed"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_wrong_scale_of_attention_is_seen(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(attention.BACKENDS, "mutant", BACKENDS["sdpa"]._replace(attend=wrong_scale))
    assert not attention.errors(Case("mutant", dtype, 64, 4, False), time=64, device="cpu")["passed"]


def test_documents_that_see_each_other_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = BACKENDS["manual"]._replace(plan=lambda view, device: view._replace(first=None).mask(device))
    monkeypatch.setitem(attention.BACKENDS, "mutant", mutant)
    assert not attention.errors(Case("mutant", torch.bfloat16, 64, 4, True), time=64, device="cpu")["passed"]


def test_dropout_drops_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    for backend in ("manual", "sdpa"):
        found = attention.dropped(backend, torch.bfloat16, batch=8, device="cpu")
        assert found["passed"], found
    attend = BACKENDS["sdpa"].attend
    for changed in (0.0, 0.12):
        mutant = BACKENDS["sdpa"]._replace(attend=lambda q, k, v, plan, _, p=changed: attend(q, k, v, plan, p))
        monkeypatch.setitem(attention.BACKENDS, "mutant", mutant)
        assert not attention.dropped("mutant", torch.bfloat16, batch=8, device="cpu")["passed"]


@pytest.mark.parametrize("dtype", loss_head.DTYPES)
@pytest.mark.parametrize("kernel", ["torch", "triton"])
def test_the_loss_head_is_right(kernel: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    if kernel == "triton":
        pytest.importorskip("triton")
        monkeypatch.setattr(loss_kernels, "why_triton_is_unavailable", lambda device: None)
    for options in loss_head.OPTIONS.values():
        found = loss_head.errors(kernel=kernel, dtype=dtype, **HEAD, **options)
        assert found["passed"], found


def test_a_kernel_that_forgets_the_mask_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = loss_kernels.torch_loss
    mutant = lambda logits, targets, mask, *rest: right(logits, targets, None, *rest)  # noqa: E731
    monkeypatch.setitem(LOSS_KERNELS, "torch", mutant)
    assert not loss_head.errors(kernel="torch", dtype=torch.bfloat16, masked=True, **HEAD)["passed"]


def test_a_run_that_goes_on_is_compared_tensor_by_tensor(overrides: list[str], tmp_path: Path, day: Day) -> None:
    def trained(name: str, *more: str, stop: int | None = None) -> resume.Fingerprints:
        starts = [stop, None] if stop else [None]
        for start in starts:
            changed = more if start is None else ()
            probe = {"kind": "TensorLog", "stop_after": start}
            config = config_of([*overrides, f"name={name}", "max_steps=6", *changed], probe=probe)
            if start is None:
                train(config)
            else:
                with pytest.raises(RunStopped):
                    train(config)
        return fingerprints_of(tmp_path / "runs" / name)

    mode = "deterministic, eager"
    straight = trained("straight")
    assert list(straight) == [1, 2, 3, 4, 5, 6]
    assert resume.judged(mode, straight, trained("stopped", stop=3)) == {
        "passed": True,
        "steps": 6,
        "first_difference": None,
    }
    other = resume.judged(mode, straight, trained("other", "optimizer.lr=1e-3", stop=3))
    day.check("10 + 10", lambda: other)
    assert main.report(day) == 1
    assert other["first_difference"].startswith("step 4: ")
    assert "passed" not in resume.judged("default, eager", straight, {})


def test_a_fingerprint_sees_every_bit_and_place() -> None:
    x = torch.arange(6, dtype=torch.float32)
    assert fingerprint(x) == fingerprint(x.clone())
    assert fingerprint(x) != fingerprint(x.flip(0))
    assert fingerprint(x) != fingerprint(torch.nextafter(x, torch.tensor(9.0)))


@pytest.fixture
def fp16_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning's own choice of precision leaves fp16 to CUDA."""
    real = L.Trainer

    def trainer(*, precision: str, plugins: list[Any], **rest: Any) -> L.Trainer:
        assert precision == "16-mixed"
        return real(plugins=[*plugins, MixedPrecision(precision, "cpu", torch.amp.GradScaler("cpu"))], **rest)

    monkeypatch.setattr(L, "Trainer", trainer)


@pytest.mark.usefixtures("fp16_on_cpu")
def test_a_step_that_overflows(overrides: list[str], day: Day, monkeypatch: pytest.MonkeyPatch) -> None:
    found = faults.overflow(overrides)
    assert found["passed"], found
    monkeypatch.setattr(LitGPT, "lr_scheduler_step", lambda self, scheduler, metric: scheduler.step())
    found = faults.overflow([*overrides, f"runs_dir={day.folder}/mutants"])
    assert (found["passed"], found["left_out"], found["schedule_waits"]) == (False, True, False)


def test_a_loss_that_is_not_finite(overrides: list[str], day: Day, monkeypatch: pytest.MonkeyPatch) -> None:
    found = faults.not_finite(overrides)
    assert found["passed"], found
    monkeypatch.setattr(LitGPT, "_why_left_out", lambda self, in_flight: None)
    monkeypatch.setattr(LitGPT, "refuse_ruined_weights", lambda self: None)
    day.check("not finite", partial(faults.not_finite, [*overrides, f"runs_dir={day.folder}/mutants"]))
    assert main.report(day) == 1


def test_each_stage_is_a_module_that_runs() -> None:
    for stage in main.STAGES:
        assert callable(importlib.import_module(f"benchmarks.gpu_day.{stage}").run), stage


def test_a_child_is_started_by_the_name_of_its_module() -> None:
    folder = Path(main.__file__).parent
    started = [re.findall(r'\bChild\(\s*"(\w+)"', path.read_text(encoding="utf-8")) for path in folder.glob("*.py")]
    names = {name for of_file in started for name in of_file}
    assert {"speed_worker", "training_worker"} <= names
    assert [name for name in sorted(names) if not (folder / f"{name}.py").is_file()] == []


def test_a_failed_check_fails_the_day(day: Day, capsys: pytest.CaptureFixture[str]) -> None:
    day.check("right", lambda: {"passed": True, "error_of": 0.1})
    assert main.report(day) == 0
    day.check("wrong", lambda: {"passed": False, "error_of": float("nan")})
    day.check("broken", lambda: {"passed": 1 / 0 > 0})
    day.measure("not measured", lambda: {"value": 1 / 0})
    assert main.report(day) == 1
    said = capsys.readouterr().out
    assert "FAILED: stage: wrong\n" in said
    assert "FAILED: stage: broken (ZeroDivisionError: division by zero)\n" in said
    assert "not measured: stage: not measured: ZeroDivisionError: division by zero\n" in said
    assert "3 checks, 2 failures" in said


def test_a_rehearsal_judges_no_value_but_a_stage_that_broke(day: Day) -> None:
    rehearsal = Day(**{**vars(day), "rehearse": True})
    rehearsal.check("wrong", lambda: {"passed": False})
    assert main.report(rehearsal) == 0
    rehearsal.add("stage", {"error": "its process ended"})
    assert main.report(rehearsal) == 1


def _raise(error: Exception) -> dict[str, Any]:
    raise error


def test_what_no_time_is_left_for_is_skipped_and_says_so(day: Day) -> None:
    late = Day(**{**vars(day), "until": time.time() + 1})
    late.check("long", lambda: {"passed": False}, seconds=10)
    day.check("late", partial(_raise, TimeoutError()))
    assert main.run_day(day, {"attention": 45, "loss_head": 40}, seconds=0) == 2
    rows = [(row["row"], row["skipped"]) for row in read_rows(Path(day.results))]
    assert rows == [(row, "no time is left") for row in ("long", "late", "stage", "stage")]


def test_a_stage_that_breaks_or_hangs_costs_its_own_rows_alone(day: Day) -> None:
    stages = {"no_such_stage": 60, "speed": 0.2, "loss_head": 60}
    rehearsal = Day(**{**vars(day), "rehearse": True})
    assert main.run_day(rehearsal, stages, seconds=120) == 1
    rows = read_rows(Path(day.results))
    broke = {row["stage"]: row["error"] for row in rows if row["row"] == "stage"}
    assert list(broke) == ["no_such_stage", "speed"]
    assert "exit code 1" in broke["no_such_stage"]
    assert "its deadline passed" in broke["speed"]
    heads = [row for row in rows if row["stage"] == "loss_head"]
    assert [row["passed"] for row in heads if "passed" in row] == [True] * 9
    assert {row["skipped"] for row in heads if "skipped" in row} == {"the device is cpu, not cuda"}


def test_rows_survive_a_crash(day: Day) -> None:
    day.add("first", {"value": 1.0, "unknown": float("inf")})
    with Path(day.results).open("a") as file:
        file.write('{"stage": "stage", "row": "torn')
    assert read_rows(Path(day.results)) == [{"stage": "stage", "row": "first", "value": 1.0, "unknown": "inf"}]


def test_losses_of_ranks_are_compared() -> None:
    losses = [4.0] * ranks.STEPS
    assert ranks.compared(losses, losses)["passed"]
    assert not ranks.compared(losses, [*losses[:-1], 4.1])["passed"]
    assert not ranks.compared(losses[1:], losses[1:])["passed"]


def test_a_child_that_breaks_says_why(tmp_path: Path) -> None:
    child = Child("speed_worker", {"row": {}}, log=tmp_path / "log")
    with pytest.raises(ChildBroke, match="KeyError"):
        child.answer(until=time.time() + 60)
    child.end()


def test_a_wheel_is_stripped_to_one_cuda(tmp_path: Path) -> None:
    names = ["b/lib_cpu.so", "b/lib_cuda130.so", "b/lib_cuda126.so", "b/x.py", "b.dist-info/RECORD"]
    with zipfile.ZipFile(tmp_path / "b.whl", "w") as wheel:
        for name in names:
            wheel.writestr(name, "\n".join(f"{name},sha256=0,1" for name in names))
    download_wheels.strip(tmp_path / "b.whl", tmp_path / "small.whl", cuda="130")
    with zipfile.ZipFile(tmp_path / "small.whl") as wheel:
        kept = wheel.namelist()
        record = wheel.read("b.dist-info/RECORD").decode()
    assert kept == [name for name in names if "126" not in name]
    assert "126" not in record
