"""Check whether Triton can compile kernels on this machine."""

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
    """Return why Triton cannot compile for this device, and what to install, as a clause; None if Triton can compile.

    Triton compiles its launchers as C extensions of Python, so it needs a C compiler and Python's headers at run time.
    """
    device = torch.device(device)
    if device.type != "cuda":
        return f"the device is {device.type}, not cuda"
    if importlib.util.find_spec("triton") is None:
        return "the package triton is missing: install it (pip install triton)"
    if (capability := torch.cuda.get_device_capability(device)) < _OLDEST:
        return f"Triton needs compute capability 7.0, and the device has {'.'.join(map(str, capability))}"
    # triton/runtime/build.py looks for the compiler and the headers in the same way
    compilers = [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"]
    if not any(map(shutil.which, compilers)):
        return f"Triton needs a C compiler ({' or '.join(compilers)}): install one, or set the environment variable CC"
    scheme = sysconfig.get_default_scheme()
    headers = Path(sysconfig.get_paths(scheme="posix_prefix" if scheme == "posix_local" else scheme)["include"])
    if not (headers / "Python.h").is_file():
        return f"Triton needs the Python headers ({headers / 'Python.h'}): install them (python3-dev)"
    return None
