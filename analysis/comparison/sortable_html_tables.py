"""Tables of a page that a click on a head sorts: numbers in a text by their size, and not by their digits."""

import re
from collections.abc import Iterator, Sequence
from html import escape

from analysis.comparison.run_settings import ABSENT

_NUMBER = re.compile(r"((?:(?<![^\s=\[(,])-)?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)")


def sortable_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, name: str) -> Iterator[str]:
    """Of texts, a first column of names."""
    keys = [sort_keys(column) for column in zip(*rows, strict=True)]
    yield from table_head(heads, numbers=(), name=name)
    for n, row in enumerate(rows):
        cells = (f'<td data-value="{keys[m][n]}">{breakable(text)}</td>' for m, text in enumerate(row))
        yield f"<tr>{''.join(cells)}</tr>"
    yield TABLE_END


def table_head(heads: Sequence[str], *, numbers: Sequence[int], name: str) -> Iterator[str]:
    """All of a table up to its first row; `numbers` are the columns that hold nothing else."""
    yield f'<div class="scroll"><table class="sortable" id="table-{name}"><thead><tr>'
    for n, head in enumerate(heads):
        yield f'<th{" class=number" if n in numbers else ""}><button type="button">{breakable(head)}</button></th>'
    yield "</tr></thead><tbody>"


TABLE_END = "</tbody></table></div>"


def sort_keys(texts: Sequence[str]) -> list[str]:
    """Of each text its place among all, equal ones sharing it; empty for what is not there, which comes last either way."""
    places = {key: n for n, key in enumerate(sorted({_natural(text) for text in texts}))}
    return ["" if text in ("", ABSENT) else str(places[_natural(text)]) for text in texts]


def breakable(text: str) -> str:
    """HTML of a text that may be broken after the dots and commas of a run's or a setting's name."""
    return escape(text).replace(".", ".<wbr>").replace(",", ",<wbr>")


def _natural(text: str) -> tuple[tuple[bool, float, str], ...]:
    """A text as words and numbers, in turn."""
    pieces = [(n % 2 == 1, piece) for n, piece in enumerate(_NUMBER.split(text)) if piece]
    return tuple((False, float(piece), "") if number else (True, 0.0, piece.casefold()) for number, piece in pieces)
