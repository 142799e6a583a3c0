"""Ranks that compare what they have before the first step: all of them begin, or none does, and none is left waiting."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from torch.distributed import HashStore

from running.training import rank_agreement
from running.training.rank_agreement import RankAgreement

Rank = Callable[[RankAgreement], None]
NEVER = 3600.0  # seconds: a test in which a rank is left waiting does not end


def ends_of(*ranks: Rank) -> list[str | None]:
    """What ends each rank, meeting at one store; None: it goes on."""
    store = HashStore()

    def end_of(rank: int) -> str | None:
        try:
            with RankAgreement(store, rank, len(ranks)) as together:
                ranks[rank](together)
        except Exception as error:
            return str(error)
        return None

    with ThreadPoolExecutor(len(ranks)) as threads:
        return list(threads.map(end_of, range(len(ranks))))


def has(**mine: Any) -> Rank:
    return lambda ranks: ranks.compare({key.replace("__", "."): value for key, value in mine.items()})


def ends(sentence: str) -> Rank:
    def rank(ranks: RankAgreement) -> None:
        raise ValueError(sentence)

    return rank


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_agreement, "_FAREWELL", NEVER)


def test_ranks_that_have_the_same_go_on() -> None:
    mine = has(seed=1, optimizer__betas=(0.9, 0.95), curriculum=None)
    assert ends_of(mine, mine, mine) == [None, None, None]


@pytest.mark.parametrize(
    ("ranks", "what"),
    [
        ([has(a=1, optimizer__lr=0.1, b=1), has(a=1, optimizer__lr=0.2, b=2)], "optimizer.lr is 0.1 on rank 0 and 0.2 on rank 1"),
        ([has(seed=1), has(seed=1), has(seed=2)], "seed is 1 on rank 0 and 2 on rank 2"),
        ([has(seed=1), has(seed=1, more="x")], "more is not there on rank 0 and x on rank 1"),
        ([has(seed=1, more=None), has(seed=1)], "more is None on rank 0 and not there on rank 1"),
        ([has(**{"the code": "ab"}), has(**{"the code": "cd"})], "the code is ab on rank 0 and cd on rank 1"),
        ([has(**{"the git revision": "ab"}), has(**{"the git revision": "cd"})], "the git revision is ab on rank 0 and cd"),
        ([has(step=8), has(step=4)], "some ranks would resume after step 4, others after step 8: all ranks must see the same"),
    ],
)  # fmt: skip
def test_ranks_that_differ_end_together_and_name_the_first_difference(ranks: Sequence[Rank], what: str) -> None:
    sentences = set(ends_of(*ranks))
    assert len(sentences) == 1
    assert what in str(sentences.pop())


def test_a_machine_without_git_may_take_part() -> None:
    assert ends_of(has(**{"the git revision": "ab"}), has(**{"the git revision": None})) == [None, None]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_rank_that_refuses_alone_ends_the_others(which: int) -> None:
    ranks = [has(seed=1)] * 3
    ranks[which] = ends("a shard is damaged")
    found = ends_of(*ranks)
    assert found.pop(which) == "a shard is damaged"
    assert all(str(sentence).startswith("a shard is damaged (on ") for sentence in found)


def test_ranks_that_all_refuse_wait_for_nobody() -> None:
    assert ends_of(ends("no such source"), ends("no such source")) == ["no such source"] * 2


def test_what_ends_a_rank_later_is_told_by_others() -> None:
    def rank(ranks: RankAgreement) -> None:
        ranks.compare({"seed": 1})
        ranks.compare({"step": 4}, last=True)
        raise ValueError("the disk is full")

    assert ends_of(rank, rank) == ["the disk is full"] * 2


def test_a_rank_alone_agrees() -> None:
    with RankAgreement() as ranks:
        ranks.compare({"seed": 1})
        ranks.compare({"step": 4}, last=True)
