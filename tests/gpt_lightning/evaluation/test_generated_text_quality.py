"""What counts as Python, on files that Python itself came with."""

import ast
import dataclasses
import functools
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_lightning.evaluation.generated_text_quality import is_python

FILES = [Path(module.__file__).read_text(encoding="utf-8") for module in (dataclasses, functools, textwrap)]
"""With decorators, `try` at the outermost level, strings over many lines."""


def starts(text: str) -> list[int]:
    """Where each outermost statement begins, as a number of signs."""
    lines = text.splitlines(keepends=True)
    firsts = [
        min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))]) for node in ast.parse(text).body
    ]
    return [sum(map(len, lines[: first - 1])) for first in firsts]


STARTS = [starts(text) for text in FILES]


@given(st.integers(0, len(FILES) - 1), st.data())
def test_python_that_is_cut_off_anywhere_is_python(file: int, data: st.DataObject) -> None:
    text, second = FILES[file], STARTS[file][1]
    cut = data.draw(st.integers(second + 1, len(text)))
    assert is_python(text[:cut], ended=False)
    assert is_python(text, ended=True)


@given(st.integers(0, len(FILES) - 1), st.data())
def test_a_mistake_before_the_cut_shows(file: int, data: st.DataObject) -> None:
    text, at = FILES[file], data.draw(st.sampled_from(STARTS[file]))
    spoilt = f"{text[:at]}a = = 3\n"
    cut = data.draw(st.integers(at, len(text)))
    assert not is_python(spoilt + text[at:cut], ended=False)
    assert not is_python(spoilt + text[at:], ended=True)


@pytest.mark.parametrize(
    ("text", "ended", "is_it"),
    [
        ("", True, False),
        ("# nothing", True, False),
        ("x = 1", True, True),
        ("x = 1", False, False),  # of one line, cut off, nothing is left
        ("def f(x):\n    return x\n    ret", False, True),
        ("def f(x):\n    ret", False, False),
        ("x = 1\n@cached\ndef f(", False, True),
        ("x = 1\n((((((\n(((", False, True),
        ("x = 1\n))\n(((", False, False),
        ("try:\n    x\n", True, False),
        ("a\0b", True, False),
        ("(" * 10_000, True, False),
    ],
)
def test_what_python_says(text: str, ended: bool, is_it: bool) -> None:
    assert is_python(text, ended=ended) is is_it
