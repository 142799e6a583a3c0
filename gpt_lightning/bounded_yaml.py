"""YAML that is bounded: a few lines with aliases can describe more than a machine holds, and nesting ends the interpreter."""

import yaml

MAX_DEPTH = 50
"""Lists and mappings inside each other."""
MAX_SIZE = 100_000
"""Values, each alias counted as all that it stands for; a text counts once more for every 64 characters."""


def check_yaml_bounds(text: str) -> None:
    """Look over a YAML text before it is read. What is read of it afterwards is bounded by its size and depth.

    Raises:
        yaml.YAMLError: it is malformed, too deep or too large, or an alias stands in what it names.
    """
    size = 0
    sizes: dict[str, int] = {}
    begun: list[tuple[str | None, int]] = []  # anchor of each collection that is open, and the size before it
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.DocumentStartEvent):
            sizes.clear()
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise yaml.YAMLError(f"the alias *{event.anchor} names nothing that is complete before it")
            size += sizes[event.anchor]
        elif isinstance(event, yaml.CollectionStartEvent):
            begun.append((event.anchor, size))
            size += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = begun.pop()
            if anchor:
                sizes[anchor] = size - before
        elif isinstance(event, yaml.ScalarEvent):
            values = 1 + len(event.value) // 64
            size += values
            if event.anchor:
                sizes[event.anchor] = values
        if len(begun) > MAX_DEPTH:
            raise yaml.YAMLError(f"its values are nested deeper than {MAX_DEPTH} levels")
        if size > MAX_SIZE:
            raise yaml.YAMLError(f"it describes more than {MAX_SIZE:,} values, aliases included")
