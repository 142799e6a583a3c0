"""`+imports=[my_package]`: the user's own modules, which register parts under names that a config may use."""

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
    """The modules that a command line imports.

    Args:
        settings: typed settings, `key=value` each.

    Raises:
        ValueError: `imports` is not a list of names.
    """
    for override in OverridesParser.create().parse_overrides(list(settings)):
        if override.key_or_group == "imports" and not override.is_delete() and not override.is_sweep_override():
            return _names(override.value())
    return []


def import_parts(names: Iterable[str]) -> None:
    """Import modules that register parts. See `running.registration`.

    Args:
        names: dotted names of modules.

    Raises:
        ValueError: a module cannot be imported.
    """
    for name in names:
        try:
            import_module(name)
        except Exception as error:  # user code may raise anything
            raise ValueError(f"imports: {_import_problem(name, error)}.") from error
        _imported.add(name)


def import_attribute(module: str, name: str) -> Any:
    """An attribute of a user's own module; None if the module has no such attribute.

    Args:
        module: dotted name.
        name: of the attribute.

    Raises:
        ValueError: the module cannot be imported.
    """
    try:
        return getattr(import_module(module), name, None)
    except Exception as error:  # user code may raise anything
        why = f"{type(error).__name__}: {' '.join(str(error).split()).rstrip('.')}"
        raise ValueError(
            f"{module}.{name} cannot be imported ({why}): install its package, or add its folder to PYTHONPATH."
        ) from error


def imports_in(config: Mapping[str, Any]) -> list[str]:
    """Names of the modules in `imports` of a config.

    Args:
        config: nested settings.

    Raises:
        ValueError: `imports` is not a list of names.
    """
    return _names(config.get("imports") or [])


def check_imports(config: Mapping[str, Any]) -> None:
    """Check that the user typed the imports of a config on the command line. A config file may not import code.

    Args:
        config: nested settings.

    Raises:
        ValueError: a module was not imported by `import_parts`.
    """
    for name in imports_in(config):
        if name not in _imported:
            raise ValueError(
                f"imports={name}: a config file may not import a module. Type +imports=[{name}] to allow it."
            )


def digests_of_imports(names: Iterable[str]) -> dict[str, str]:
    """Module -> 12 hexadecimal digits that identify its source code; of a package, all files count.

    Args:
        names: dotted names of modules.
    """
    return {name: _digest(name) for name in names}


def _digest(name: str) -> str:
    origin = _origin(name)
    digest = hashlib.sha256()
    for path in _source_files(origin):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(origin.parent).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12] if origin.is_file() else "unknown"


def _origin(name: str) -> Path:
    """The file of a module, or the __init__.py of a package. The path is not a file if there is no such module."""
    spec = find_spec(name)
    return Path(spec.origin if spec and spec.origin else "")


def _source_files(origin: Path) -> list[Path]:
    """The file of a module, or all files of a package."""
    if origin.name == "__init__.py":
        return sorted(origin.parent.rglob("*.py"))
    return [origin] if origin.is_file() else []


def _import_problem(name: str, error: Exception) -> str:
    """Why an import failed: the module was not found, or it raised an error (with file and line)."""
    why = f"{type(error).__name__}: {' '.join(str(error).split()).rstrip('.')}"
    if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
        return f"there is no module {name} ({why}): install its package, or add its folder to PYTHONPATH"
    files = set(map(str, _source_files(_origin(name.partition(".")[0]))))
    lines = [
        (Path(f.filename).name, f.lineno) for f in traceback.extract_tb(error.__traceback__) if f.filename in files
    ]
    where = "{}, line {}: ".format(*lines[-1]) if lines else ""
    return f"{name} raises an error when it is imported ({where}{why})"


def _names(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise ValueError(f"imports is {value!r}: it must be a list of module names, such as +imports=[my_package].")
    return list(value)
