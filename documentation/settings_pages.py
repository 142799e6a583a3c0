"""Write docs/reference/settings/: one page for each command and one for each group of settings."""

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

import callbacks
from documentation.setting_meanings import first_sentence
from documentation.setting_tables import callback_table, code, escape, run_table, settings_table, unwritten_table
from running.config.callback_configs import CALLBACK_CONFIGS
from running.config.command_help import command_help, list_settings, written_settings
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
        parts.append(f"## {title}\n\nFrom `conf/{config}.yaml`.\n\n{settings_table(config, list_settings(config))}")
        if groups := [name for name in _group_names(config) if name in GROUPS]:
            links = "\n".join(f"- [{name}]({name}.md): {', '.join(map(code, _choices(name)))}" for name in groups)
            parts.append(f"Groups, chosen as `group=choice`:\n\n{links}\n")
    if command == "train":
        parts += _only_typed("## Settings that are only typed", run_table(list_settings("train"), GROUPS))
        parts.append("## Callbacks\n\nSettings of `callbacks.<name>` for each class that ships.\n")
        for target, kind in CALLBACK_CONFIGS.items():
            meaning = first_sentence(getattr(callbacks, target.removeprefix("callbacks.")))
            parts.append(f"### {target}\n\n{escape(meaning)}.\n\n{callback_table(kind)}")
    return _joined(parts)


def _only_typed(heading: str, table: str) -> list[str]:
    """A section for settings that no file in conf/ has; empty if there are none."""
    return [f"{heading}\n\nType them with `+` in front, such as `+key=value`.\n\n{table}"] if table else []


def group_page(group: str) -> str:
    """The choices of a group, each with its comment and its settings."""
    chosen = f"`tasks=[{_choices(group)[0]}]`" if group in _NOT_HYDRA else f"`{group}={_choices(group)[0]}`"
    introduction = _INTRODUCTIONS.get(group, "")
    written: set[str] = set()
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
            parts.append(f"{escape(comment)}\n")
        if bases := _bases(text):
            parts.append(f"Starts from: {bases}.\n")
        prefix = f"{package}." if package else ""
        settings = [s._replace(key=prefix + s.key) for s in written_settings(f"{group}/{choice}")]
        written |= {s.key for s in settings}
        if settings:
            parts.append(settings_table(group, settings))
    parts += _only_typed("## Further settings", unwritten_table(group, written))
    return _joined(parts)


def _joined(parts: list[str]) -> str:
    return "\n".join(part.rstrip() + "\n" for part in parts if part)


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
