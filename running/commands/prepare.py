"""prepare.py: turn documents into shards. A source that is already complete is left unchanged."""

import json
import math
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from data_modules import SourceShards
from data_modules.corpora import Corpus
from data_modules.preparation import PartitionedPreparation, PreparationTarget, adopt_shards, progress_display
from data_modules.preparation.tokenizer_training_texts import bytes_per_token, training_texts
from data_modules.shards.shard_files import read_source_json
from data_modules.shards.shard_integrity import damage_message, find_damage
from data_modules.shards.source_inspection import (
    describe_source,
    document_lengths,
    random_sequences,
    source_summary,
    token_texts,
)
from gpt_lightning.console import Console, say
from gpt_lightning.tokenizer import Tokenizer, load_tokenizer, train_bpe
from running.config.command_configs import PrepareConfig
from running.config.source_builders import (
    build_preparation_settings,
    is_commit_hash,
    open_corpus,
    origin_of_reader,
    path_corpus,
    training_sources,
)
from running.config.source_config import SourceConfig, read_source

_FEW_TOKENS = 5_000
_REPORT_MB = 5.0  # validation text per source in the report on a new tokenizer


class _Job(NamedTuple):
    """One source, and what is needed to process it."""

    config: PrepareConfig
    key: str  # name of its config
    name: str
    source: SourceConfig
    tokenizer: Tokenizer
    folder: Path
    console: Console


def prepare(config: Mapping[str, Any]) -> None:
    """Process each source of the config as `mode` says. A tokenizer with `train_on` is trained first.

    Args:
        config: the composed settings of conf/prepare.yaml and the command line.

    Raises:
        ValueError: a source or the tokenizer cannot be made. Sources that were complete before stay unchanged.
    """
    settings = PrepareConfig.of(config)
    try:
        _do(settings)
    except KeyboardInterrupt:
        say("interrupted: run the same command again to continue.", error=True)
        sys.exit(130)


def _do(config: PrepareConfig) -> None:
    modes = {"prepare": _prepare, "join": _join, "inspect": _inspect, "verify": _verify}
    console = Console(soft_wrap=True)
    tokenizer = _tokenizer(config, console)
    for key, source in config.sources_with_path.items():
        name = config.name or key
        folder = config.data_dir / tokenizer.name / name
        modes[config.mode](_Job(config, key, name, source, tokenizer, folder, console))


