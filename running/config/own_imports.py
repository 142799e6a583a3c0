"""`+imports=[my_package]`: modules of the user that register parts under names for the config."""

import hashlib
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

_imported: set[str] = set()


def typed_imports(settings: Iterable[str]) -> list[str]:
    """Names of the modules in `+imports=[…]` on a command line.

    Args:
        settings: the typed settings, `key=value` each.

    Raises:
        ValueError: the value is not a list of names.
    """
    for override in OverridesParser.create().parse_overrides(list(settings)):
        if override.key_or_group == "imports" and not override.is_delete() and not override.is_sweep_override():
            return _names(override.value())
    return []


def import_parts(names: Iterable[str]) -> None:
    """Import modules that register parts. See `gpt_lightning.registration`.

    Raises:
        ValueError: a module cannot be imported.
    """
    for name in names:
        try:
            import_module(name)
        except Exception as error:  # user code can raise anything
            why = f"{type(error).__name__}: {' '.join(str(error).split()).rstrip('.')}"
            raise ValueError(
                f"imports: {name} cannot be imported ({why}): install its package, or put its folder on PYTHONPATH."
            ) from error
        _imported.add(name)


def check_imports(config: Mapping[str, Any]) -> None:
    """Check that the modules in a config's `imports` were typed on the command line.

    Raises:
        ValueError: a module was not typed. A config file must not name code.
    """
    for name in _names(config.get("imports") or []):
        if name not in _imported:
            raise ValueError(
                f"imports={name}: a config file may not name a module. Type +imports=[{name}] if you mean it."
            )


def digests_of_imports(names: Iterable[str]) -> dict[str, str]:
    """Module -> digest of its source in twelve hexadecimal digits. For a package it covers all of its files."""
    return {name: _digest(name) for name in names}


def _digest(name: str) -> str:
    spec = find_spec(name)
    origin = Path(spec.origin) if spec and spec.origin else None
    if origin is None or not origin.is_file():
        return "unknown"
    files = sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
    digest = hashlib.sha256()
    for path in files:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(origin.parent).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


def _names(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise ValueError(f"imports is {value!r}: it must be a list of modules, such as +imports=[my_package].")
    return list(value)
