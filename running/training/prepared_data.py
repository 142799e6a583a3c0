"""Open the prepared sources of a run, data/<tokenizer>/<source>/. Missing sources can be prepared first."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from data_modules import SourceShards
from data_modules.shards.shard_files import files_of_source
from data_modules.shards.shard_integrity import damage_message, find_damage
from gpt_lightning.console import say
from gpt_lightning.file_locks import wait_for_lock
from gpt_lightning.tokenizer import Tokenizer
from running.config import compose
from running.config.run_config import RunConfig
from running.config.source_config import read_source
from running.training.find_tokenizer import load_tokenizer_by_name
from running.training.rank_processes import is_first_rank

_FILLED = 0.94  # fraction of a sequence of whole conversations that is not padding, measured on Alpaca at 1,024 tokens
_MANY_BYTES = 2e9  # verifying more than this takes long on a slow disk
_LOOK_EVERY = 2.0  # seconds between two touches of the file by rank 0, and between two checks by the others
_SILENCE = 45.0  # seconds without a touch after which rank 0 counts as gone
_AT_WORK = ".being_prepared"  # the file that rank 0 touches while it prepares
_LOCK = ".prepared_by"  # the folder whose lock the preparing run holds


def open_sources(config: RunConfig, *, earlier: Iterable[str] = ()) -> tuple[Tokenizer, dict[str, SourceShards]]:
    """The tokenizer of a run, and each source of its curriculum.

    `data.prepare` says whether missing sources are prepared first.

    Args:
        config: config of the run.
        earlier: further sources that the run was trained on before.

    Raises:
        ValueError: a source is unknown, is not prepared, or was prepared with another tokenizer.
    """
    name = config.tokenizer.name
    folder = config.data_dir / name
    missing = _missing(config, folder)
    unreadable = [source for source in missing if _is_local(source)]
    if missing and config.data.prepare == "missing" and not unreadable:
        _prepare(config, missing, folder)
    elif missing:
        commands = "".join(f"\n    python {shlex.join(_command(config, source))}" for source in missing)
        either = "Run first" if unreadable else "Set data.prepare=missing, or run first"
        raise ValueError(
            f"these sources are not prepared with tokenizer {name}: {', '.join(missing)}. {either}:{commands}\n"
            "or train on the corpora that need no download: python prepare.py && python train.py experiment=quickstart."
        )
    tokenizer = load_tokenizer_by_name(name, config.data_dir)
    sources = {
        source: SourceShards(folder / source) for source in dict.fromkeys((*earlier, *config.curriculum.sources))
    }
    for source, shards in sources.items():
        if shards.information["tokenizer"]["fingerprint"] != tokenizer.fingerprint:
            raise ValueError(
                f"{folder / source} was made with another tokenizer {name}: delete it and prepare it again."
            )
    return tokenizer, sources


def check_undamaged(
    config: RunConfig,
    sources: Mapping[str, SourceShards],
    begun: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> None:
    """Verify the shards of the sources.

    With data.verify=false, only check that no file of the sources has changed since the last start of the run.

    On each machine, only the first rank does this.

    Args:
        config: config of the run.
        sources: the sources that the run is trained on.
        begun: source -> states of the source's files at the last start of the run, see `SourceShards.states_by_name`.

    Raises:
        ValueError: a shard is damaged or was added, or has an id that the tokenizer does not have. The message says
            where.
    """
    if os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")) != "0":
        return
    if not config.data.verify:
        for name, source in sources.items():
            if found := source.changed_since(begun.get(name, {})):
                raise ValueError(
                    "the shards have changed since the run was started, so it would train on two different corpora: "
                    f"{damage_message(source.folder, found)}, or start a new run with name=…."
                )
        return
    files = (file for source in sources.values() for file in files_of_source(source.folder, source.information))
    if (n_bytes := sum(file.end - file.first_byte for file in files)) >= _MANY_BYTES:
        say(f"verifying {n_bytes / 1e9:,.1f} GB of shards; data.verify=false skips this")
    for source in sources.values():
        if found := find_damage(source.folder, source.information, with_sha256=False):
            raise ValueError(f"{damage_message(source.folder, found)}; data.verify=false trains on the data as it is.")


class SourceSize(NamedTuple):
    """The size of a source, for a plan."""

    sequences: int
    # loss-bearing targets of each training sequence, (sequences,); or their expected mean
    loss_bearing: np.ndarray | float
    is_expected: bool  # the source is not prepared, and its size is an estimate from its config


def source_sizes(config: RunConfig, names: Iterable[str]) -> dict[str, SourceSize]:
    """The number of training sequences of each source: as prepared, else as conf/source estimates it.

    Args:
        config: config of the run.
        names: names of the sources.

    Raises:
        ValueError: a source is unknown, or a source of unknown size is not prepared.
    """
    folder = config.data_dir / config.tokenizer.name
    missing = _missing(config, folder)
    sizes = {name: _expected_size(config, name) if name in missing else _size(config, folder / name) for name in names}
    if unknown := [name for name, size in sizes.items() if size is None]:
        command = _command(config, unknown[0] if len(unknown) == 1 else f"[{','.join(unknown)}]")
        raise ValueError(
            f"the size of {', '.join(unknown)} is unknown until it is prepared: run python {shlex.join(command)}"
        )
    return {name: size for name, size in sizes.items() if size is not None}


def _size(config: RunConfig, folder: Path) -> SourceSize:
    max_seq_len = config.model.max_seq_len
    stream = SourceShards(folder).train
    borders = stream.sequences(max_seq_len, whole=True)
    bearing = stream.loss_bearing(borders) if stream.masked else float(max_seq_len)
    return SourceSize(len(borders) - 1, bearing, False)


def _expected_size(config: RunConfig, source: str) -> SourceSize | None:
    max_seq_len, settings = config.model.max_seq_len, read_source(source)
    expected = settings.expected
    limit = config.data.limit_tokens.get(source, settings.limit_tokens)
    tokens = min(filter(None, (expected.tokens, limit)), default=None)
    if tokens is None:
        return None
    filled = 1.0 if expected.loss_bearing == 1 else _FILLED
    n_sequences = int(tokens * (1 - settings.val_fraction) / (max_seq_len * filled))
    return SourceSize(n_sequences, expected.loss_bearing * max_seq_len * filled, True)


def _missing(config: RunConfig, folder: Path) -> list[str]:
    curriculum = config.curriculum
    known = compose.group_choices("source")
    missing = [source for source in curriculum.sources if not (folder / source / "source.json").is_file()]
    for source in missing:
        if source not in known:
            mixes = ", ".join(curriculum.mixes)
            raise ValueError(
                f"{curriculum.setting_of(source)} names {source}, which is neither a source nor a mix: "
                f"{compose.list_choices('source')}.{f' Mixes: {mixes}.' if mixes else ''} {folder} has no prepared source "
                f"{source}."
            )
    return missing


def _prepare(config: RunConfig, missing: Sequence[str], folder: Path) -> None:
    """Prepare sources, each in its own process, one after the other. Rank 0 does this while the other ranks wait."""
    sign = folder / _AT_WORK
    if not is_first_rank():
        _wait(sign, [folder / source / "source.json" for source in missing])
        return
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # jobs of a sweep may lack the same sources
        with wait_for_lock(folder / _LOCK, meanwhile=partial(_show, sign)):
            _prepare_each(config, missing, folder, sign)
    finally:
        sign.unlink(missing_ok=True)


def _show(sign: Path) -> None:
    sign.touch()
    time.sleep(_LOOK_EVERY)


def _prepare_each(config: RunConfig, missing: Sequence[str], folder: Path, sign: Path) -> None:
    for source in missing:
        if not (folder / source / "source.json").is_file():  # another run may have prepared it meanwhile
            command = [sys.executable, str(compose.CONF.parent / "prepare.py"), *_command(config, source)[1:]]
            with subprocess.Popen(command) as process:
                while _is_running(process):
                    sign.touch()
            if process.returncode:
                raise ValueError(f"{source} could not be prepared, see the error above: {shlex.join(command[1:])}")


def _is_running(process: subprocess.Popen[bytes]) -> bool:
    """Wait a while, and return whether the process is still running."""
    try:
        process.wait(_LOOK_EVERY)
    except subprocess.TimeoutExpired:
        return True
    return False


def _wait(sign: Path, files: Sequence[Path]) -> None:
    """Wait until rank 0 has written some files. Rank 0 touches a file while it works.

    Only changes of its modification time count, because the clocks of two machines may differ.

    Raises:
        ValueError: rank 0 has not touched it for too long.
    """
    touched, since = 0, time.monotonic()
    while not all(file.is_file() for file in files):
        time.sleep(_LOOK_EVERY)
        last = sign.stat().st_mtime_ns if sign.is_file() else 0
        if last not in (0, touched):
            touched, since = last, time.monotonic()
        elif time.monotonic() - since > _SILENCE:
            raise ValueError(
                f"rank 0 has stopped preparing {files[0].parent}: see its error, and run the same command again."
            )


def _is_local(source: str) -> bool:
    """Whether only the user knows where the source's files are."""
    config = read_source(source)
    return config.hub is None and config.corpus is None


def _command(config: RunConfig, source: str) -> list[str]:
    """The command line that prepares a source for this run."""
    name = config.tokenizer.name
    known = name in compose.group_choices("tokenizer")
    # all trained tokenizers have the same settings
    shipped = compose.read_choice("tokenizer", name if known else "bpe_4096")
    chosen = [f"tokenizer={name}"] if known else []
    for key, value in asdict(config.tokenizer).items():
        if value != shipped.get(key):
            said = f"[{','.join(value)}]" if isinstance(value, list) else "null" if value is None else value
            chosen.append(f"tokenizer.{key}={said}")
    if not source.startswith("[") and _is_local(source):
        chosen.append("path=…")
    if source in config.data.limit_tokens:
        chosen.append(f"limit_tokens={config.data.limit_tokens[source]:g}")
    if config.data_dir != Path("data"):
        chosen.append(f"data_dir={config.data_dir}")
    if config.imports:
        chosen.append(f"+imports=[{','.join(config.imports)}]")
    folders = compose.user_folders()
    flags = ["--config-dir", str(folders["--config-dir"])] if "--config-dir" in folders else []
    return ["prepare.py", *flags, f"source={source}", *chosen]
