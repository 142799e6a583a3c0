"""`init_from`: a run takes the architecture of its initial weights. Settings on the command line have priority."""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser


def init_from_settings(settings: Sequence[str]) -> list[str]:
    """Settings that the model at `init_from` adds to a command line.

    A setting of the model that is typed is not added; with `model=…`, none are. If typed settings contradict the
    weights, the error comes when the weights are read. In a multirun over `init_from`, each job calls this itself.

    Args:
        settings: typed settings, `key=value` each.

    Returns:
        Further settings, `model.<name>=<value>` each.

    Raises:
        ValueError: `init_from` is not a model, or the model is damaged.
    """
    typed = {o.key_or_group: o for o in OverridesParser.create().parse_overrides(list(settings))}
    given = typed.get("init_from")
    if given is None or given.is_sweep_override() or "model" in typed:
        return []
    path = given.value()
    if not isinstance(path, str) or not Path(path).exists():  # a resumed run no longer needs it
        return []
    from gpt_lightning.convert.init_from import read_architecture  # slow to import, and rarely needed

    theirs = read_architecture(path)
    theirs["vocab_size"] = f"${{vocab_size_at_least:{theirs['vocab_size']}}}"
    return [f"model.{name}={value}" for name, value in theirs.items() if f"model.{name}" not in typed]
