"""Ranks that begin together, or not at all."""

from typing import Any

import pytest
import torch

from callbacks import StartStepAgreement


class Group:
    """Knows tensors of one device alone, as NCCL's does."""

    root_device = torch.device("meta")

    def __init__(self, *steps: int) -> None:
        self.steps = steps

    def reduce(self, value: torch.Tensor, reduce_op: str) -> int:
        assert value.device == self.root_device
        return {"min": min, "max": max}[reduce_op](self.steps)


class Trainer:
    def __init__(self, strategy: Group) -> None:
        self.strategy = strategy


def test_a_run_begins_once_its_ranks_agree() -> None:
    begun: list[str] = []
    same: Any = StartStepAgreement(8, lambda: begun.append("now"))
    same.setup(Trainer(Group(8, 8)), torch.nn.Linear(1, 1), "fit")
    assert (begun, same.begun) == (["now"], True)


def test_it_does_not_begin_where_they_do_not() -> None:
    same: Any = StartStepAgreement(8, lambda: pytest.fail("it began"))
    with pytest.raises(
        ValueError, match="some ranks would resume after step 4, others after step 8: all ranks must see"
    ):
        same.setup(Trainer(Group(4, 8)), torch.nn.Linear(1, 1), "fit")
    assert not same.begun
