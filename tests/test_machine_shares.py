"""What each of several jobs gets of a machine."""

import os
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from running.sweeps.machine_shares import describe_shares, machine_shares


def shares(n: Any, *, devices: int = 1, accelerator: str = "auto") -> list[dict[str, str]]:
    return machine_shares(n, devices=devices, accelerator=accelerator)


def gpus_of(some: list[dict[str, str]]) -> list[list[str]]:
    return [share["CUDA_VISIBLE_DEVICES"].split(",") for share in some]


@given(n=st.integers(2, 20), gpus=st.integers(1, 16))
def test_every_job_has_a_gpu_and_none_has_another_ones_if_there_are_enough(n: int, gpus: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", ",".join(str(10 + gpu) for gpu in range(gpus)))
        dealt = gpus_of(shares(n))
    assert len(dealt) == n
    assert {len(of_one) for of_one in dealt} == {max(1, gpus // n)}
    every = [gpu for of_one in dealt for gpu in of_one]
    assert set(every) <= {str(10 + gpu) for gpu in range(gpus)}
    counts = [every.count(gpu) for gpu in set(every)]
    assert max(counts) - min(counts) <= 1
    assert max(counts) == max(1, -(-n // gpus))


@given(n=st.integers(2, 20), threads=st.integers(1, 64))
def test_threads_are_shared_out(n: int, threads: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", str(threads))
        each = [int(share["OMP_NUM_THREADS"]) for share in shares(n, accelerator="cpu")]
    assert len(each) == n
    assert set(each) == {max(1, threads // n)}


def test_what_the_process_may_use_is_what_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert shares(3) == [{"OMP_NUM_THREADS": "2"}] * 3
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert gpus_of(shares(3)) == [["0"], ["1"], ["0"]]
    assert shares(3, accelerator="cpu") == [{"OMP_NUM_THREADS": "2"}] * 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert shares(3) == [{"OMP_NUM_THREADS": "2"}] * 3
    assert shares(1) == [{}]
    assert shares(2, devices=3) == [{"OMP_NUM_THREADS": "1"}] * 2


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    with pytest.raises(
        ValueError, match=r"jobs_at_once=2 with trainer\.devices=2 needs 4 GPUs, but there are 3: lower"
    ):
        shares(2, devices=2)
    for nonsense in (0, -1, "two", 1.5, True, None):
        with pytest.raises(ValueError, match=r"jobs_at_once is .*: it must be a number of jobs, 1 or more"):
            shares(nonsense)


def test_a_share_is_said_in_words() -> None:
    assert describe_shares({"OMP_NUM_THREADS": "1"}) == "1 thread"
    assert describe_shares({"OMP_NUM_THREADS": "4"}) == "4 threads"
    assert describe_shares({"OMP_NUM_THREADS": "4", "CUDA_VISIBLE_DEVICES": "2,3"}) == "GPU 2,3"
