"""train.py as it is started: on two ranks, in each of the ways that a user may; or to be killed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from running.config.compose import compose_config
from tests.conftest import ROOT

_TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
_LIMIT = 200  # seconds

Answer = subprocess.CompletedProcess[str]


def begin(overrides: Sequence[str], *, torchrun: bool = False, **environment: str) -> subprocess.Popen[str]:
    """Start train.py, which on two ranks starts the other one; or torchrun, which starts both."""
    command = [sys.executable, *(_TORCHRUN if torchrun else ()), "train.py", *overrides]
    variables = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables)


def end(process: subprocess.Popen[str]) -> Answer:
    """Wait for it and for all that it has started."""
    try:
        out, err = process.communicate(timeout=_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return Answer(process.args, process.returncode, out, err)


def by_torchrun(overrides: Sequence[str]) -> Answer:
    return end(begin(overrides, torchrun=True))


def by_srun(*overrides: Sequence[str]) -> list[Answer]:
    """One task on each of two machines, with what srun tells them; each may get a command line of its own."""
    of_job = {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_STEP_ID": "0",
        "SLURM_JOB_NAME": "run",
        "SLURM_NODELIST": "localhost",
    }
    of_job |= {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2", "SLURM_LOCALID": "0"}
    tasks = [
        begin([*of_task, "trainer.devices=1", "trainer.num_nodes=2"], **of_job, SLURM_PROCID=n, SLURM_NODEID=n)
        for n, of_task in zip("01", overrides, strict=True)
    ]
    try:
        return [end(task) for task in tasks]
    finally:
        for task in tasks:
            task.kill()


def on_ranks(module: str, n_ranks: int, folder: Path) -> None:
    """`python -m <module> <rank> <n_ranks> <folder>` on each rank; none may fail."""
    variables = os.environ | {"OMP_NUM_THREADS": "1"}
    commands = [[sys.executable, "-m", module, str(rank), str(n_ranks), str(folder)] for rank in range(n_ranks)]
    ranks = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables)
        for command in commands
    ]
    try:
        answers = [end(rank) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert all(answer.returncode == 0 for answer in answers), "\n".join(answer.stdout for answer in answers)


def killed(overrides: Sequence[str], *, at: int) -> None:
    """A run that gets SIGKILL as it begins a micro-batch; 0 is the first of the whole run."""
    done = ended_by("SIGKILL", compose_config("train", overrides), micro_batch=at)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]


def ended_by(signal_name: str, config: Mapping[str, Any], *, micro_batch: int, folder: Path = ROOT) -> Answer:
    """Train in a folder, and get a signal as a micro-batch begins; 0 is the first of the whole run."""
    faults = [["send", {"signal_name": signal_name, "micro_batch": micro_batch}]]
    script = [sys.executable, "-m", "tests.faults.forked_training", json.dumps({"config": config, "faults": faults})]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(script, cwd=folder, check=False, capture_output=True, text=True, env=environment)
