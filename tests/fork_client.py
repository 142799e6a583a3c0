"""subprocess for the tests: our programs are started as forks of fork_server.py, which has already done the imports.

`install` replaces `subprocess.Popen` for all callers, also inside the product. A command still gets its own interpreter
if it is `python -c …`, or if it sets a variable that is read when a library is imported.
"""

import atexit
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tests import fork_server

_ROOT = fork_server.ROOT
_READ_AT_IMPORT = ("CUDA", "HF_", "LANG", "LC_", "MPL", "PYTHONI", "PYTHONU", "PYTHONW", "TORCHI", "TORCH_", "TRITON")
Process = subprocess.Popen
"""The original Popen, which starts every program with its own interpreter."""
_PATIENCE = 120.0  # seconds to start a fork


def install() -> None:
    if sys.platform == "linux":
        subprocess.Popen = Forked  # type: ignore[misc]


class Forked(subprocess.Popen):  # type: ignore[type-arg]
    """Popen that starts our programs as forks of the server."""

    _server: "_Server | None" = None  # the server that forked the process; None: an ordinary process

    def __init__(self, args: Any, *more: Any, **options: Any) -> None:
        arguments = fork_server.arguments_of(args, options.get("cwd"))
        environment = dict(options.get("env") or os.environ)
        if arguments and options.get("preexec_fn") is None and _at_import(environment) == _at_import(os.environ):
            self._server = _server()
            self._request = {
                "arguments": arguments,
                "environment": environment,
                "folder": str(options.get("cwd") or Path.cwd()),
                "session": options.get("start_new_session", False),
            }
        super().__init__(args, *more, **options)

    def _execute_child(self, *args: Any) -> None:
        if self._server is None:
            super()._execute_child(*args)  # type: ignore[misc]
            return
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite = args[10:16]
        files = [number if file == -1 else file for number, file in enumerate((p2cread, c2pwrite, errwrite))]
        self.pid = self._server.fork(self._request, files)
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]

    def _internal_poll(self, *args: Any, **options: Any) -> int | None:
        if self._server is None:
            code: int | None = super()._internal_poll(*args, **options)  # type: ignore[misc]
            return code
        if self.returncode is None and self._child_created:
            self.returncode = self._server.code_of(self.pid, timeout=0)
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        if self._server is None:
            code: int = super()._wait(timeout)  # type: ignore[misc]
            return code
        if self.returncode is None:
            self.returncode = self._server.code_of(self.pid, timeout=timeout)
        if self.returncode is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode


class _Server:
    """The process of fork_server.py. It ends with this process, and its forks with it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = Process(
                [sys.executable, "-m", "tests.fork_server", str(theirs.fileno())],
                cwd=_ROOT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},  # no threads, because it will be forked
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        atexit.register(self._close)
        self._lock = threading.Lock()
        self._codes: dict[int, int] = {}

    def fork(self, request: Mapping[str, Any], files: Sequence[int]) -> int:
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(request).encode()], files)
            while True:
                answer = self._next(_PATIENCE)
                assert answer, "the fork server does not answer"
                if "born" in answer:
                    self._codes.pop(answer["born"], None)  # left by an earlier process with the same id
                    return answer["born"]

    def code_of(self, pid: int, *, timeout: float | None) -> int | None:
        """The exit code as in `subprocess`: a code, or minus the signal; None: the process is still running."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._lock:  # held briefly: another thread may wait for another process
                left = 0.05 if end is None else min(0.05, max(0.0, end - time.monotonic()))
                while pid not in self._codes and self._next(left):
                    pass
                if pid in self._codes:
                    return self._codes[pid]
            if end is not None and time.monotonic() >= end:
                return None

    def _close(self) -> None:
        self._socket.close()
        self._process.wait(_PATIENCE)

    def _next(self, timeout: float) -> dict[str, int] | None:
        """The server's next answer. Reports of ended processes are also stored."""
        self._socket.settimeout(timeout)  # 0: return at once
        try:
            message = self._socket.recv(fork_server.LONGEST)
        except (TimeoutError, BlockingIOError):
            return None
        assert message, "the fork server is gone"
        answer: dict[str, int] = json.loads(message)
        if "dead" in answer:
            self._codes[answer["dead"]] = os.waitstatus_to_exitcode(answer["status"])
        return answer


@cache
def _server() -> _Server:
    return _Server()


def _at_import(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_READ_AT_IMPORT)}
