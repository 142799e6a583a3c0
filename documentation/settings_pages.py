"""Write docs/reference/settings/: one page for each command and one for each group of settings."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from gpt_lightning.model import GPTConfig
from running.config.command_help import Setting, command_help, list_settings, written_settings
from running.config.compose import CONF

PAGES = CONF.parent / "docs" / "reference" / "settings"
COMMANDS = tuple(sorted(path.stem for path in CONF.glob("*.yaml")))
GROUPS = tuple(sorted(path.name for path in CONF.iterdir() if path.is_dir()))
_INTRODUCTIONS = {
    "curriculum": "The mix of sources over the run. [Plan a curriculum](../../howto/curriculum.md) explains each key.",
    "experiment": "A complete run: it chooses from the other groups and sets batch size, length and learning rate.",
    "hardware": "Micro-batch, precision and kernels for a GPU. [Choose a GPU](../../howto/hardware.md) compares them.",
    "logger": "Where metrics go in addition to TensorBoard and `metrics.jsonl`.",
    "model": "Architecture and sizes. [Choices of the model](../../explanation/model.md) measures the effect of each choice.",
    "optimizer": "The optimizer and its settings. The [optimizer recipes](../../recipes/optimizers.md) compare them.",
    "schedule": "The learning rate over the run. The [optimizer recipes](../../recipes/optimizers.md) compare the shapes.",
    "source": "A corpus: its files and the fields with text. [Prepare corpora](../../howto/corpora.md) explains the keys.",
    "task": "What `evaluate.py` measures. [Evaluate a model](../../howto/evaluation.md) explains protocols and results.",
    "tokenizer": "Converts text to token ids. [Prepare corpora](../../howto/corpora.md#tokenizers) shows how to train one.",
    "trainer": "Processes, precision and kernels. [Several GPUs](../../howto/several_gpus.md) compares the strategies.",
}
_SIZES = {
    "d_model": "Width of the residual stream.",
    "n_layers": "Number of blocks.",
    "n_heads": "Number of query heads in each attention layer.",
    "dropout": "Probability that dropout sets an activation to zero.",
}
_NOT_HYDRA = ("task",)  # evaluate.py reads these files itself: their keys have no prefix


def write_pages(folder: Path = PAGES) -> list[Path]:
    """Write all pages and remove pages of commands or groups that no longer exist."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {name: command_page(name) for name in COMMANDS} | {name: group_page(name) for name in GROUPS}
    for path in folder.glob("*.md"):
        if path.stem not in pages:
            path.unlink()
    for name, text in pages.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
    return [folder / f"{name}.md" for name in pages]


def command_page(command: str) -> str:
    """The help text of a command, its settings and its groups."""
    parts = [
        f"# {command}.py\n",
        f"This page shows the output of `python {command}.py --help` and lists every setting.\n",
    ]
    parts.append(f"```text\n{command_help(command).split('Settings of conf/')[0].rstrip()}\n```\n")
    for config in _configs(command):
        title = "Settings" if config == command else f"Settings shared with {config}.py"
        parts.append(f"## {title}\n\nFrom `conf/{config}.yaml`.\n\n{_table(list_settings(config))}")
        if groups := [name for name in _group_names(config) if name in GROUPS]:
            links = "\n".join(f"- [{name}]({name}.md): {', '.join(map(_code, _choices(name)))}" for name in groups)
            parts.append(f"Groups, chosen as `group=choice`:\n\n{links}\n")
    return _joined(parts)


def group_page(group: str) -> str:
    """The choices of a group, each with its comment and its settings."""
    chosen = f"`tasks=[{_choices(group)[0]}]`" if group in _NOT_HYDRA else f"`{group}={_choices(group)[0]}`"
    introduction = _INTRODUCTIONS.get(group, "")
    known = _meanings()
    parts = [
        f"# {group}\n",
        introduction and f"{introduction}\n",
        f"A choice is a file in `conf/{group}/`, for example {chosen}.\n",
    ]
    for choice in _choices(group, everything=True):
        text = (CONF / group / f"{choice}.yaml").read_text(encoding="utf-8")
        comment, package = _comment(text), _package(text, group)
        parts.append(f"{'###' if '/' in choice else '##'} {choice}\n")
        if comment:
            parts.append(f"{_escape(comment)}\n")
        if bases := _bases(text):
            parts.append(f"Starts from: {bases}.\n")
        prefix = f"{package}." if package else ""
        settings = [s._replace(key=prefix + s.key) for s in written_settings(f"{group}/{choice}")]
        settings = [s._replace(meaning=s.meaning or known.get(s.key, "")) for s in settings]
        if settings:
            parts.append(_table(settings))
    return _joined(parts)


