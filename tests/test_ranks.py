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

from running.commands.train import train
from running.config.run_config import RunConfig
from running.training import prepared_data, rank_processes
from running.training.check_settings import check_settings
from tests.conftest import ROOT, TINY, composed
from tests.run_files import as_if_killed, metrics
from tests.training_starts import begin, by_srun, end

_SOON = 45.0  # seconds; a minute may pass until all ranks are gone
GOES_ON = "so this rank ends too. Run the same command again to resume from the newest checkpoint."
KILLED = (
    "was killed by signal 9, and the others ended: run the same command again to resume from the newest checkpoint."
)
RUN = [*TINY, "name=run", "trainer.accelerator=cpu", "trainer.precision=32-true"]


# ── how ranks end, whatever they do ──────────────────────────────────────────────────────────────────────────────────

_PROGRAM = """
import os, sys, time
from running.training.rank_processes import RankLostError, detect_launcher, exit_rank, fail_together, is_first_rank, run_on_ranks
if not detect_launcher():
    run_on_ranks(2)
    sys.exit()
try:
    with fail_together():
        os.write(1, f"rank {{os.environ['RANK']}} {{os.getpid()}}\\n".encode())  # in one piece, whatever the other rank writes
        {first} if is_first_rank() else {second}
except RankLostError as error:
    sys.stderr.write(f"error: {{error}}\\n")
    exit_rank(error.exit_code)
print("done", flush=True)
"""
TwoRanks = Callable[[str, str], subprocess.Popen[str]]
_WORKING = "time.sleep(60)"
_LOSING = """exec("raise RuntimeError('gloo: Connection closed by peer')")"""


@pytest.fixture
def two_ranks(tmp_path: Path) -> TwoRanks:
    """A program whose first rank does the one, and its second the other."""

    def started(first: str, second: str) -> subprocess.Popen[str]:
        program = tmp_path / "program.py"
        program.write_text(_PROGRAM.format(first=first, second=second))
        return subprocess.Popen(
            [sys.executable, str(program)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return started


def pids_of(main: subprocess.Popen[str]) -> list[int]:
    """Of the ranks, once both are at work."""
    assert main.stdout is not None
    return [int(line.split()[2]) for line in sorted(main.stdout.readline() for _ in range(2))]


def ends_within(pids: list[int], seconds: float) -> None:
    until = time.monotonic() + seconds
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.parametrize("victim", [0, 1])
def test_the_other_rank_ends_too_and_it_is_said_why(two_ranks: TwoRanks, victim: int) -> None:
    main = two_ranks(_WORKING, _WORKING)
    os.kill(pids_of(main)[victim], signal.SIGKILL)
    _, err = main.communicate(timeout=_SOON)
    assert (main.returncode, err) == (75, f"error: rank {victim} {KILLED}\n")


def test_ranks_end_with_what_has_started_them(two_ranks: TwoRanks) -> None:
    main = two_ranks(_WORKING, _WORKING)
    pids = pids_of(main)
    main.kill()
    ends_within(pids, _SOON)
    assert main.communicate()[1] == f"error: torchrun has ended, {GOES_ON}\n" * 2


def test_an_exit_code_of_all_ranks_is_that_of_the_run(two_ranks: TwoRanks) -> None:
    """Though the first rank, which still has something to write, would be ended as soon as another one has failed."""
    main = two_ranks("(time.sleep(2), print('written', flush=True), exit_rank(143))", "exit_rank(143)")
    out, err = main.communicate(timeout=_SOON)
    assert (main.returncode, err) == (143, "")
    assert "written" in out


def test_a_rank_that_is_ended_as_it_leaves_has_the_exit_code_of_the_run() -> None:
    """So that of all ranks the highest, which is srun's, is that of the first."""
    program = "from running.training import rank_processes; print(flush=True); rank_processes.exit_rank(65)"
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, env=os.environ | TORCHRUN | {"RANK": "1"}, stdout=subprocess.PIPE
    ) as rank:
        assert rank.stdout is not None
        rank.stdout.readline()
        time.sleep(0.5)
        rank.terminate()
        assert rank.wait(3) == 65


def test_a_broken_connection_is_said_in_one_sentence(two_ranks: TwoRanks) -> None:
    main = two_ranks(_LOSING, _LOSING)
    out, err = main.communicate(timeout=_SOON)
    assert (main.returncode, set(err.splitlines())) == (75, {f"error: another rank has ended, {GOES_ON}"})
    assert "done" not in out


def test_ranks_that_are_done_are_a_success(two_ranks: TwoRanks) -> None:
    out, err = two_ranks("None", "time.sleep(2)").communicate(timeout=_SOON)
    assert (out.count("done"), err) == (2, "")


def test_a_run_has_one_launcher_and_ends_with_it(tiny_data: Path, tmp_path: Path) -> None:
    settings = ["max_steps=20000", "curriculum.on_exhausted=repeat", "val_every=20000", "callbacks.samples.every=20000"]
    command = [*RUN, f"data_dir={tiny_data}", f"runs_dir={tmp_path}", *settings, "trainer=ddp"]
    main = begin(command)
    until = time.monotonic() + 120
    while not list(tmp_path.glob("run/checkpoints/*.pt")):
        assert main.poll() is None, end(main).stderr
        assert time.monotonic() < until
        time.sleep(0.1)
    rank_processes = [child.pid for child in psutil.Process(main.pid).children()]
    assert len(rank_processes) == 2
    second = end(begin(command))
    assert second.returncode == 1
    assert (said := re.fullmatch(r"error: .*run is being trained by process (\d+) on .*\n", second.stderr))
    assert int(said[1]) in rank_processes
    main.kill()
    ends_within(rank_processes, _SOON)
    assert f"error: torchrun has ended, {GOES_ON}\n" in end(main).stderr


# ── ranks that would not train one run ───────────────────────────────────────────────────────────────────────────────


def config_of(data_dir: Path, runs: Path, *more: str) -> dict[str, Any]:
    return composed([*RUN, f"data_dir={data_dir}", f"runs_dir={runs}", *more])


TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}
SRUN = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2"}
WITHOUT_A_MACHINES_TASKS = {name: value for name, value in SRUN.items() if name != "SLURM_NTASKS_PER_NODE"}
IN_A_BATCH_SCRIPT = {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}


