#!/usr/bin/env bash
# tensorboard 2.21.0, tensorboardX 2.6.5: the table of HPARAMS has the columns of one run, and not of all.
#
# Good guess: each run says its hyperparameters with add_hparams, and the table has a column for each that any run has said.
# Behaviour: add_hparams also writes down what columns there are; TensorBoard takes one run's word for all runs. What another
# run alone has, such as the momentum of another optimizer, has no column and cannot be shown. Where no run has written the columns
# down, and each has only its own values, TensorBoard finds them itself: those of all runs, and whether they differ.
# Output seen:
#   as add_hparams writes them: lr, momentum
#   values alone: beta, lr (differs), momentum
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorboard==2.21.0 tensorboardX==2.6.5 numpy==2.4.6 setuptools==80.9.0
"$folder/venv/bin/python" - "$folder" <<'PYTHON' 2>/dev/null
import sys
from pathlib import Path

from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams.backend_context import Context
from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

RUNS = {"a": {"lr": 0.1, "beta": 0.9}, "b": {"lr": 0.2, "momentum": 0.95}}


def columns(folder: Path) -> str:
    provider = MultiplexerDataProvider(EventMultiplexer().AddRunsFromDirectory(str(folder)).Reload(), str(folder))
    table, request = Context(TBContext(data_provider=provider)), RequestContext()
    found = table.experiment_from_metadata(
        request, "", True, table.hparams_metadata(request, ""), table.hparams_from_data_provider(request, "", None)
    )
    return ", ".join(sorted(column.name + " (differs)" * column.differs for column in found.hparam_infos))


whole, values = Path(sys.argv[1]) / "whole", Path(sys.argv[1]) / "values"
for name, settings in RUNS.items():
    with SummaryWriter(str(whole / name)) as writer:
        writer.add_hparams(settings, {"loss": 1.0}, name=".")
    with SummaryWriter(str(values / name)) as writer:
        _, start, _ = hparams(settings, {"loss": 1.0})
        writer.file_writer.add_summary(start)
        writer.add_scalar("loss", 1.0, 1)
seen = [columns(whole), columns(values)]
print(f"as add_hparams writes them: {seen[0]}\nvalues alone: {seen[1]}")
assert seen[0] in ("beta, lr", "lr, momentum"), "the behaviour has changed"
assert seen[1] == "beta, lr (differs), momentum", "the behaviour has changed"
PYTHON
