"""make audit: does a package of this environment have a known vulnerability?

If the service is unreachable, print a line.

pip-audit exits with 1 both for a vulnerability and for a lost connection, and reports no vulnerability for an
environment whose packages are unknown to a mirror. Therefore the service is first asked about a vulnerability that it
must know.
"""

import json
import subprocess
import sys
import threading
import urllib.request
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

PIP_AUDIT = "pip-audit==2.10.1"  # in a separate environment below this one, because of its dependencies
SERVICE = "https://pypi.org"
_KNOWN = "pypi/urllib3/1.24/json"  # CVE-2019-11324, among others
_SECONDS = 4.0


def unreachable(service: str) -> str | None:
    """Why a service cannot be queried, within a few seconds; None if it can."""
    answer: list[str | None] = [f"{service} did not answer within {_SECONDS:g} seconds"]

    def ask() -> None:
        try:
            with urllib.request.urlopen(f"{service}/{_KNOWN}", timeout=_SECONDS) as response:
                known = json.load(response).get("vulnerabilities")
            answer[0] = None if known else f"{service} does not report vulnerabilities, so it may be a mirror"
        except (OSError, ValueError, AttributeError) as error:
            answer[0] = f"{service} could not be queried for vulnerabilities ({error})"

    thread = threading.Thread(target=ask, daemon=True)  # a DNS lookup has no timeout
    thread.start()
    thread.join(_SECONDS)
    return answer[0]


def installed() -> list[str]:
    """The packages of this environment as requirements. The service knows torch 2.13.0+cpu as torch 2.13.0."""
    versions = {d.name: d.version.partition("+")[0] for d in distributions() if d.name != "gpt-lightning"}
    return [f"{name}=={version}" for name, version in sorted(versions.items())]


def vulnerable(report: dict[str, Any]) -> list[str]:
    """One line per vulnerability that pip-audit found."""
    return [
        f"{package['name']} {package['version']}: {found['id']}, fixed in "
        f"{', '.join(found['fix_versions']) or 'no version'}"
        for package in report["dependencies"]
        for found in package.get("vulns", [])
    ]


def unknown(report: dict[str, Any]) -> list[str]:
    """The packages that pip-audit could not check."""
    return [package["name"] for package in report["dependencies"] if "skip_reason" in package]


def _reported() -> dict[str, Any] | None:
    """pip-audit's report on this environment; None if it failed."""
    auditor = Path(sys.prefix) / "audit"
    python = str(auditor / "bin" / "python")
    if not Path(python).exists():
        subprocess.run([sys.executable, "-m", "venv", auditor], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PIP_AUDIT]
    if subprocess.run(install, check=False).returncode:
        return None
    packages = Path(auditor) / "packages.txt"
    packages.write_text("\n".join(installed()) + "\n")
    options = ["--format", "json", "--progress-spinner", "off", "--disable-pip", "--no-deps", "-r", str(packages)]
    answer = subprocess.run([python, "-m", "pip_audit", *options], capture_output=True, check=False)
    try:
        report: dict[str, Any] = json.loads(answer.stdout)
    except ValueError:  # the connection was lost
        return None
    return report


def main() -> None:
    why = unreachable(SERVICE)
    report = None if why else _reported()
    if report is None:
        print(f"audit skipped: {why or 'pip-audit failed'}.")
        return
    if without := unknown(report):
        print(f"audit: no information about {', '.join(without)}.")
    if found := vulnerable(report):
        sys.exit("audit: packages with known vulnerabilities; raise them in constraints.txt:\n" + "\n".join(found))
    print(f"audit: no known vulnerability in {len(report['dependencies']) - len(without)} packages.")


if __name__ == "__main__":
    main()
