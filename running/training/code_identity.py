"""Which code is running: the git revision, and a digest of the modules that decide how a run trains."""

import hashlib
import subprocess
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("callbacks", "data_modules", "gpt_lightning", "running")


def git(*arguments: str) -> str:
    """Output of git in this program's folder; empty if there is no git or no repository."""
    command = ["git", "-C", str(_ROOT), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False).stdout.strip()
    except OSError:
        return ""


def digest_of_code() -> str:
    """12 hexadecimal digits that identify the training code."""
    digest = hashlib.sha256()
    for path in sorted(path for package in _PACKAGES for path in (_ROOT / package).rglob("*.py")):
        digest.update(f"{path.relative_to(_ROOT)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]
