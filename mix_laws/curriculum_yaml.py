"""Write a constant mix as a curriculum file: train.py --config-dir <folder> … curriculum=<name>."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gpt_lightning.console import escape_control_characters


def write_constant_mix(
    folder: Path, name: str, weights: Mapping[str, float], *, remarks: Sequence[str], max_epochs: float | None
) -> Path:
    """Write <folder>/curriculum/<name>.yaml, a complete curriculum with one keyframe.

    Args:
        folder: The folder to pass to train.py as --config-dir.
        name: Name of the curriculum.
        weights: Source -> mix weight.
        remarks: Comment lines at the top of the file.
        max_epochs: Limit for each source with weight; None: no limit.

    Returns:
        The path of the file.
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
