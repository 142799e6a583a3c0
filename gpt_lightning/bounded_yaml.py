"""Check the size of YAML before it is loaded.

A few lines with aliases can expand to more data than fits in memory, and deep nesting crashes the interpreter.
"""

import yaml

MAX_DEPTH = 50
"""Maximum nesting depth of lists and mappings."""
MAX_SIZE = 100_000
"""Maximum number of values. An alias counts as many values as it refers to; a string counts once more per 64
characters.
"""


def check_yaml_bounds(text: str) -> None:
    """Check that a YAML text, once loaded, exceeds neither MAX_DEPTH nor MAX_SIZE. The text is not loaded.

    Raises:
        yaml.YAMLError: The text is malformed, too deep or too large, or an alias occurs inside the value that the alias
            refers to.
    """
    size = 0
    sizes: dict[str, int] = {}
    begun: list[tuple[str | None, int]] = []  # for each open collection: its anchor, and the size before it
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.DocumentStartEvent):
            sizes.clear()
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise yaml.YAMLError(f"the alias *{event.anchor} does not refer to a complete value before it")
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
            raise yaml.YAMLError(f"its values are nested more than {MAX_DEPTH} levels deep")
        if size > MAX_SIZE:
            raise yaml.YAMLError(f"it contains more than {MAX_SIZE:,} values, including those repeated by aliases")
