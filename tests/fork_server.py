"""A process that has imported what our programs import. Whenever one of them is to be started, it forks itself instead.

A fork behaves like `python train.py …`: it gets the same arguments, environment, folder and files, runs the program as
`__main__`, and ends with its exit code. It saves six seconds of imports. If it starts our programs itself (jobs and
ranks), these are its own forks and children.

`python -m tests.fork_server <socket>`: requests and answers are JSON messages, and a request carries the three standard
files:

    {"arguments": ["train.py", …], "environment": {…}, "folder": …, "session": bool}    ->    {"born": pid}
                                                                    later    {"dead": pid, "status": as of waitpid}
"""

import atexit
import gc
import importlib
import json
import logging
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import numpy as np

LONGEST = 200_000  # bytes of a message
ROOT = Path(__file__).resolve().parent.parent
_PROGRAMS = ("convert", "evaluate", "generate", "plan", "prepare", "report", "train", "verify")
_MODULES = ("tests.", "torch.distributed.run", "submitit.", "running.evaluation.lm_eval_harness")
_IMPORTED = (
    *(f"running.commands.{program}" for program in _PROGRAMS),
    # imported by these only after their checks
    *(
        f"running.evaluation.{module}"
        for module in ("chat_repl", "convert_model", "evaluate_model", "model_text_generator")
    ),
    "running.sweeps.propose_mixes",
    "running.training.callback_builders",
    "analysis.comparison",
    "analysis.plan_plot",
    "mix_laws",
    "running.training.run_training",
    "analysis.comparison.sweep_job_table",
    "torch.distributed.launcher.api",
)


def arguments_of(command: Any, folder: Any = None) -> list[str] | None:
    """The arguments of Python in a command that starts one of our programs; None if it starts something else.

    Scripts given with -c get their own interpreter.
    """
    if not isinstance(command, (list, tuple)) or len(command) < 2 or command[0] != sys.executable:
        return None
    arguments = [str(argument) for argument in command[1:] if argument != "-u"]
    if arguments[0] == "-m":
        return arguments if arguments[1].startswith(_MODULES) else None
    program = Path(folder or Path.cwd(), arguments[0])
    return arguments if program.parent == ROOT and program.stem in _PROGRAMS else None


class Forking(subprocess.Popen):  # type: ignore[type-arg]
    """In a fork: Popen that starts our programs as further forks, and as children like any other."""

    def __init__(self, args: Any, *more: Any, **options: Any) -> None:
        if arguments := arguments_of(args, options.get("cwd")):
            first = options.get("preexec_fn") or (lambda: None)
            environment, kept = options.get("env") or dict(os.environ), options.get("pass_fds", ())
            # the fork never executes the command
            options["preexec_fn"] = lambda: (first(), _become(arguments, environment, kept))
        super().__init__(args, *more, **options)


def _serve(server: socket.socket) -> Callable[[], NoReturn]:
    """Fork for each request until the other end is closed. Returns only in the forks, with what they have to run."""
    wake, woken = os.pipe()
    for end in (wake, woken):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    alive: set[int] = set()
    while True:
        ready, _, _ = select.select([server, wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
            for pid in sorted(alive):
                died, status = os.waitpid(pid, os.WNOHANG)
                if died:
                    alive.remove(pid)
                    server.send(json.dumps({"dead": pid, "status": status}).encode())
        if server in ready:
            message, files, _, _ = socket.recv_fds(server, LONGEST, 3)
            if not message:
                for pid in alive:
                    os.kill(pid, signal.SIGKILL)
                os._exit(0)
            request = json.loads(message)
            pid = os.fork()
            if pid == 0:
                return partial(_begin, files, **request)
            alive.add(pid)
            for file in files:
                os.close(file)
            while request["session"] and os.getsid(pid) != pid:  # wait until it can be signalled as a group
                time.sleep(0.001)
            server.send(json.dumps({"born": pid}).encode())


def _begin(
    files: Sequence[int], *, arguments: list[str], environment: dict[str, str], folder: str, session: bool
) -> NoReturn:
    signal.set_wakeup_fd(-1)
    if session:
        os.setsid()
    for stream, file in enumerate(files):
        os.dup2(file, stream)
    os.chdir(folder)
    # the tests may run in the background with these signals ignored
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    _become(arguments, environment)


def _become(arguments: list[str], environment: dict[str, str], kept: Sequence[int] = ()) -> NoReturn:
    """Run as if Python had been started with these arguments, and exit."""
    for file in range(3, max(map(int, os.listdir("/proc/self/fd"))) + 1):  # noqa: PTH208
        if file not in kept:
            _close(file)
    os.environ.clear()
    os.environ.update(environment)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if callable(signal.getsignal(number)):  # ignored signals stay ignored
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        number = ("stdin", "stdout", "stderr").index(name)
        line_by_line = 1 if name == "stderr" or os.isatty(number) else -1
        stream = open(number, mode, buffering=line_by_line, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    _forget()
    sys.orig_argv = [sys.executable, *arguments]
    sys.path[1:1] = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    code = 1
    try:
        _run(arguments)
        code = 0
    except SystemExit as end:
        code = _exit_code(end)
    except KeyboardInterrupt:
        traceback.print_exc()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
    finally:  # as Python does at exit
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(code)


def _forget() -> None:
    """Reset the state of the process that forked."""
    import torch
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    from running.sweeps import multirun

    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = None
    multirun.here = None
    logging.disable(logging.NOTSET)
    logging.root.handlers.clear()
    logging.root.setLevel(logging.WARNING)
    random.seed()  # each process has different random numbers
    torch.seed()
    np.random.seed()  # noqa: NPY002  # the legacy global generator, which training does not seed
    n_threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    if n_threads != torch.get_num_threads():
        torch.set_num_threads(n_threads)


def _run(arguments: list[str]) -> None:
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return
    path = Path(arguments[0]).absolute()
    sys.argv = arguments
    main = sys.modules["__main__"] = ModuleType("__main__")
    main.__file__ = str(path)
    exec(compile(path.read_bytes(), path, "exec"), vars(main))


def _exit_code(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return (end.code or 0) & 0xFF
    print(end.code, file=sys.stderr)
    return 1


def _prepare() -> None:
    """Do once what each fork would do again: import, compose a config, and clean up after the imported libraries."""
    for module in _IMPORTED:
        importlib.import_module(module)
    from hydra.core.global_hydra import GlobalHydra
    from torch._dynamo.utils import dump_compile_times

    from running.config.compose import compose_config

    compose_config("train", ["experiment=quickstart"])  # fills the caches of the parsers
    GlobalHydra.instance().clear()
    # a process ends without undoing what these libraries registered
    atexit.unregister(dump_compile_times)
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False


def _close(file: int) -> None:
    with suppress(OSError):  # the file was not open
        os.close(file)


def collect_garbage_seldom() -> None:
    """Exempt everything that exists now from garbage collection, and collect the rest less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


if __name__ == "__main__":
    subprocess.Popen = Forking  # type: ignore[misc]  # before modules import it by name, as torchrun's launcher does
    _prepare()
    assert threading.active_count() == 1, "an import has started a thread, but a fork only has the thread that forks"
    collect_garbage_seldom()
    _serve(socket.socket(fileno=int(sys.argv[1])))()
