"""plan.py mix_design=20: choose the mixes to train for a mix law, and write each as a choice of `curriculum`."""

import math
import shlex
from collections.abc import Mapping
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from rich.table import Table

from gpt_lightning.console import Console, say
from mix_laws import design_mixes, write_constant_mix
from mix_laws.simplex import caps_array, weights_by_source
from running.config import compose
from running.config.run_config import RunConfig
from running.training.prepared_data import source_sizes

_EPOCHS = 4.0  # more repetitions of a source give less (arXiv:2305.16264)

# settings on the command line of plan.py that the training runs do not get
_NOT_THEIRS = (
    "mix_design=",
    "plan.",
    "sweep_dir=",
    "curriculum=",
    "seed=",
)


def propose_mixes(config: RunConfig, n: int) -> dict[str, dict[str, float]]:
    """Choose the mixes, write each mix as a choice of `curriculum`, and print the mixes and the command that trains all
    of them.

    Args:
        config: config of the run to train with each mix. The sources are the sources of the run's curriculum and of its
            mixes. No source is drawn for more epochs than the smallest `curriculum.max_epochs`, or four.
        n: number of mixes.

    Returns:
        Name of the choice -> weights.

    Raises:
        ValueError: there is only one source, `n` is too small for a mix law, or the sources are too small.
    """
    curriculum = config.curriculum
    sources = list(dict.fromkeys([*curriculum.sources, *(name for mix in curriculum.mixes.values() for name in mix)]))
    if len(sources) < 2:
        raise ValueError(f"mix_design needs several sources, but the curriculum has only {', '.join(sources)}.")
    sizes = {name: size.sequences for name, size in source_sizes(config, sources).items()}
    total = config.max_steps * config.global_batch
    most = min([_EPOCHS, *(limit for limit in curriculum.max_epochs.values())])
    caps = caps_array(sizes, total, most)
    mixes = design_mixes(n, caps)
    width = len(str(n - 1))
    named = {f"mix_{k:0{width}}": weights_by_source(sources, mix, caps) for k, mix in enumerate(mixes)}
    folder = config.runs_dir / f"{config.name}_design"
    for path in (folder / "curriculum").glob("mix_*.yaml"):  # left by an earlier design with more mixes
        path.unlink()
    for name, weights in named.items():
        remark = f"One of {n} mixes, chosen so that their runs determine a mix law best."
        write_constant_mix(folder, name, weights, remarks=[remark], max_epochs=None)
    _print(named, dict(zip(sources, caps.tolist(), strict=True)), most)
    _print_commands(config, folder, list(named))
    return named


def _print(mixes: Mapping[str, Mapping[str, float]], caps: Mapping[str, float], most: float) -> None:
    table = Table("% of the sequences", *caps, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, weights in mixes.items():
        table.add_row(name, *(f"{100 * weights[source]:.1f}" for source in caps))
    limits = (f"{100 * math.floor(cap * 1000) / 1000:.1f}" if cap < 1 else "" for cap in caps.values())
    table.add_row(f"at most, {most:g} epochs", *limits)
    Console(width=max(80, 26 + 14 * len(caps))).print(table)


def _print_commands(config: RunConfig, folder: Path, names: list[str]) -> None:
    """Print the commands that train the mixes, measure the noise between runs of one mix, and fit a law."""
    sweep = config.runs_dir / f"{config.name}_mixes"
    typed = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    own = [setting for setting in typed if not setting.startswith(_NOT_THEIRS)]
    train = f"python train.py -m {shlex.join(['--config-dir', str(folder), *own, f'sweep_dir={sweep}'])}"
    say(
        f"\nwritten to {folder / 'curriculum'}. To train them (the first one also with two more seeds, for the noise) "
        "and fit a law:"
    )
    say(f"{train} curriculum={','.join(names)}")
    say(f"{train} curriculum={names[0]} seed={config.seed + 1},{config.seed + 2}")
    say(f"python report.py {compose.typed('mix_law', sweep)}")
