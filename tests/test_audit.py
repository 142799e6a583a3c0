"""The audit of the installed packages says that there is a vulnerability, that there is none, or that nobody could be asked."""

import importlib.util
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch

from tests.conftest import ROOT

_spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
assert _spec is not None
assert _spec.loader is not None
audit = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(audit)


@contextmanager
def service(status: int, content: object, *, when: threading.Event | None = None) -> Iterator[str]:
    """The address of a service that gives one answer, at once or when it is told to."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if when:
                when.wait(60)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    ("status", "content", "reason"),
    [
        (200, {"vulnerabilities": [{"id": "CVE-2019-11324"}]}, None),
        (200, {"vulnerabilities": []}, "does not report vulnerabilities, so it may be a mirror"),
        (200, {"files": []}, "does not report vulnerabilities, so it may be a mirror"),
        (200, ["files"], "could not be queried for vulnerabilities"),
        (404, {}, "could not be queried for vulnerabilities (HTTP Error 404: Not Found)"),
    ],
)
def test_only_who_knows_a_vulnerability_is_asked_for_others(status: int, content: object, reason: str | None) -> None:
    with service(status, content) as address:
        why = audit.unreachable(address)
    assert (why is None) if reason is None else (reason in why)


def test_who_does_not_answer_costs_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_SECONDS", 0.2)
    assert "could not be queried" in audit.unreachable("http://127.0.0.1:9")
    asked_enough = threading.Event()
    with service(200, {}, when=asked_enough) as address:
        why = audit.unreachable(address)
        assert "did not answer" in why or "timed out" in why
        asked_enough.set()


def test_every_package_is_asked_about_by_the_version_that_is_published() -> None:
    packages = dict(line.split("==") for line in audit.installed())
    assert packages["torch"] == torch.__version__.split("+")[0]
    assert {"lightning", "numpy", "pytest"} < set(packages)
    assert "gpt-lightning" not in packages


def test_the_report_is_read() -> None:
    """As pip-audit 2.10 writes it."""
    report = {
        "dependencies": [
            {"name": "idna", "version": "3.20", "vulns": []},
            {
                "name": "torch",
                "skip_reason": "Dependency not found on PyPI and could not be audited: torch (2.13.0+cpu)",
            },
            {
                "name": "urllib3",
                "version": "1.24",
                "vulns": [
                    {"id": "CVE-2019-11324", "fix_versions": ["1.24.2"], "aliases": ["GHSA-mh33-7rrq-662w"]},
                    {"id": "PYSEC-0", "fix_versions": [], "aliases": []},
                ],
            },
        ],
        "fixes": [],
    }
    assert audit.unknown(report) == ["torch"]
    assert audit.vulnerable(report) == [
        "urllib3 1.24: CVE-2019-11324, fixed in 1.24.2",
        "urllib3 1.24: PYSEC-0, fixed in no version",
    ]
