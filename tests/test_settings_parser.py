"""Settings are parsed into dataclasses once, and a wrong one is one sentence."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from running.config.settings_parser import Count, CountOrZero, PositiveNumber, parse


@dataclass(frozen=True, kw_only=True)
class Inner:
    steps: Count
    share: PositiveNumber | None = None


@dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner
    place: Path
    kind: Literal["a", "b", "c"]
    seed: CountOrZero = 0
    rest: Any = None
    gold: int | str = 0


RIGHT: dict[str, Any] = {"inner": {"steps": 3, "share": 0.5}, "place": "~/x", "kind": "b"}


def test_groups_become_dataclasses_and_texts_paths() -> None:
    assert parse(Outer, RIGHT) == Outer(inner=Inner(steps=3, share=0.5), place=Path.home() / "x", kind="b")
    assert parse(Outer, RIGHT | {"inner": {"steps": 1, "share": None}}).inner == Inner(steps=1)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"inner": {"step": 3}}, "there is no setting inner.step: did you mean inner.steps?"),
        ({"inner": {}}, "the setting inner.steps has no value."),
        ({"inner": 3}, "inner is 3: it must be a group of settings."),
        ({"inner": {"steps": 0}}, "inner.steps is 0: it must be a whole number, 1 or more."),
        ({"inner": {"steps": True}}, "inner.steps is True: it must be a whole number, 1 or more."),
        ({"inner": {"steps": 1, "share": -1}}, "inner.share is -1: it must be a number above 0, or null."),
        ({"place": ""}, "place is '': it must be a path."),
        ({"place": None}, "place is None: it must be a path."),
        ({"kind": "d"}, "kind is 'd': it must be one of a, b, c."),
        ({"kind": ["a"]}, "kind is ['a']: it must be one of a, b, c."),
        ({"seed": 1.5}, "seed is 1.5: it must be a whole number, 0 or more."),
        ({"gold": None}, "gold is None: it must be a whole number or a string."),
    ],
)
def test_a_wrong_setting_is_one_sentence(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        parse(Outer, RIGHT | wrong)
