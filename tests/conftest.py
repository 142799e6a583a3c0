"""Shared fixtures: small real texts, and a run that trains in seconds."""

import hashlib
import os

# read when NumPy is imported; the matrices are small, and threads of several test workers would block one another
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from filelock import FileLock

from data_modules import corpora
from data_modules.corpora import FunctionCorpus
from data_modules.corpora.corpus import TextOrConversation, document_text
from data_modules.preparation import PreparationSettings, PreparationTarget, prepare_source
from gpt_lightning.tokenizer import Tokenizer, load_tokenizer, train_bpe
from running.config.compose import compose_config
from tests import fork_client, fork_server

ROOT = Path(__file__).resolve().parent.parent
hypothesis.settings.register_profile("here", deadline=None)  # no time limits: the machine may be busy
# CI uses the same examples each time; a developer's runs search for new ones
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")
if not torch.cuda.is_available():
    # kernels run on the CPU in Triton's interpreter; read when Triton is imported
    os.environ["TRITON_INTERPRET"] = "1"
torch.set_num_threads(1)  # more threads would be slower with tiny matrices
fork_client.install()  # before a test starts anything

CORPORA = {
    "readmes": lambda: islice(corpora.readmes(), 12),
    "pydoc": lambda: islice(corpora.pydoc(), 60),
    "docstrings": lambda: islice(corpora.docstrings(), 300),
    "stdlib": lambda: islice(corpora.stdlib(), 12),
}
TINY = [
    "tokenizer.name=bpe_512",
    "tokenizer.model_vocab_size=512",
    "model.max_seq_len=32",
    "model.d_model=32",
    "model.n_layers=2",
    "model.n_heads=2",
    "model.d_ff=64",
    "model.dropout=0.2",
    "global_batch=8",
    "micro_batch=4",
    "max_steps=12",
    "schedule.warmup_steps=2",
    "log_every=2",
    "val_every=4",
    "data.val_sequences=4",
    "callbacks.samples.every=6",
    "callbacks.samples.max_new_tokens=4",
    "callbacks.checkpoints.every=4",
]

_FOLDER = re.compile(r"^(data_dir|runs_dir|resume)=(/[\w./-]+)$")
LONG = (
    "test_sweeps.py",
    "test_compile.py",
    "test_zero_shot.py",
    "test_fsdp.py",
    "test_kills.py",
    "test_interruption.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first, so that no worker runs one of them alone at the end."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Let the garbage collector pass over what is imported by now: a million objects, again and again."""
    fork_server.collect_garbage_seldom()


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first test worker creates for all workers.

    Args:
        tmp_path_factory: pytest's.
        name: of the folder, in the session's temporary folder.
        make: called with the empty folder to fill it.
    """
    session = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # a worker's folder is inside that of the session
        session = session.parent
    folder, made = session / name, session / f"{name}.made"
    with FileLock(session / f"{name}.lock"):
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)  # left by a worker that failed
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real texts and logs that are too large to ship or that we may not ship; see CONTRIBUTING.md."""
    path = Path(os.environ.get("GPT_LIGHTNING_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"there is no test data at {path}; set GPT_LIGHTNING_TEST_DATA to its folder")
    return path


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a little of each embedded corpus, in tokens of a BPE with a vocabulary of 512."""
    return made_once(tmp_path_factory, "data", _prepare_tiny)


def _prepare_tiny(data_dir: Path) -> None:
    texts = [document_text(document) for documents in CORPORA.values() for document in documents()]
    tokenizer = train_bpe(texts, vocab_size=512, path=data_dir / "bpe_512" / "tokenizer.json")
    for name, documents in CORPORA.items():
        _prepare(data_dir, name, documents, tokenizer, PreparationSettings(val_fraction=0.1, shard_tokens=20_000))


