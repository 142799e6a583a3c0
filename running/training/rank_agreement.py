"""Compare the settings, code, data and resume point of all ranks before the first step.

The ranks communicate through the store that torch.distributed uses later. A rank that refuses the run tells the other
ranks through the store, because they would wait for this rank.
"""

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from gpt_lightning.setting_roles import find_setting
from running.config.compose import flatten
from running.config.own_imports import digests_of_imports, imports_in
from running.training.code_identity import digest_of_code, git
from running.training.rank_processes import PATIENCE, RankLostError, detect_launcher

_REFUSED, _TOLD = "refused", "told"
_LOOK_EVERY = 0.1  # seconds
_FAREWELL = 30.0  # seconds that rank 0, which may host the store, waits until all others know why it ends
_ABSENT = "not there"


class RankAgreement:
    """Compares values between the ranks of a run. A single rank always agrees.

    This class is a context manager. An exception inside the context, before the last comparison, is sent to the other
    ranks, which then end too.

    Args:
        store: torch.distributed's store that all ranks use; None: there is one rank.
        rank: rank of this process.
        n_ranks: number of ranks.
    """

    def __init__(self, store: Any = None, rank: int = 0, n_ranks: int = 1) -> None:
        self._store, self._rank, self.n_ranks = store, rank, n_ranks
        self._meetings = 0
        self._is_settled = n_ranks == 1

    def __enter__(self) -> "RankAgreement":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, RankLostError) and not self._is_settled:
            self._refuse(f"{error or type(error).__name__} (on {socket.gethostname()})")

    def compare(self, mine: Mapping[str, Any], *, last: bool = False) -> None:
        """Return when all ranks have reported the same values.

        Args:
            mine: the values of this rank, which must be JSON-serialisable.
            last: whether this is the last comparison.

        Raises:
            ValueError: on all ranks: values differ, or a rank has ended.
            RankLostError: a rank did not report in time.
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
        """Wait for the value that another rank sets for a key."""
        until = time.monotonic() + PATIENCE.total_seconds()
        try:
            while not self._store.check([key]):
                if self._store.check([_REFUSED]):
                    raise ValueError(self._store.get(_REFUSED).decode())
                if time.monotonic() > until:
                    raise RankLostError("another rank did not report in time: see its output.")
                time.sleep(_LOOK_EVERY)  # waiting in the store would block signals
            return str(self._store.get(key).decode())
        except RuntimeError as error:  # raised by the store
            raise RankLostError("another rank ended before the first step: see its output.") from error

    def _refuse(self, sentence: str) -> None:
        """Publish why this rank ends. If several do, the first message counts."""
        with suppress(RuntimeError):  # the store is gone, and with it the rank that hosted it
            self._store.compare_set(_REFUSED, "", sentence)
            self._store.add(_TOLD, 1)
            until = time.monotonic() + _FAREWELL
            while self._rank == 0 and self._store.add(_TOLD, 0) < self.n_ranks and time.monotonic() < until:
                time.sleep(_LOOK_EVERY)


@contextmanager
def build_rank_agreement(config: Mapping[str, Any]) -> Iterator[RankAgreement]:
    """Yield the comparison between the ranks of a run, after comparing the ranks' settings and code.

    Args:
        config: the composed settings.

    Raises:
        ValueError, RankLostError: as for `RankAgreement.compare`.
    """
    with _meet() as ranks:
        if ranks.n_ranks > 1:
            ranks.compare(_settings(config))
        yield ranks


def _meet() -> RankAgreement:
    """Connect to the other ranks; a single rank if there is no launcher, or if the address of the others is unknown."""
    starter = detect_launcher()
    reachable = {"torchrun": "MASTER_ADDR", "srun": "SLURM_NODELIST"}.get(starter or "")
    if reachable is None or reachable not in os.environ:
        return RankAgreement()
    # slow to import, and not needed by a single rank
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
        raise RankLostError("not all ranks have connected: see the output of the others.") from error
    return RankAgreement(PrefixStore("agreement", store), rank, n_ranks)


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, code and imports of a rank, without folders that may differ between machines."""
    settings = {key: value for key, value in flatten(config) if not find_setting(key).may_differ_by_rank}
    return (
        settings
        | {"the git revision": git("rev-parse", "HEAD") or None, "the code": digest_of_code()}
        | {f"the code of {name}": digest for name, digest in digests_of_imports(imports_in(config)).items()}
    )


def _difference(ours: Mapping[str, Any], theirs: Mapping[str, Any], rank: int) -> str | None:
    """The first difference between rank 0 and another rank, as a sentence; None if there is none."""
    for key in {**ours, **theirs}:
        here, there = ours.get(key, _ABSENT), theirs.get(key, _ABSENT)
        if here == there or (key == "the git revision" and None in (here, there)):  # git may be missing on a machine
            continue
        if key == "step":
            first, last = sorted((here, there))
            return (
                f"some ranks would resume after step {first}, others after step {last}: all ranks must see the same "
                "run directory."
            )
        return (
            f"the ranks would train different runs: {key} is {here} on rank 0 and {there} on rank {rank}. Start all "
            "ranks with the same settings, code and data."
        )
    return None
