"""train.py on two ranks, started in each of the ways that a user may."""

import os
import subprocess
import sys
from collections.abc import Sequence

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
    return [end(task) for task in tasks]