@pytest.mark.parametrize(
    ("started", "more", "message"),
    [
        (TORCHRUN, [], r"torchrun has started 4 processes, 2 per machine, but trainer\.devices=1 x trainer\.num_nodes=1 is 1"),
        (TORCHRUN, ["trainer=ddp"], r"set trainer\.devices=2 trainer\.num_nodes=2\."),
        (TORCHRUN, ["trainer=ddp", "trainer.devices=4"], r"set trainer\.devices=2 trainer\.num_nodes=2\."),
        (SRUN, ["trainer=fsdp"], r"srun has started 4 processes, 2 per machine, but .* set trainer\.devices=2 trainer\.num_nod"),
        (WITHOUT_A_MACHINES_TASKS, ["trainer=fsdp"], r"use --ntasks-per-node, not --ntasks\."),
        (IN_A_BATCH_SCRIPT, ["trainer=ddp", "trainer.num_nodes=2"], r"with torchrun or srun, see docs/howto/several_gpus"),
        ({}, ["trainer.num_nodes=2"], r"the processes on the other machines were not started: start the run with torch"),
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
    with pytest.raises(ValueError, match=f"this process sees {n_gpus} CUDA devices: set .*trainer.accelerator=cpu"):
        check_settings(RunConfig.of(config), "cuda")


def test_each_of_several_processes_would_run_the_whole_multirun(monkeypatch: pytest.MonkeyPatch) -> None:
    rank_processes.check_no_multirun()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.raises(
        ValueError, match="a multirun needs one process, but torchrun started several: start it with python;"
    ):
        rank_processes.check_no_multirun()


def test_ranks_that_see_other_checkpoints_do_not_train(tiny_data: Path, tmp_path: Path) -> None:
    """As where a file system shows a machine late what another one has written."""
    train(config_of(tiny_data, tmp_path))
    runs = [as_if_killed(tmp_path / "run", tmp_path / name, after=step) for name, step in (("some", 4), ("others", 0))]
    before = [metrics(run) for run in runs]
    answers = by_srun(*([*RUN, f"data_dir={tiny_data}", f"runs_dir={run.parent}", "trainer=ddp"] for run in runs))
    for answer in answers:
        assert answer.returncode == 1
        assert "some ranks would resume after step 0, others after step 4: all ranks must see the same" in answer.stderr
    assert [metrics(run) for run in runs] == before


def test_ranks_with_other_settings_do_not_train(tiny_data: Path, tmp_path: Path) -> None:
    command = [*RUN, f"data_dir={tiny_data}", f"runs_dir={tmp_path}", "trainer=ddp"]
    answers = by_srun([*command, "optimizer.lr=1e-3"], [*command, "optimizer.lr=1e-4"])
    for answer in answers:
        assert answer.returncode == 1
        assert answer.stderr.startswith(
            "error: the ranks would train different runs: optimizer.lr is 0.001 on rank 0 and 0.0001 on rank 1. Start all"
        )
        assert len(answer.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


# ── ranks that wait for what rank 0 prepares ─────────────────────────────────────────────────────────────────────────


@pytest.fixture
def second_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """What rank 1 does where a source is not prepared."""
    monkeypatch.setattr(prepared_data, "_LOOK_EVERY", 0.05)
    monkeypatch.setattr(prepared_data, "_SILENCE", 1.0)
    for name, value in (TORCHRUN | {"RANK": "1"}).items():
        monkeypatch.setenv(name, value)
    return lambda: prepared_data._wait(tmp_path / "sign", [tmp_path / "source.json"])


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
    with pytest.raises(ValueError, match=re.escape(f"rank 0 has stopped preparing {tmp_path}: see its error")):
        second_rank()
    assert time.monotonic() - began < 30  # who waits for a sign waits 45 seconds


def test_rank_0_gives_a_sign_while_it_prepares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared_data, "_LOOK_EVERY", 0.05)
    signs = []
    touch = Path.touch
    monkeypatch.setattr(Path, "touch", lambda path: (signs.append(path), touch(path)))
    config = config_of(
        tmp_path, tmp_path / "runs", "data.prepare=missing", "tokenizer.name=gpt2", "+data.limit_tokens.readmes=1"
    )
    with pytest.raises(ValueError, match="readmes could not be prepared"):
        train(config)
    assert len(signs) > 1
    assert not any(sign.exists() for sign in signs)
