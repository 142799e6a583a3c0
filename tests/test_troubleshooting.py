"""The page of messages quotes what the code says."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
MESSAGES = re.findall(r"^### (.+)$", PAGE, flags=re.MULTILINE)
PACKAGES = ("analysis", "callbacks", "data_modules", "gpt_lightning", "mix_laws", "running")


def texts(path: Path) -> str:
    """Every string of a module; what an f-string fills in is …"""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
        elif isinstance(node, ast.JoinedStr):
            found.append("".join(str(p.value) if isinstance(p, ast.Constant) else "…" for p in node.values))
    return "\n".join(found)


@pytest.fixture(scope="module")
def said() -> list[str]:
    files = [*ROOT.glob("*.py"), *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))]
    return [texts(path) for path in files]


@pytest.mark.parametrize("message", MESSAGES)
def test_a_quoted_message_is_one_of_the_code(message: str, said: list[str]) -> None:
    """All its parts, between the values that are left open, stand in one module."""
    parts = [part.strip() for part in message.split("…") if part.strip()]
    assert any(all(part in text for part in parts) for text in said)


def test_there_are_twenty_and_each_says_what_to_do() -> None:
    assert len(MESSAGES) >= 20
    for part in re.split(r"^### .+$", PAGE, flags=re.MULTILINE)[1:]:
        assert len(part.split("\n## ")[0].split()) > 10
