"""Ranks that are started, that are refused, and that are gone."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import data_folder
import launch
import ranks
from strategies import refuse_other_ranks
from tests.conftest import ROOT, TINY
from tests.runs import as_if_killed, metrics
from tests.starts import begin, by_srun, end
from train import train

_SOON = 30.0  # seconds; half of what may pass until all ranks are gone
GOES_ON = "this one ends too, and the same command goes on from the newest checkpoint."
RUN = [*TINY, "name=run", "trainer.accelerator=cpu", "trainer.precision=32-true"]


# ── a rank that is gone, while the ranks are at something that no error reaches ──────────────────────────────────────

_PROGRAM = """
import os, sys, time
from ranks import is_first_rank, leave, together
try:
    with together(devices=2, num_nodes=1):
        print("here", os.getpid(), flush=True)
        {first} if is_first_rank() else {second}
except Exception as error:
    sys.exit(f"error: {{error}}")
print("done", flush=True)
"""
_WORKING = "time.sleep(60)"
_FAILING = """exec("raise RuntimeError('gloo: Connection closed by peer')")"""


def two_ranks(first: str, second: str) -> subprocess.Popen[str]:
    program = _PROGRAM.format(first=first, second=second)
    return subprocess.Popen(
        [sys.executable, "-c", f"__file__ = ''{program}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def pids_of(main: subprocess.Popen[str]) -> list[int]:
    """Of rank 0 and rank 1, once both are at work."""
    assert main.stdout is not None
    said = {int(main.stdout.readline().split()[1]) for _ in range(2)}
    return [main.pid, *(said - {main.pid})]


def ends_within(pids: list[int], seconds: float) -> None:
    until = time.monotonic() + seconds
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.parametrize(("victim", "says"), [(0, "rank 0 is gone"), (1, "rank 1 was killed by signal 9")])
def test_the_other_rank_ends_too_and_says_so(victim: int, says: str) -> None:
    main = two_ranks(_WORKING, _WORKING)
    pids = pids_of(main)
    os.kill(pids[victim], signal.SIGKILL)
    ends_within(pids, _SOON)
    _, err = main.communicate()
    assert err == f"error: {says}: {GOES_ON}\n"
    assert main.returncode == (-signal.SIGKILL, 1)[victim]


def test_an_exit_code_of_all_ranks_is_that_of_the_run() -> None:
    """Rank 1 is gone some seconds before rank 0, which still has something to write."""
    main = two_ranks("(time.sleep(8), leave(143))", "leave(143)")
    _, err = main.communicate(timeout=_SOON)
    assert (main.returncode, err) == (143, "")


def test_a_broken_connection_is_said_in_one_sentence() -> None:
    main = two_ranks(_FAILING, _WORKING)
    out, err = main.communicate(timeout=_SOON)
    assert (main.returncode, err) == (1, f"error: another rank is gone: {GOES_ON}\n")
    assert "done" not in out


def test_the_first_rank_waits_for_the_others_at_the_end() -> None:
    main = two_ranks("None", "time.sleep(3)")
    pids = pids_of(main)
    assert main.wait(timeout=_SOON) == 0
    assert not psutil.pid_exists(pids[1])
    assert main.communicate() == ("done\n" * 2, "")


# ── a rank that is gone, while it trains ─────────────────────────────────────────────────────────────────────────────


def train_for_long(data_dir: Path, runs: Path, *more: str, torchrun: bool = False) -> subprocess.Popen[str]:
    """Two ranks, of which a checkpoint is there already."""
    settings = ["max_steps=20000", "curriculum.on_exhausted=repeat", "val_every=20000", "callbacks.samples.every=20000"]
    process = begin([*RUN, f"data_dir={data_dir}", f"runs_dir={runs}", *settings, *more], torchrun=torchrun)
    until = time.monotonic() + 120
    while not list(runs.glob("run/checkpoints/*.pt")):
        assert process.poll() is None, end(process).stderr
        assert time.monotonic() < until
        time.sleep(0.1)
    return process


def rank_of(process: psutil.Process) -> int | None:
    if "torch.distributed.run" in process.cmdline() or "train.py" not in process.cmdline():
        return None
    return int(process.environ().get("RANK", "0"))


@pytest.mark.parametrize(("strategy", "victim", "torchrun"), [("fsdp", 0, False), ("ddp", 1, False), ("fsdp", 1, True)])
def test_a_killed_rank_takes_the_other_with_it(
    tiny_data: Path, tmp_path: Path, strategy: str, victim: int, torchrun: bool
) -> None:
    main = train_for_long(tiny_data, tmp_path, f"trainer={strategy}", torchrun=torchrun)
    family = [psutil.Process(main.pid), *psutil.Process(main.pid).children(recursive=True)]
    of_rank = {rank: process for process in family if (rank := rank_of(process)) is not None}
    assert sorted(of_rank) == [0, 1]
    of_rank[victim].kill()
    ends_within([process.pid for process in family], _SOON)
    answer = end(main)
    assert answer.returncode == (-signal.SIGKILL if victim == 0 else 1)
    if not torchrun:  # which may be faster, and has pages of its own to say
        who = "rank 0 is gone" if victim == 0 else "rank 1 was killed by signal 9"
        assert answer.stderr == f"error: {who}: {GOES_ON}\n"


# ── ranks that would not train one run ───────────────────────────────────────────────────────────────────────────────


def config_of(data_dir: Path, runs: Path, *more: str) -> dict[str, Any]:
    return launch.compose_config("train", [*RUN, f"data_dir={data_dir}", f"runs_dir={runs}", *more])


TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}
SRUN = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2"}
WITHOUT_A_MACHINES_TASKS = {name: value for name, value in SRUN.items() if name != "SLURM_NTASKS_PER_NODE"}
IN_A_BATCH_SCRIPT = {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}


@pytest.mark.parametrize(
    ("started", "more", "message"),
    [
        (TORCHRUN, [], r"torchrun has started 4 processes, 2 on a machine, and trainer\.devices=1 x trainer\.num_nodes=1 are 1"),
        (TORCHRUN, ["trainer=ddp"], r"set trainer\.devices=2 trainer\.num_nodes=2\."),
        (TORCHRUN, ["trainer=ddp", "trainer.devices=4"], r"set trainer\.devices=2 trainer\.num_nodes=2\."),
        (SRUN, ["trainer=fsdp"], r"srun has started 4 processes, 2 on a machine, and .* set trainer\.devices=2 trainer\.num_nod"),
        (WITHOUT_A_MACHINES_TASKS, ["trainer=fsdp"], r"give --ntasks-per-node, not --ntasks\."),
        (IN_A_BATCH_SCRIPT, ["trainer=ddp", "trainer.num_nodes=2"], r"start the run by torchrun or srun, see docs/distrib"),
        ({}, ["trainer.num_nodes=2"], r"nothing has started the processes of the other machines: start the run by torch"),
        ({}, ["trainer.strategy=deepspeed"], r"trainer\.strategy is 'deepspeed': it must be one of auto, ddp, fsdp\."),
    ],
)  # fmt: skip
def test_what_was_started_must_be_what_is_configured(
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    started: dict[str, str],
    more: list[str],
    message: str,
) -> None:
    for name, value in started.items():
        monkeypatch.setenv(name, value)
    config = config_of(tiny_data, tmp_path, *more, "micro_batch=1", "global_batch=8")
    with pytest.raises(ValueError, match=message) as refusal:
        train(config)
    assert len(str(refusal.value).splitlines()) == 1
    assert not list(tmp_path.rglob("config.yaml"))


def test_more_ranks_than_gpus_are_refused(tiny_data: Path, tmp_path: Path) -> None:
    n_gpus = torch.cuda.device_count()
    config = config_of(tiny_data, tmp_path, f"trainer.devices={n_gpus + 1}")
    with pytest.raises(
        ValueError, match=f"this process sees {n_gpus} of CUDA's: set trainer.devices={n_gpus}, or trainer"
    ):
        refuse_other_ranks(config, "cuda", "32-true")


def test_each_of_several_processes_would_run_the_whole_multirun(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks.refuse_multirun()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.raises(
        ValueError, match="a multirun is one process, and torchrun has started several: start it by python;"
    ):
        ranks.refuse_multirun()


def test_ranks_that_see_other_checkpoints_do_not_train(tiny_data: Path, tmp_path: Path) -> None:
    """As where a file system shows a machine late what another one has written."""
    train(config_of(tiny_data, tmp_path))
    runs = [as_if_killed(tmp_path / "run", tmp_path / name, after=step) for name, step in (("some", 4), ("others", 0))]
    before = [metrics(run) for run in runs]
    answers = by_srun(*([*RUN, f"data_dir={tiny_data}", f"runs_dir={run.parent}", "trainer=ddp"] for run in runs))
    for answer in answers:
        assert answer.returncode == 1
        assert "some ranks would go on after step 0, others after step 4: they do not see the same" in answer.stderr
    assert [metrics(run) for run in runs] == before


# ── ranks that wait for what rank 0 prepares ─────────────────────────────────────────────────────────────────────────


@pytest.fixture
def second_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """What rank 1 does where a source is not prepared."""
    monkeypatch.setattr(data_folder, "_LOOK_EVERY", 0.05)
    monkeypatch.setattr(data_folder, "_SILENCE", 1.0)
    for name, value in (TORCHRUN | {"RANK": "1"}).items():
        monkeypatch.setenv(name, value)
    return lambda: data_folder._wait(tmp_path / "sign", [tmp_path / "source.json"])


def test_a_rank_waits_as_long_as_rank_0_is_at_work(second_rank: Callable[[], None], tmp_path: Path) -> None:
    def work() -> None:
        for _ in range(10):
            (tmp_path / "sign").touch()
            time.sleep(0.2)
        (tmp_path / "source.json").touch()

    thread = threading.Thread(target=work)
    thread.start()
    second_rank()
    thread.join()
    assert (tmp_path / "source.json").is_file()


@pytest.mark.parametrize("sign_is_left", [False, True])
def test_a_rank_does_not_wait_for_one_that_is_gone(
    second_rank: Callable[[], None], tmp_path: Path, sign_is_left: bool
) -> None:
    if sign_is_left:
        (tmp_path / "sign").touch()
    began = time.monotonic()
    with pytest.raises(ValueError, match=re.escape(f"rank 0 does not prepare {tmp_path} any more: see what it says")):
        second_rank()
    assert time.monotonic() - began < 5


def test_rank_0_gives_a_sign_while_it_prepares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_folder, "_LOOK_EVERY", 0.05)
    signs = []
    touch = Path.touch
    monkeypatch.setattr(Path, "touch", lambda path: (signs.append(path), touch(path)))
    config = config_of(
        tmp_path, tmp_path / "runs", "data.prepare=missing", "tokenizer=gpt2", "+data.limit_tokens.readmes=-1"
    )
    with pytest.raises(ValueError, match="readmes could not be prepared"):
        train(config)
    assert len(signs) > 1
    assert not any(sign.exists() for sign in signs)