def _prepare(job: _Job) -> None:
    config, name, folder = job.config, job.name, job.folder
    if (folder / "source.json").is_file():
        information = read_source_json(folder)
        _refuse_another(job, information)
        # an interrupted join may have left its parts behind
        shutil.rmtree(folder.with_name(f".{name}.unfinished"), ignore_errors=True)
        job.console.print(f"{name}: already in {folder}, {source_summary(information)}")
        return
    if config.format is not None:
        _refuse_more_than_format(config)
        if job.source.path is None:
            raise ValueError(f"path is null: it must be the path of shards, because format={config.format}.")
        information = adopt_shards(
            Path(job.source.path).expanduser(),
            _identity(job, job.source),
            format=config.format,
            val_fraction=job.source.val_fraction,
        )
        job.console.print(f"{name}: {folder}/source.json refers to the shards in place, {source_summary(information)}")
        for remark in information["remarks"]:
            job.console.print(f"{name}: {remark}")
        _say_little_validation(job, information)
        return
    number, of = _part(config.part)
    parts = _parts(job, of)
    workers = config.workers or (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    with progress_display(name, job.console) as progress:
        if config.part is not None:
            parts.prepare(number, workers=workers, progress=progress)
            job.console.print(f"{name}: part {number}/{of} is prepared; mode=join joins all {of} parts into a source")
            return
        information = parts.prepare_all(workers=workers, progress=progress)
    job.console.print(f"{name}: prepared in {folder}, {source_summary(information)}")
    _say_little_validation(job, information)


def _join(job: _Job) -> None:
    work = job.folder.with_name(f".{job.name}.unfinished")
    begun = {folder.name.rpartition("_")[2] for folder in work.glob("*_of_*")}
    if not begun:
        raise ValueError(f"{job.name}: there are no parts to join: prepare part=0/n to part=n-1/n first.")
    if len(begun) > 1:
        divisions = ", ".join(f"{n} parts" for n in sorted(begun))
        raise ValueError(
            f"{job.name}: the unfinished parts belong to different divisions ({divisions}): "
            f"choose one n, prepare part=0/n to part=n-1/n, and delete the other parts in {work}."
        )
    information = _parts(job, int(begun.pop())).join()
    job.console.print(f"{job.name}: joined in {job.folder}, {source_summary(information)}")
    _say_little_validation(job, information)


def _say_little_validation(job: _Job, information: Mapping[str, Any]) -> None:
    """Warn if the validation split is too small for a useful loss, and name the setting that enlarges it."""
    train, val = information["splits"]["train"], information["splits"]["val"]
    tokens, documents = val["tokens"], val["documents"]
    if tokens >= _FEW_TOKENS and documents > 1:
        return
    share = max(1.5 * _FEW_TOKENS / (train["tokens"] + tokens), 2 * job.source.val_fraction)
    setting = f"sources.{job.key}.val_fraction={min(0.5, math.ceil(100 * share) / 100):g}"
    is_text = job.config.format is None and "text" in (job.source.fields or {})  # tail cuts texts
    either = f", or (for a few long texts) with sources.{job.key}.split=tail" if is_text else ""
    job.console.print(
        f"{job.name}: the validation split has only {tokens:,} tokens in {documents:,} document{'s' * (documents != 1)}: "
        f"delete {job.folder} and prepare again with more text, or with {setting}{either}"
    )


def _verify(job: _Job) -> None:
    if found := find_damage(job.folder, read_source_json(job.folder), with_sha256=True):
        raise ValueError(f"{damage_message(job.folder, found)}.")
    job.console.print(f"{job.name}: every shard in {job.folder} is unchanged since it was made")


def _inspect(job: _Job) -> None:
    """Print counts and random sequences, with ⟦…⟧ around tokens without loss; plot the document lengths."""
    from analysis.document_length_plot import draw_document_lengths  # Matplotlib is slow to import

    max_seq_len, n_sequences = job.config.inspect.max_seq_len, job.config.inspect.sequences
    source = SourceShards(job.folder)
    picture = job.folder / "document_lengths.png"
    draw_document_lengths(document_lengths(source.train), picture, name=job.name, max_seq_len=max_seq_len)
    print_ = job.console.print
    print_(f"{job.name}: {source_summary(source.information)}")
    for what, said in describe_source(source, max_seq_len).items():
        print_(f"  {what:<10} {said}")
    print_(f"  plot       {picture}")
    for start, stop in random_sequences(source.train, max_seq_len, n_sequences, seed=0):
        print_(Text(f"\ntokens {start:,} to {stop:,}; ⟦tokens without loss⟧", style="bold"))
        for text, bears_loss in token_texts(source.train, start, stop, job.tokenizer):
            print_(Text(text) if bears_loss else Text(f"⟦{text}⟧", style="dim"), end="")
        print_()


def _parts(job: _Job, of: int) -> PartitionedPreparation:
    begun_in = job.folder.with_name(f".{job.name}.unfinished")
    corpus, source = open_corpus(job.config, job.key, job.source, begun_in=begun_in)
    recipe = build_preparation_settings(job.config, source)
    return PartitionedPreparation(corpus, _identity(job, source), recipe, of=of, group_mb=job.config.group_mb)


def _identity(job: _Job, source: SourceConfig) -> PreparationTarget:
    """Identity of the prepared source. `source` is its config, or the config of its fallback."""
    return PreparationTarget(name=job.name, tokenizer=job.tokenizer, folder=job.folder, licence=source.licence)


def _part(part: str | None) -> tuple[int, int]:
    """Parse `part=k/n` to (k, n)."""
    if part is None:
        return 0, 1
    number, slash, of = str(part).partition("/")
    if not (slash and number.isdigit() and of.isdigit() and int(number) < int(of)):
        raise ValueError(f"part={part}: it must be k/n, for part k of n, counted from 0.")
    return int(number), int(of)


def _tokenizer(config: PrepareConfig, console: Console) -> Tokenizer:
    """Load the tokenizer of the config. One with `train_on` is trained first if its file does not exist."""
    name, vocab_size = config.tokenizer.name, config.tokenizer.model_vocab_size
    if config.tokenizer.train_on is None:
        return load_tokenizer(name)
    assert vocab_size is not None  # TokenizerConfig checks it
    path = config.data_dir / name / "tokenizer.json"
    if not path.is_file():
        if config.mode != "prepare":
            raise ValueError(f"{path} does not exist: run mode=prepare, which trains the tokenizer.")
        for key, source in config.sources_with_path.items():
            if source.path is not None and config.format is None:
                path_corpus(config, key, source)  # a wrong path is reported before the tokenizer is trained
        console.print(
            f"{name}: training a vocabulary of {vocab_size:,} tokens on {', '.join(config.tokenizer.train_on)}"
        )
        tokenizer: Tokenizer = train_bpe(_training_texts(config), vocab_size=vocab_size, path=path)
        console.print(f"{name}: trained, {path}")
        _report_fit(config, tokenizer, path.with_name("tokenizer_report.json"), console)
    tokenizer = load_tokenizer(path)
    if tokenizer.vocab_size != vocab_size:
        raise ValueError(
            f"{path} has {tokenizer.vocab_size} tokens, not tokenizer.model_vocab_size={vocab_size}: set another "
            "tokenizer.name, or delete its folder and run prepare.py again."
        )
    return tokenizer


def _trained_on(config: PrepareConfig) -> Iterator[tuple[str, Corpus, float]]:
    """(name, corpus, val_fraction) of each source that the tokenizer is trained on."""
    for name, source in training_sources(config, config.tokenizer.train_on or ()).items():
        yield name, open_corpus(config, name, source)[0], source.val_fraction


def _training_texts(config: PrepareConfig) -> Iterator[str]:
    for _, corpus, val_fraction in _trained_on(config):
        yield from training_texts(corpus, val_fraction=val_fraction, for_val=False, mb=config.tokenizer.train_mb)


def _report_fit(config: PrepareConfig, tokenizer: Tokenizer, path: Path, console: Console) -> None:
    """Print and write bytes per token of the new tokenizer and of GPT-2's, on validation documents of each source."""
    gpt2 = load_tokenizer("gpt2")
    report = {}
    table = Table(
        "validation documents of", "MB", tokenizer.name, "gpt2", box=None, pad_edge=False, title="bytes per token"
    )
    for name, corpus, val_fraction in _trained_on(config):
        texts = list(training_texts(corpus, val_fraction=val_fraction, for_val=True, mb=_REPORT_MB))
        mb = sum(len(text.encode()) for text in texts) / 1e6
        report[name] = {"mb": mb} | {t.name: bytes_per_token(texts, t) for t in (tokenizer, gpt2)}
        table.add_row(name, f"{mb:.2f}", f"{report[name][tokenizer.name]:.3f}", f"{report[name]['gpt2']:.3f}")
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    console.print(table)


def _refuse_more_than_format(config: PrepareConfig) -> None:
    for key in ("limit_tokens", "limit_files", "deduplicate", "part"):
        if getattr(config, key) is not None:
            raise ValueError(
                f"format={config.format} reads shards unchanged: {key}={getattr(config, key)} has no effect. "
                "Remove this setting."
            )


def _refuse_another(job: _Job, information: Mapping[str, Any]) -> None:
    """Check that a complete source was made with this tokenizer and these settings."""
    if information["tokenizer"]["fingerprint"] != job.tokenizer.fingerprint:
        raise ValueError(
            f"{job.folder} was made with another tokenizer {job.tokenizer.name}: delete it and prepare it again."
        )
    then: dict[str, Any] = {"format": None} | information.get("request", {}) | information["origin"]
    source = read_source(job.source.fallback) if "instead_of" in then and job.source.fallback else job.source
    now = asdict(build_preparation_settings(job.config, source)) | {"format": job.config.format}
    del now["on_bad_record"]  # it decides whether the source can be made, and does not change its content
    if job.source.corpus is not None:
        now |= origin_of_reader(job.source.corpus)
    if is_commit_hash(job.config.revision):
        now["revision"] = job.config.revision
    if (path := job.source.path) is not None and "path" in then:
        now["path"] = path if now["format"] is None else str(Path(path).resolve())
        if now["format"] is None:
            corpus = path_corpus(job.config, job.key, job.source)
            files = [{"name": file.name, "bytes": file.n_bytes} for file in corpus.files]
            read = len(information["files"])  # a limit may have been reached before the others
            same = information["files"] == (files if then["limit_tokens"] is None else files[:read])
            if path == then["path"] and not same:
                raise ValueError(
                    f"the files in {path} have changed since {job.folder} was prepared: delete {job.folder} and run the "
                    "same command again."
                )
    for key, value in now.items():
        if key in then and then[key] != value:
            raise ValueError(
                f"{job.folder} was made with {key}={then[key]}, and now {key}={value}: delete the folder to prepare it "
                "again, or give this source another name with name=…."
            )
