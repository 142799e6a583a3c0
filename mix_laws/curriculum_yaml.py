"""A constant mix as a file of the group `curriculum`: train.py --config-dir <folder> … curriculum=<name>."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gpt_lightning.console import escape_control_characters


def write_constant_mix(
    folder: Path, name: str, weights: Mapping[str, float], *, remarks: Sequence[str], max_epochs: float | None
) -> Path:
    """Write <folder>/curriculum/<name>.yaml, a whole curriculum of one keyframe.

    Args:
        folder: what train.py is to be told with --config-dir.
        name: of the choice.
        weights: of each source.
        remarks: lines above it.
        max_epochs: of each source with weight; None: no limit.
    """
    drawn = {source: weight for source, weight in weights.items() if weight > 0}
    content: dict[str, Any] = {
        "unit": "fraction",
        "interpolation": "linear",
        "keyframes": {"start": {"at": 0.0, "weights": drawn}},
        "mixes": {},
        "replay": {},
        "max_epochs": {} if max_epochs is None else dict.fromkeys(drawn, max_epochs),
        "on_exhausted": "error",
        "ado": None,
    }
    path = folder / "curriculum" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    said = "".join(f"# {escape_control_characters(line)}\n" for remark in remarks for line in remark.splitlines())
    path.write_text(said + yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path
