"""Format counts, durations and sizes for people."""


def format_count(n: float) -> str:
    """A number of tokens, such as 1.5 B."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if n >= unit:
            return f"{n / unit:.3g} {name}"
    return f"{n:g}"


def format_duration(hours: float) -> str:
    """A duration given in hours, such as 3 minutes."""
    for unit, name in ((1, "hours"), (1 / 60, "minutes")):
        if hours >= unit:
            return f"{hours / unit:.3g} {name}"
    return f"{hours * 3600:.2g} seconds"


def format_bytes(n_bytes: float) -> str:
    """A size given in bytes, such as 2.5 GB."""
    return f"{n_bytes / 1e9:.3g} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:.3g} MB"
