"""Classes and functions of the user's own modules that a config may name with `_target_`; see `running.registration`."""

from typing import Any

REGISTERED_TARGETS: dict[str, dict[str, Any]] = {"optimizer": {}, "callback": {}, "source reader": {}}
"""Kind -> dotted name -> the class or function."""


def register_target(kind: str, part: Any) -> str:
    """Let a config name a class or function, and return its dotted name.

    Args:
        kind: a key of REGISTERED_TARGETS.
        part: the class or function.

    Raises:
        ValueError: it has no dotted name, as a lambda has none, or another one has the same.
    """
    name, registered = f"{part.__module__}.{part.__qualname__}", REGISTERED_TARGETS[kind]
    if "<" in name:
        raise ValueError(f"{kind} {name}: it must be a class or function at the top level of a module.")
    if registered.setdefault(name, part) is not part:
        raise ValueError(f"{kind} {name} is registered already: give yours another name.")
    return name
