"""The reference pages say what each setting means."""

import re
from collections.abc import Iterator

import pytest

from documentation.settings_pages import COMMANDS, GROUPS, command_page, group_page


def rows_of(page: str) -> Iterator[list[str]]:
    """The cells of each row: setting, value, type, meaning, and the comment in the file if there is one."""
    for line in page.splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]


@pytest.mark.parametrize("name", [*COMMANDS, *GROUPS])
def test_every_setting_has_a_meaning(name: str) -> None:
    rows = list(rows_of(command_page(name) if name in COMMANDS else group_page(name)))
    assert rows
    assert [row[0] for row in rows if not row[3]] == []
    assert [row for row in rows if row[4:] == row[3:4]] == []


def test_settings_that_no_file_has_are_in_the_reference() -> None:
    assert "`imports`" in [row[0] for row in rows_of(command_page("train"))]
    assert "`curriculum.policy`" in [row[0] for row in rows_of(group_page("curriculum"))]
    assert "`optimizer.amsgrad`" in [row[0] for row in rows_of(group_page("optimizer"))]


def test_a_meaning_is_the_docstring_of_its_field() -> None:
    rows = {row[0]: row for row in rows_of(command_page("train"))}
    assert rows["`global_batch`"][2:] == [
        "a whole number, 1 or more",
        "Sequences per optimizer step, over all ranks and accumulation steps",
    ]
