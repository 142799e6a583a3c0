"""`init_from`: take the architecture from the initial weights. Settings on the command line take precedence."""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser


def init_from_settings(settings: Sequence[str]) -> list[str]:
    """Model settings of the weights that `init_from` names, to add to a command line.

    Model settings on the command line are left out of the result, and with `model=…` the result is empty. If they contradict the
    weights, loading the weights raises an error. In a multirun over `init_from` each job calls this itself.

    Raises:
        ValueError: `init_from` does not name a model, or the model is damaged.
    """
    typed = {o.key_or_group: o for o in OverridesParser.create().parse_overrides(list(settings))}
    given = typed.get("init_from")
    if given is None or given.is_sweep_override() or "model" in typed:
        return []
    path = given.value()
    if not isinstance(path, str) or not Path(path).exists():  # a resumed run no longer needs it
        return []
    from gpt_lightning.convert.init_from import (
        read_architecture,
    )  # takes seconds to import, and few command lines need it

    theirs = read_architecture(path)
    theirs["vocab_size"] = f"${{vocab_size_at_least:{theirs['vocab_size']}}}"
    return [f"model.{name}={value}" for name, value in theirs.items() if f"model.{name}" not in typed]
