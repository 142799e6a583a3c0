"""What all ranks of a run have in common, compared before the first step: its settings, its code, its data, and where it begins.

The ranks meet at the store through which torch.distributed connects them a little later. A rank that refuses the run there says
so to the others, which would wait for it.
"""

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from running.config.compose import flatten
from running.config.own_imports import digests_of_imports
from running.training.code_revision import digest_of_code, git
from running.training.rank_processes import PATIENCE, RankLostError, detect_launcher

# Settings that another machine may call otherwise. Which data and weights they lead to is compared by itself.
_PLACES = ("data_dir", "runs_dir", "run_dir", "sweep_dir", "init_from")
_REFUSED, _TOLD = "refused", "told"
_LOOK_EVERY = 0.1  # seconds
_FAREWELL = 30.0  # seconds that rank 0 stays until all others know why it ends: they may meet where it is
_ABSENT = "not there"


class RankAgreement:
    """Where the ranks of a run compare what they have. A rank alone agrees.

    What ends a rank inside, before all is compared, is told to the others, which end too.

    Args:
        store: torch.distributed's, at which all ranks meet; None: there is one rank.
        rank: of this process.
        n_ranks: of the run.
    """

    def __init__(self, store: Any = None, rank: int = 0, n_ranks: int = 1) -> None:
        self._store, self._rank, self.n_ranks = store, rank, n_ranks
        self._meetings = 0
        self._is_settled = n_ranks == 1

    def __enter__(self) -> "RankAgreement":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, RankLostError) and not self._is_settled:
            self._refuse(f"{error or type(error).__name__} (said on {socket.gethostname()})")

    def compare(self, mine: Mapping[str, Any], *, last: bool = False) -> None:
        """Go on once all ranks have the same.

        Args:
            mine: what this rank has, as JSON holds it.
            last: nothing is compared any more.

        Raises:
            ValueError: on all ranks: they do not have the same, or one of them has ended.
            RankLostError: a rank does not come.
        """
        if self.n_ranks == 1:
            return
        self._meetings += 1
        meeting, text = f"meeting {self._meetings}", json.dumps(mine, default=str)
        if self._rank > 0:
            self._store.set(f"{meeting}/{self._rank}", text)
            self._hear(f"{meeting}/agreed")
        else:
            for rank in range(1, self.n_ranks):
                if sentence := _difference(json.loads(text), json.loads(self._hear(f"{meeting}/{rank}")), rank):
                    self._store.compare_set(_REFUSED, "", sentence)
                    raise ValueError(sentence)
            self._store.set(f"{meeting}/agreed", "yes")
        self._is_settled = last

    def _hear(self, key: str) -> str:
        """What another rank says, once it does."""
        until = time.monotonic() + PATIENCE.total_seconds()
        try:
            while not self._store.check([key]):
                if self._store.check([_REFUSED]):
                    raise ValueError(self._store.get(_REFUSED).decode())
                if time.monotonic() > until:
                    raise RankLostError("another rank has not come for too long: see what it says.")
                time.sleep(_LOOK_EVERY)  # and not in the store, where no signal is heard
            return str(self._store.get(key).decode())
        except RuntimeError as error:  # of the store
            raise RankLostError("another rank is gone before the first step: see what it says.") from error

    def _refuse(self, sentence: str) -> None:
        """Say why this rank ends; of several the first is heard."""
        with suppress(RuntimeError):  # of a store that is gone, with those who would have been told
            self._store.compare_set(_REFUSED, "", sentence)
            self._store.add(_TOLD, 1)
            until = time.monotonic() + _FAREWELL
            while self._rank == 0 and self._store.add(_TOLD, 0) < self.n_ranks and time.monotonic() < until:
                time.sleep(_LOOK_EVERY)


@contextmanager
def build_rank_agreement(config: Mapping[str, Any]) -> Iterator[RankAgreement]:
    """Where the ranks of a run compare what they have; they were started with the same settings and the same code.

    Raises:
        ValueError, RankLostError: as `RankAgreement.compare`.
    """
    with _meet() as ranks:
        if ranks.n_ranks > 1:
            ranks.compare(_settings(config))
        yield ranks


def _meet() -> RankAgreement:
    """Where this process meets the other ranks; alone, if nothing has started it as one of several or says where they are."""
    starter = detect_launcher()
    reachable = {"torchrun": "MASTER_ADDR", "srun": "SLURM_NODELIST"}.get(starter or "")
    if reachable is None or reachable not in os.environ:
        return RankAgreement()
    # seconds of imports, which a rank alone need not wait for
    from torch.distributed import PrefixStore, rendezvous

    from running.training.distributed_strategy import cluster_environment

    environment = cluster_environment()
    rank, n_ranks = environment.global_rank(), environment.world_size()
    if n_ranks == 1:
        return RankAgreement()
    os.environ |= {"MASTER_ADDR": environment.main_address, "MASTER_PORT": str(environment.main_port)}
    try:
        store, *_ = next(rendezvous("env://", rank, n_ranks, timeout=PATIENCE))
    except RuntimeError as error:
        raise RankLostError("not all ranks have come: see what the others say.") from error
    return RankAgreement(PrefixStore("agreement", store), rank, n_ranks)


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a rank was started with, but for places."""
    settings = {key: value for key, value in flatten(config) if key not in _PLACES}
    return (
        settings
        | {"the git revision": git("rev-parse", "HEAD") or None, "the code": digest_of_code()}
        | {f"the code of {name}": digest for name, digest in digests_of_imports(config.get("imports") or []).items()}
    )


def _difference(ours: Mapping[str, Any], theirs: Mapping[str, Any], rank: int) -> str | None:
    """The first thing in which rank 0 and another one differ, as a sentence; None: there is none."""
    for key in {**ours, **theirs}:
        here, there = ours.get(key, _ABSENT), theirs.get(key, _ABSENT)
        if here == there or (key == "the git revision" and None in (here, there)):  # a machine may have no git
            continue
        if key == "step":
            first, last = sorted((here, there))
            return f"some ranks would go on after step {first}, others after step {last}: they do not see the same run directory."
        return (
            f"the ranks would not train one run: {key} is {here} on rank 0 and {there} on rank {rank}. Start all of them with "
            "the same settings, code and data."
        )
    return None
