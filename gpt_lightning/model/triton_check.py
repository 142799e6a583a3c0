"""What keeps Triton from compiling kernels on this machine."""

import importlib.util
import os
import shutil
import sysconfig
from functools import cache
from pathlib import Path

import torch

_OLDEST = (7, 0)  # compute capability


@cache
def why_triton_is_unavailable(device: torch.device | str) -> str | None:
    """Why Triton cannot compile for this device, and what to install, as a clause; None: it can.

    Triton compiles its launchers as C extensions of Python, so it needs a C compiler and Python's headers at run time.
    """
    device = torch.device(device)
    if device.type != "cuda":
        return f"the device is {device.type}, not cuda"
    if importlib.util.find_spec("triton") is None:
        return "the package triton is missing: install it (pip install triton)"
    if (capability := torch.cuda.get_device_capability(device)) < _OLDEST:
        return f"compute capability {'.'.join(map(str, capability))} is too old for Triton, which needs 7.0"
    # the compiler and the folder of headers are found as triton/runtime/build.py finds them
    compilers = [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"]
    if not any(map(shutil.which, compilers)):
        return f"Triton needs a C compiler, and there is no {' or '.join(compilers)}: install one, or name it in CC"
    scheme = sysconfig.get_default_scheme()
    headers = Path(sysconfig.get_paths(scheme="posix_prefix" if scheme == "posix_local" else scheme)["include"])
    if not (headers / "Python.h").is_file():
        return f"Triton needs Python's headers, and there is no {headers / 'Python.h'}: install them (python3-dev)"
    return None
