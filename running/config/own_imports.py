"""`+imports=[my_package]`: the user's own modules, which register parts under words that the config may use."""

import hashlib
import traceback
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

_imported: set[str] = set()


def typed_imports(settings: Iterable[str]) -> list[str]:
    """The modules that a command line names.

    Args:
        settings: what was typed, `key=value` each.

    Raises:
        ValueError: they are not a list of names.
    """
    for override in OverridesParser.create().parse_overrides(list(settings)):
        if override.key_or_group == "imports" and not override.is_delete() and not override.is_sweep_override():
            return _names(override.value())
    return []


def import_parts(names: Iterable[str]) -> None:
    """Import modules, which may register parts; see `running.registration`.

    Raises:
        ValueError: one cannot be imported.
    """
    for name in names:
        try:
            import_module(name)
        except Exception as error:  # it is the user's: anything can be wrong with it
            raise ValueError(f"imports: {_import_problem(name, error)}.") from error
        _imported.add(name)


def check_imports(config: Mapping[str, Any]) -> None:
    """Check that what a config wants to have imported was imported at the user's own word.

    Raises:
        ValueError: it was not, as a config file may not name code.
    """
    for name in _names(config.get("imports") or []):
        if name not in _imported:
            raise ValueError(
                f"imports={name}: a config file may not name a module. Type +imports=[{name}] if you mean it."
            )


def digests_of_imports(names: Iterable[str]) -> dict[str, str]:
    """Module -> twelve hexadecimal digits, the same for the same source; of a package all of its files count."""
    return {name: _digest(name) for name in names}


def _digest(name: str) -> str:
    origin = _origin(name)
    digest = hashlib.sha256()
    for path in _source_files(origin):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(origin.parent).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12] if origin.is_file() else "unknown"


def _origin(name: str) -> Path:
    """The file of a module, or the __init__.py of a package; a path without a file: there is none."""
    spec = find_spec(name)
    return Path(spec.origin if spec and spec.origin else "")


def _source_files(origin: Path) -> list[Path]:
    """The file of a module, or all files of a package."""
    if origin.name == "__init__.py":
        return sorted(origin.parent.rglob("*.py"))
    return [origin] if origin.is_file() else []


def _import_problem(name: str, error: Exception) -> str:
    """Why a module could not be imported: it was not found, or it raised an error, and where."""
    why = f"{type(error).__name__}: {' '.join(str(error).split()).rstrip('.')}"
    if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
        return f"there is no module {name} ({why}): install its package, or put its folder on PYTHONPATH"
    files = set(map(str, _source_files(_origin(name.partition(".")[0]))))
    lines = [
        (Path(f.filename).name, f.lineno) for f in traceback.extract_tb(error.__traceback__) if f.filename in files
    ]
    where = "{}, line {}: ".format(*lines[-1]) if lines else ""
    return f"{name} raises an error when it is imported ({where}{why})"


def _names(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise ValueError(f"imports is {value!r}: it must be a list of modules, such as +imports=[my_package].")
    return list(value)
