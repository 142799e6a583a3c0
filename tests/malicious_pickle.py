"""A pickle that would run something, and what a command says to what it is in."""

import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from running.config.compose import compose_config
from running.config.quote_for_hydra import quote_text_settings

MARKER = "marker"


class Evil:
    """Makes the folder `marker` in the current folder, wherever it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (MARKER,)


PICKLE = pickle.dumps(Evil())


@contextmanager
def nothing_run_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever is done in this context, the pickle must not have been loaded by it."""
    monkeypatch.chdir(folder)
    pickle.loads(PICKLE)
    (folder / MARKER).rmdir()  # so it would have been seen
    yield
    assert not (folder / MARKER).exists()


def refusal(command: Callable[[dict[str, Any]], object], name: str, *overrides: str) -> str:
    """The one sentence with which a command refuses."""
    with pytest.raises(ValueError, match=r"\S") as error:
        command(compose_config(name, quote_text_settings(list(overrides))))
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)
