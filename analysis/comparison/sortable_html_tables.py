"""HTML tables that are sorted by a click on a column head. Numbers in texts are sorted by value."""

import re
from collections.abc import Iterator, Sequence
from html import escape

from analysis.comparison.run_settings import ABSENT

_NUMBER = re.compile(r"((?:(?<![^\s=\[(,])-)?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)")


def sortable_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, name: str) -> Iterator[str]:
    """A table of texts, whose first column has names.

    Args:
        heads: column headings.
        rows: texts of the cells.
        name: part of the table's id.
    """
    keys = [sort_keys(column) for column in zip(*rows, strict=True)]
    yield from table_head(heads, numbers=(), name=name)
    for n, row in enumerate(rows):
        cells = (f'<td data-value="{keys[m][n]}">{breakable(text)}</td>' for m, text in enumerate(row))
        yield f"<tr>{''.join(cells)}</tr>"
    yield TABLE_END


def table_head(heads: Sequence[str], *, numbers: Sequence[int], name: str) -> Iterator[str]:
    """The HTML of a table up to its first row. `numbers` are the indices of columns with only numbers.

    Args:
        heads: column headings.
        numbers: indices of columns with only numbers.
        name: part of the table's id.
    """
    yield f'<div class="scroll"><table class="sortable" id="table-{name}"><thead><tr>'
    for n, head in enumerate(heads):
        yield f'<th{" class=number" if n in numbers else ""}><button type="button">{breakable(head)}</button></th>'
    yield "</tr></thead><tbody>"


TABLE_END = "</tbody></table></div>"


def sort_keys(texts: Sequence[str]) -> list[str]:
    """The rank of each text, equal for equal texts.

    Missing values are "", which the page sorts last in both directions.
    """
    places = {key: n for n, key in enumerate(sorted({_natural(text) for text in texts}))}
    return ["" if text in ("", ABSENT) else str(places[_natural(text)]) for text in texts]


def breakable(text: str) -> str:
    """HTML of a text that may be broken after the dots and commas in names."""
    return escape(text).replace(".", ".<wbr>").replace(",", ",<wbr>")


def _natural(text: str) -> tuple[tuple[bool, float, str], ...]:
    """A text as alternating words and numbers, for sorting."""
    pieces = [(n % 2 == 1, piece) for n, piece in enumerate(_NUMBER.split(text)) if piece]
    return tuple((False, float(piece), "") if number else (True, 0.0, piece.casefold()) for number, piece in pieces)