@pytest.fixture(scope="session")
def scarce_data(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same corpora and tokenizer with about 30 sequences of 32 tokens per source, so that a tiny run repeats
    them."""
    return made_once(tmp_path_factory, "scarce", partial(_prepare_scarce, tiny_data))


def _prepare_scarce(tiny_data: Path, data_dir: Path) -> None:
    shutil.copytree(tiny_data / "bpe_512", data_dir / "bpe_512", ignore=shutil.ignore_patterns(*CORPORA))
    tokenizer = load_tokenizer(data_dir / "bpe_512")
    for name, documents in CORPORA.items():
        beginnings = partial(_beginnings, documents)
        _prepare(data_dir, name, beginnings, tokenizer, PreparationSettings(val_fraction=0.1, limit_tokens=1200))


def _prepare(
    data_dir: Path,
    name: str,
    documents: Callable[[], Iterable[TextOrConversation]],
    tokenizer: Tokenizer,
    recipe: PreparationSettings,
) -> None:
    corpus = FunctionCorpus(documents, origin={"corpus": name})
    folder = data_dir / "bpe_512" / name
    source = PreparationTarget(name=name, tokenizer=tokenizer, folder=folder, licence="test")
    prepare_source(corpus, source, recipe)


def _beginnings(documents: Callable[[], Iterable[TextOrConversation]]) -> Iterator[TextOrConversation]:
    """Beginnings of documents, so short that some fit into both splits. Chats are not shortened."""
    return (document[:300] if isinstance(document, str) else document for document in documents())


@pytest.fixture
def tiny_overrides(tiny_data: Path, tmp_path: Path) -> list[str]:
    """Settings of a quickstart that takes two seconds, with dropout and gradient accumulation."""
    return [*TINY, f"data_dir={tiny_data}", f"runs_dir={tmp_path / 'runs'}"]


@pytest.fixture
def tiny_config(tiny_overrides: list[str]) -> Callable[..., dict[str, Any]]:
    """`tiny_config("a=1", …)`: the config of that run with more settings."""
    return lambda *more: composed([*tiny_overrides, *more])


def composed(overrides: Sequence[str]) -> dict[str, Any]:
    """`compose_config("train", overrides)`, which takes 0.1 s: overrides that differ only in folders are composed once."""
    folders = dict(match.groups() for override in overrides if (match := _FOLDER.fullmatch(override)))
    config: dict[str, Any] = _with_folders(_composed(tuple(_FOLDER.sub(r"\1=/the_\1", o) for o in overrides)), folders)
    return config


@cache
def _composed(overrides: tuple[str, ...]) -> dict[str, Any]:
    return compose_config("train", overrides)


def _with_folders(node: Any, folders: Mapping[str, str]) -> Any:
    """A copy of a config with the folders in their places."""
    if isinstance(node, dict):
        return {key: _with_folders(value, folders) for key, value in node.items()}
    if isinstance(node, list):
        return [_with_folders(value, folders) for value in node]
    if isinstance(node, str):
        return re.sub(r"/the_(data_dir|runs_dir|resume)\b", lambda match: folders[match[1]], node)
    return node


@pytest.fixture(scope="session")
def trained(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`trained("a=1", …)`: the directory of the run of TINY with more settings, which is trained once for all tests.

    A test that changes it must use a copy.
    """

    def trained(*more: str) -> Path:
        settings = [*TINY, f"data_dir={tiny_data}", "name=run", *more]
        digest = hashlib.sha256("\n".join(settings).encode()).hexdigest()[:12]
        folder = made_once(tmp_path_factory, f"trained_{digest}", partial(_train, settings))
        return folder / "run"

    return trained


def _train(settings: list[str], runs: Path) -> None:
    from running.commands.train import train

    train(composed([*settings, f"runs_dir={runs}"]))


@pytest.fixture(scope="session")
def sweep(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `tests.example_sweep.train_sweep`. A test that changes it must use a copy."""
    from tests.example_sweep import train_sweep  # it imports this module

    return made_once(tmp_path_factory, "sweep", partial(train_sweep, data_dir=tiny_data))


def start(overrides: list[str], *flags: str) -> subprocess.CompletedProcess[str]:
    """Run train.py as a user does."""
    return start_command("train.py", overrides, *flags)


def start_command(program: str, overrides: list[str], *flags: str) -> subprocess.CompletedProcess[str]:
    """Run one of the scripts as a user does."""
    command = [sys.executable, program, *flags, *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
