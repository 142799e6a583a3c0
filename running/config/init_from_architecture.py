"""`init_from`: a training takes the architecture of the weights that it begins with; what is typed goes before it."""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser


def init_from_settings(settings: Sequence[str]) -> list[str]:
    """What the model that `init_from` names adds to the settings of a command line.

    A setting of the model that is typed is left out, and all of them are where `model=…` is: what is typed and contradicts the
    weights is refused when they are read. Of a multirun over `init_from` each job does this for itself.

    Raises:
        ValueError: what `init_from` names is no model, or is damaged.
    """
    typed = {o.key_or_group: o for o in OverridesParser.create().parse_overrides(list(settings))}
    given = typed.get("init_from")
    if given is None or given.is_sweep_override() or "model" in typed:
        return []
    path = given.value()
    if not isinstance(path, str) or not Path(path).exists():  # which a run that goes on does not need any more
        return []
    from gpt_lightning.convert.init_from import read_architecture  # seconds of imports, for few command lines

    theirs = read_architecture(path)
    theirs["vocab_size"] = f"${{vocab_size_at_least:{theirs['vocab_size']}}}"
    return [f"model.{name}={value}" for name, value in theirs.items() if f"model.{name}" not in typed]
