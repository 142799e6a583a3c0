"""Typed settings of the commands that do not train: prepare.py, generate.py, evaluate.py, convert.py and report.py."""

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from running.config.settings_parser import Count, PositiveNumber


@dataclass(frozen=True, kw_only=True)
class TokenizerChoice:
    """The tokenizer of an existing model."""

    name: str | None = None
    """gpt2, gpt2_chatml or the path of a tokenizer.json; None: the tokenizer that the model was trained with."""


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Settings of generate.py."""

    run: Path
    prompt: Any
    """None: an interactive session."""
    mode: Literal["text", "chat"]
    tokenizer: TokenizerChoice
    max_new_tokens: Count
    temperature: float
    top_k: Count | None
    top_p: float | None
    repetition_penalty: float
    stop: list[str]
    """Tokens at which generation stops, in addition to the special tokens."""
    seed: int

    def __post_init__(self) -> None:
        if not isinstance(self.stop, list) or not all(isinstance(text, str) for text in self.stop):
            raise ValueError(f"stop is {self.stop!r}: it must be a list of tokens, such as stop=['<|im_end|>'].")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Settings of evaluate.py."""

    run: Path | None
    checkpoint: Path | None
    tasks: list[str]
    tokenizer: TokenizerChoice
    path: Path | None
    """File of records for the one task that needs one, or a folder with a file for each task."""
    data: Path | None
    """Text for perplexity; None: the validation splits of the run's sources."""
    stride: Count | None
    """Tokens that each perplexity window scores; None: the whole window."""
    limit: Count | None
    """Examples per task; None: all."""
    batch_tokens: Count
    devices: Count
    out_dir: Path | None

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
    output: Path
    format: Literal["gpt2", "llama", "gguf", "ollama", "gpt_lightning"]
    tokenizer: TokenizerChoice
    vocab_size: int | None
    """Rows of the embedding and the head, to enlarge them; None: unchanged."""
    quantization: Literal["f32", "f16", "q8_0"]
    """Type of the matrices in a GGUF file."""


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Settings of the search for the best mix. `mix_laws.search_options.parse_search_target` explains them."""

    weights: dict[str, Any] = field(default_factory=dict)
    prior: dict[str, Any] = field(default_factory=dict)
    closeness: Any = 0.01
    max_epochs: Any = 4
    tokens: Any = None


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Settings of report.py. At most one of `runs`, `mix_law` and `log_dir` is set; without them, `run` is drawn."""

    run: Path = Path("runs/quickstart")
    runs: Any = None
    """A folder, a pattern, or a list of them."""
    mix_law: Any = None
    held_out: Any = None
    mix: SearchConfig = field(default_factory=SearchConfig)
    log_dir: Path | None = None
    pattern: str = "training_*.log"
    out_dir: Path | None = None

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


@dataclass(frozen=True, kw_only=True)
class PreparedTokenizer:
    """The tokenizer of conf/tokenizer. One with `train_on` is trained before the sources are prepared."""

    name: str
    model_vocab_size: Any = None
    train_on: Any = None
    """Sources to train the tokenizer on; None: the tokenizer is not trained here."""
    train_mb: Any = None
    """Megabytes of text per source; None: all."""


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Settings of prepare.py."""

    tokenizer: PreparedTokenizer
    sources: dict[str, Any] = field(default_factory=dict)
    """Name -> content of conf/source/<name>.yaml, with the settings of the command line."""
    data_dir: Path
    mode: Literal["prepare", "join", "inspect", "verify"]
    workers: Count | None
    name: Any
    path: Any
    format: Any
    revision: Any
    limit_tokens: Any
    limit_files: Count | None
    on_bad_record: Any
    deduplicate: Any
    max_record_mb: PositiveNumber
    """Megabytes; a longer record counts as a bad record."""
    part: Any
    group_mb: PositiveNumber
    """Megabytes; input files are processed in groups of at least this size."""
    inspect: InspectConfig

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("there is no source to prepare: choose one with source=….")
        for key, source in self.sources.items():
            origin = () if "corpus" in source else ("hub", "fields")
            for needed in (*origin, "licence", "val_fraction", "limit_tokens", "split"):
                if needed not in source:
                    raise ValueError(f"sources.{key}.{needed} has no value: conf/source has examples to copy.")
        for key in ("name", "path", "format", "revision"):
            if getattr(self, key) is not None and len(self.sources) > 1:
                raise ValueError(
                    f"{key}={getattr(self, key)} applies to a single source: choose it with source=…. (For several "
                    "sources, set sources.<name>.path of each.)"
                )
        if self.name is not None and not re.fullmatch(r"[\w-][\w.-]*", str(self.name)):
            raise ValueError(f"name is {str(self.name)!r}: it must consist of letters, digits, _, . and -.")

    @cached_property
    def sources_with_path(self) -> dict[str, dict[str, Any]]:
        """The config of each source. The `path` on the command line applies to a single source."""
        return {key: {**source, "path": self.path or source.get("path")} for key, source in self.sources.items()}