def _meanings() -> dict[str, str]:
    """Setting -> its comment, for files that set it without a comment."""
    found = {s.key: s.meaning for s in list_settings("train") if s.meaning}
    found |= {f"model.{name}": meaning for name, meaning in _model_fields().items()}
    for group in (name for name in GROUPS if name not in ("experiment", "hardware", *_NOT_HYDRA)):
        for choice in _choices(group):
            package = _package((CONF / group / f"{choice}.yaml").read_text(encoding="utf-8"), group)
            for setting in written_settings(f"{group}/{choice}"):
                if setting.meaning:
                    found.setdefault(f"{package}.{setting.key}", setting.meaning)
    return found


def _model_fields() -> dict[str, str]:
    """Field of GPTConfig -> its docstring."""
    body = ast.parse(inspect.getsource(GPTConfig)).body[0]
    assert isinstance(body, ast.ClassDef)
    found = dict(_SIZES)
    for field, behind in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(behind, ast.Expr):
            found[field.target.id] = " ".join(ast.literal_eval(behind.value).split())
    return {name: meaning.rstrip(".") for name, meaning in found.items()}


def _joined(parts: list[str]) -> str:
    return "\n".join(part.rstrip() + "\n" for part in parts if part)


def _table(settings: list[Setting]) -> str:
    if not any(s.meaning for s in settings):
        rows = (f"| `{s.key}` | {_code(s.default)} |\n" for s in settings)
        return "| setting | value |\n| --- | --- |\n" + "".join(rows)
    rows = (f"| `{s.key}` | {_code(s.default)} | {_escape(s.meaning)} |\n" for s in settings)
    return "| setting | value | meaning |\n| --- | --- | --- |\n" + "".join(rows)


def _code(text: str) -> str:
    flat = " ".join(text.split()).replace("|", "\\|")
    return f"`{flat}`" if flat else ""


def _escape(text: str) -> str:
    """Escape plain text for Markdown. Text in backticks stays code."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(p if p.startswith("`") else re.sub(r"([\\*_\[\]<>|])", r"\\\1", p) for p in parts)


def _comment(text: str) -> str:
    """The comment at the top of a file, without the line `# @package …`."""
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.removeprefix("#").strip())
    return " ".join(lines)


def _package(text: str, group: str) -> str:
    """The section of the config into which Hydra puts the settings of a file."""
    found = re.search(r"^# @package (\S+)", text, flags=re.MULTILINE)
    if found:
        return "" if found[1] == "_global_" else found[1]
    return "" if group in _NOT_HYDRA else group


def _bases(text: str) -> str:
    """The files in `defaults` of a file, formatted as code."""
    content = yaml.safe_load(text) or {}
    named = []
    for entry in content.get("defaults", []):
        for name, choice in entry.items() if isinstance(entry, dict) else [("", entry)]:
            group = name.removeprefix("override ").strip("/")
            if choice not in ("_self_", None):
                named.append(f"`{group}={choice}`" if group else f"`{choice}`")
    return ", ".join(named)


def _choices(group: str, *, everything: bool = False) -> list[str]:
    """Names of the files of a group. `everything` includes files in subfolders, which come last."""
    names = [path.relative_to(CONF / group).with_suffix("").as_posix() for path in (CONF / group).rglob("*.yaml")]
    return sorted((n for n in names if everything or "/" not in n), key=lambda name: ("/" in name, name))


def _configs(command: str) -> Iterator[str]:
    """A command's config and the configs of other commands that it includes."""
    yield command
    for entry in _defaults(command):
        if isinstance(entry, str) and entry in COMMANDS:
            yield entry


def _group_names(config: str) -> list[str]:
    names = [next(iter(e)) if isinstance(e, dict) else e for e in _defaults(config)]
    return [name.removeprefix("override ").strip("/") for name in names]


def _defaults(config: str) -> list[dict[str, object] | str]:
    content = yaml.safe_load((CONF / f"{config}.yaml").read_text(encoding="utf-8"))
    entries: list[dict[str, object] | str] = content["defaults"]
    return entries
