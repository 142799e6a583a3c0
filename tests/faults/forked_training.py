"""A victim: `python train.py …` once Hydra has composed its config, with faults that act from inside.

`python -m tests.faults.forked_training '{"config": {…}, "faults": [[name, {…}], …]}'`: the tests' fork server starts it without
the six seconds of imports. It also saves the second of composing, and ends as the program does, with its real exit code.
"""

import faulthandler
import json
import signal
import sys
from typing import Any

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

import command_runner
from tests.faults import fault_injection

if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    faulthandler.register(signal.SIGUSR2)  # where it hangs, if it does
    for name, options in asked["faults"]:
        getattr(fault_injection, name)(**options)
    this: Any = sys.modules["__main__"]
    this.__spec__ = None  # processes that it starts anew need nothing of this module
    vars(this).pop("__file__", None)
    HydraConfig.instance().set_config(OmegaConf.create({"hydra": HydraConf(mode=RunMode.RUN)}))
    command_runner.run_command("running.commands.train:train", OmegaConf.create(asked["config"]))
