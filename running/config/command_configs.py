"""Typed settings of the commands that do not train: prepare.py, generate.py, evaluate.py, convert.py and report.py."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from running.config.settings_parser import Count, Fraction, NumberOrZero, PositiveNumber, parse
from running.config.source_config import SourceConfig, parse_composed_source
from running.config.tokenizer_config import TokenizerConfig


@dataclass(frozen=True, kw_only=True)
class TokenizerChoice:
    """The tokenizer of an existing model."""

    name: str | None = None
    """gpt2, gpt2_chatml or the path of a tokenizer.json; null: the tokenizer that the model was trained with."""


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Settings of generate.py."""

    run: Path
    """A run, a checkpoint, or an exported folder."""
    prompt: Any
    """Text to continue, or message to answer; null: an interactive session."""
    mode: Literal["text", "chat"]
    """Continue a text, or answer in ChatML until <|im_end|>."""
    tokenizer: TokenizerChoice
    max_new_tokens: Count
    """Maximum number of tokens to generate."""
    temperature: NumberOrZero
    """Divides the logits; 0: always take the most likely token."""
    top_k: Count | None
    """Sample from this many of the most likely tokens; null: from all."""
    top_p: Fraction | None
    """Sample from the smallest set of tokens with at least this total probability; null: from all."""
    repetition_penalty: PositiveNumber
    """Above 1: tokens that already occurred become less likely."""
    stop: list[str]
    """Tokens at which generation stops, in addition to the special tokens."""
    seed: int
    """The same seed gives the same text."""

    def __post_init__(self) -> None:
        if not isinstance(self.stop, list) or not all(isinstance(text, str) for text in self.stop):
            raise ValueError(f"stop is {self.stop!r}: it must be a list of tokens, such as stop=['<|im_end|>'].")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Settings of evaluate.py."""

    run: Path | None
    """A run, a folder exported by convert.py, or a Hugging Face folder."""
    checkpoint: Path | None
    """Path of one checkpoint; null: the newest checkpoint of the run."""
    tasks: list[str]
    """Names of files in conf/task."""
    tokenizer: TokenizerChoice
    path: Path | None
    """File of records for the one task that needs one, or a folder with <task>.jsonl, .json, .parquet … for each task;
    null: read the records from the hub."""
    data: Path | None
    """Text for perplexity: a file, a folder or a pattern; null: the validation splits of the run's sources."""
    stride: Count | None
    """Tokens that each perplexity window scores; null: the whole window, as in validation during training."""
    limit: Count | None
    """Examples per task, spread evenly over the records. The name of the result includes this number. null: all."""
    batch_tokens: Count
    """Tokens per forward pass, including padding."""
    devices: Count
    """Processes on this machine; each evaluates a share of the examples."""
    out_dir: Path | None
    """Folder of the results; null: <run>/evaluation/<checkpoint>/, or evaluation/ in an exported folder."""

    def __post_init__(self) -> None:
        if not isinstance(self.tasks, list) or not self.tasks:
            raise ValueError(f"tasks is {self.tasks!r}: it must be a list, such as tasks=[perplexity,hellaswag].")
        if self.model is None:
            raise ValueError("run is None: it must be a path.")

    @property
    def model(self) -> Path | None:
        """The run, checkpoint or exported folder to evaluate."""
        return self.run if self.checkpoint is None else self.checkpoint


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """Settings of convert.py."""

    input: Path
    """A run, a checkpoint, an exported folder, or a .pt file of RangeFlow-GPT or GPT-2.5."""
    output: Path | None
    """A folder that does not exist yet; null: exported/<name of the input>_<format>."""
    format: Literal["gpt2", "llama", "gguf", "ollama", "gpt_lightning"]
    """gpt2 and llama are for transformers, gguf is for llama.cpp; gpt_lightning can hold every model."""
    quantization: Literal["f32", "f16", "q8_0"] | None
    """Type of the matrices in a GGUF file, for gguf and ollama; null: f32."""
    tokenizer: TokenizerChoice
    vocab_size: int | None
    """Number of rows to which the embedding and the head are enlarged; null: unchanged."""

    def __post_init__(self) -> None:
        if self.quantization is not None and self.format not in ("gguf", "ollama"):
            raise ValueError(
                f"quantization={self.quantization} has no effect on format={self.format}: remove it, or set format=gguf."
            )


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Settings of the search for the best mix, see `mix_laws.parse_search_target.parse_search_target`."""

    weights: dict[str, Any] = field(default_factory=dict)
    """Weight of each validation loss in the mean to minimise; {}: equal weights."""
    prior: dict[str, Any] = field(default_factory=dict)
    """Weights of the sources to stay close to; {}: the mean of the runs' mixes."""
    closeness: Any = 0.01
    """How strongly the best mix is pulled towards the prior, in nats of loss per nat of KL divergence; 0: not at all."""
    max_epochs: Any = 4
    """Maximum number of epochs of each source; null: no limit."""
    tokens: Any = None
    """Length in tokens of the run that will use the mix, for max_epochs; null: the length of the fitted runs."""


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Settings of report.py. At most one of `runs`, `mix_law` and `log_dir` is set; without these settings, the report
    is about `run`.
    """

    run: Path = Path("runs/quickstart")
    """The run to report on."""
    runs: Any = None
    """Runs to compare: a folder such as runs/lr_sweep, a pattern such as runs/lr_sweep/*lr=0.003*, or a list of folders
    and patterns.
    """
    mix_law: Any = None
    """Runs with different mixes to fit a law to, in the same form; or a folder of RegMix or Olmix tables."""
    held_out: Any = None
    """Runs of mix_law to leave out of the fit. The predictions of the law are tested on these runs."""
    mix: SearchConfig = field(default_factory=SearchConfig)
    log_dir: Path | None = None
    """Folder of text logs to read. Logs of other training programs can be read too."""
    pattern: str = "training_*.log"
    """Names of the log files in log_dir."""
    out_dir: Path | None = None
    """Folder of the report; null: report/ in the run or in log_dir, or the folder that holds the runs."""

    def __post_init__(self) -> None:
        if self.out_dir is not None and self.out_dir.exists() and not self.out_dir.is_dir():
            raise ValueError(f"out_dir={self.out_dir} is a file: it must be a folder.")
        if sum(chosen is not None for chosen in (self.runs, self.mix_law, self.log_dir)) > 1:
            raise ValueError("more than one of runs=, mix_law= and log_dir= is set: set only one.")


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Settings of mode=inspect."""

    max_seq_len: Count
    """Tokens per sequence."""
    sequences: Count
    """Number of random sequences to show."""


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Settings of prepare.py."""

    tokenizer: TokenizerConfig
    sources: dict[str, SourceConfig]
    """Name -> the source, with the settings of the command line."""
    data_dir: Path
    """Each source is written to <data_dir>/<tokenizer>/<source>."""
    mode: Literal["prepare", "join", "inspect", "verify"]
    """prepare; join: parts into one source; inspect: show contents; verify: check for damage."""
    workers: Count | None
    """Tokenizing processes; null: one per core."""
    name: Any
    """Name of the prepared source, if there is only one source; null: the name of the source's config."""
    path: str | None
    """File, folder or pattern to read instead of the hub, if there is only one source; null: the source's own path."""
    format: Any
    """Format of existing shards to read in place: nanogpt, llmc, gpt2_5 or rangeflow; null: the source is text."""
    revision: Any
    """Commit, branch or tag on the hub; null: the newest commit. source.json records the commit."""
    limit_tokens: Any
    """Tokens of training and validation together; null: the limit of each source; all: no limit."""
    limit_files: Count | None
    """Read only this many files; null: all."""
    on_bad_record: Any
    """error; or skip: skip and count bad records, and fail above one in a thousand."""
    deduplicate: Any
    """exact: keep only the first of documents with identical text; null: keep all."""
    max_record_mb: PositiveNumber
    """Megabytes; a longer record counts as a bad record. Memory grows with this limit."""
    part: Any
    """k/n: prepare the k-th of n parts of the files, counted from 0, to share the work among machines; null: all
    files."""
    group_mb: PositiveNumber
    """Megabytes; input files are processed in groups of about this size. A part consists of whole groups."""
    inspect: InspectConfig

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "PrepareConfig":
        """Parse the composed settings of conf/prepare.yaml and a command line.

        Args:
            settings: nested dicts, as composed.

        Raises:
            ValueError: a setting is unknown, missing or wrong, or two settings contradict each other.
        """
        sources = settings.get("sources") or {}
        parsed = {name: parse_composed_source(name, content) for name, content in sources.items()}
        return parse(cls, {**settings, "sources": parsed})

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("there is no source to prepare: choose one with source=….")
        for key in ("name", "path", "format", "revision"):
            if getattr(self, key) is not None and len(self.sources) > 1:
                raise ValueError(
                    f"{key}={getattr(self, key)} applies to a single source: choose it with source=…. (For several "
                    "sources, set sources.<name>.path of each.)"
                )
        if self.name is not None and not re.fullmatch(r"[\w-][\w.-]*", str(self.name)):
            raise ValueError(
                f"name is {str(self.name)!r}: it must consist of letters, digits, _, . and -, and must not start with a dot."
            )

    @cached_property
    def sources_with_path(self) -> dict[str, SourceConfig]:
        """The config of each source. The `path` on the command line applies to a single source."""
        return {key: replace(source, path=self.path or source.path) for key, source in self.sources.items()}
