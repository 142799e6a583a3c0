"""Markdown tables of settings: value, type, meaning and remark of each."""

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import MISSING, Field, fields
from typing import Any, NamedTuple

from data_modules.order.curriculum import Curriculum
from documentation.setting_meanings import Description, describe_in, describe_setting
from gpt_lightning.model import GPTConfig
from running.config.command_configs import ConvertConfig, EvaluateConfig, GenerateConfig, PrepareConfig, ReportConfig
from running.config.command_help import Setting
from running.config.compose import CONF
from running.config.optimization_configs import OPTIMIZER_OPTIONS, ScheduleConfig
from running.config.plan_and_verify_configs import PlanCommandConfig, VerifyCommandConfig
from running.config.run_config import RunConfig, TrainerConfig
from running.config.tokenizer_config import TokenizerConfig
from running.evaluation.task_config import TASK_KINDS

_OF_RUN: list[type] = [RunConfig, PlanCommandConfig, VerifyCommandConfig]
_CONFIGS: dict[str, list[type]] = {
    "convert": [ConvertConfig],
    "evaluate": [EvaluateConfig],
    "generate": [GenerateConfig],
    "prepare": [PrepareConfig],
    "report": [ReportConfig],
    "source": [PrepareConfig],
}
"""Command or group -> the dataclasses that hold its settings; for others, those of a run."""
_GROUPS: dict[str, list[type]] = {
    "curriculum": [Curriculum],
    "model": [GPTConfig],
    "optimizer": list(OPTIMIZER_OPTIONS.values()),
    "schedule": [ScheduleConfig],
    "tokenizer": [TokenizerConfig],
    "trainer": [TrainerConfig],
}
"""Group -> the dataclasses of its section."""
_NOT_SET = ("model.eot_id", "settings")  # fields that no setting gives


class Row(NamedTuple):
    """A row of a table."""

    key: str
    value: str
    kind: str
    meaning: str
    remark: str
    """The comment in the file; "" for the file of a command, whose comments repeat the meanings for --help."""


def settings_table(name: str, settings: Iterable[Setting]) -> str:
    """A table of the settings in a file.

    Args:
        name: Command or group that has the file.
        settings: Its settings, with dotted names.
    """
    is_command = (CONF / f"{name}.yaml").is_file()
    settings = list(settings)
    configs = _CONFIGS.get(name, _OF_RUN)
    if name == "task":
        configs = [TASK_KINDS[setting.default] for setting in settings if setting.key == "kind"]
    rows = []
    for setting in settings:
        found = describe_setting(configs, setting.key)
        described = found or Description(setting.meaning, "")
        remark = setting.meaning if found and not is_command else ""
        rows.append(Row(setting.key, setting.default, described.kind, described.meaning, remark))
    return _table(rows)


def run_table(settings: Iterable[Setting], groups: Collection[str]) -> str:
    """A table of the fields of a run that neither a file nor a group sets; "" if there are none.

    Args:
        settings: Settings of conf/train.yaml.
        groups: Names of all groups.
    """
    written = {setting.key.split(".")[0] for setting in settings} | set(groups)
    return _fields_table(RunConfig, "", written)


def unwritten_table(group: str, written: Collection[str]) -> str:
    """A table of the fields of a group's section that none of its files sets; "" if there are none.

    Args:
        group: Name of the group.
        written: Dotted names of the settings in its files.
    """
    names = {key.split(".")[1] for key in written if key.startswith(f"{group}.") and key.count(".")}
    tables = [_fields_table(config, f"{group}.", names) for config in _GROUPS.get(group, ())]
    rows = dict.fromkeys(row for table in tables for row in table.splitlines())  # optimizers share some options
    return "\n".join(rows) + "\n" if rows else ""


def callback_table(config: type) -> str:
    """A table of the settings of a callback.

    Args:
        config: Dataclass that parses them.
    """
    return _fields_table(config, "", ()) or "It has no settings.\n"


def _fields_table(config: type, prefix: str, written: Collection[str]) -> str:
    rows = []
    for field in fields(config):
        key = f"{prefix}{field.name}"
        if field.name not in written and key not in _NOT_SET:
            found = describe_in([config], [field.name])
            assert found is not None
            rows.append(Row(key, _default(field), found.kind, found.meaning, ""))
    return _table(rows, value="default") if rows else ""


def _default(field: "Field[Any]") -> str:
    """The default of a field in YAML; "" if it has none."""
    value = field.default_factory() if field.default_factory is not MISSING else field.default
    return "" if value is MISSING else json.dumps(value)


def _table(rows: list[Row], value: str = "value") -> str:
    has_remarks = any(row.remark for row in rows)
    names = ["setting", value, "type", "meaning", *(["in this file"] if has_remarks else [])]
    lines = [f"| {' | '.join(names)} |", f"| {' | '.join(['---'] * len(names))} |"]
    for row in rows:
        cells = [f"`{row.key}`", code(row.value), escape(row.kind), escape(row.meaning)]
        lines.append(f"| {' | '.join([*cells, *([escape(row.remark)] if has_remarks else [])])} |")
    return "\n".join(lines) + "\n"


def code(text: str) -> str:
    """Format a text as code."""
    flat = " ".join(text.split()).replace("|", "\\|")
    return f"`{flat}`" if flat else ""


def escape(text: str) -> str:
    """Escape plain text for Markdown. Text in backticks stays code."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(p if p.startswith("`") else re.sub(r"([\\*_\[\]<>|])", r"\\\1", p) for p in parts)
