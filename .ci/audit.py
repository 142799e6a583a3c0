"""make audit: has a package of this environment a known vulnerability? Where nobody can be asked, a line says so.

pip-audit itself exits with 1 for a vulnerability and for a lost connection alike, and calls an environment clean whose packages a
mirror knows nothing of. So the service is first asked for a vulnerability that it must know.
"""

import json
import subprocess
import sys
import threading
import urllib.request
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

PIP_AUDIT = "pip-audit==2.10.1"  # in an environment of its own below this one: its dependencies are none of ours
SERVICE = "https://pypi.org"
_KNOWN = "pypi/urllib3/1.24/json"  # CVE-2019-11324, among others
_SECONDS = 4.0


def unreachable(service: str) -> str | None:
    """Why a service cannot be asked, within seconds; None: it can."""
    answer: list[str | None] = [f"{service} does not answer within {_SECONDS:g} seconds"]

    def ask() -> None:
        try:
            with urllib.request.urlopen(f"{service}/{_KNOWN}", timeout=_SECONDS) as response:
                known = json.load(response).get("vulnerabilities")
            answer[0] = None if known else f"{service} knows of no vulnerabilities, as a mirror does"
        except (OSError, ValueError, AttributeError) as error:
            answer[0] = f"{service} cannot be asked for vulnerabilities ({error})"

    thread = threading.Thread(target=ask, daemon=True)  # looking up a name has no time limit of its own
    thread.start()
    thread.join(_SECONDS)
    return answer[0]


def installed() -> list[str]:
    """The packages of this environment as requirements; torch 2.13.0+cpu is known as torch 2.13.0."""
    versions = {d.name: d.version.partition("+")[0] for d in distributions() if d.name != "gpt-lightning"}
    return [f"{name}=={version}" for name, version in sorted(versions.items())]


def vulnerable(report: dict[str, Any]) -> list[str]:
    """What pip-audit found, a line for each."""
    return [
        f"{package['name']} {package['version']}: {found['id']}, mended in {', '.join(found['fix_versions']) or 'no version'}"
        for package in report["dependencies"]
        for found in package.get("vulns", [])
    ]


def unknown(report: dict[str, Any]) -> list[str]:
    """The packages that pip-audit could not ask about."""
    return [package["name"] for package in report["dependencies"] if "skip_reason" in package]


def _reported() -> dict[str, Any] | None:
    """What pip-audit says of this environment; None: it came to no end."""
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
    except ValueError:  # a connection was lost on the way
        return None
    return report


def main() -> None:
    why = unreachable(SERVICE)
    report = None if why else _reported()
    if report is None:
        print(f"audit skipped: {why or 'pip-audit came to no end'}.")
        return
    if without := unknown(report):
        print(f"audit: nothing is known of {', '.join(without)}.")
    if found := vulnerable(report):
        sys.exit("audit: packages with known vulnerabilities; raise them in constraints.txt:\n" + "\n".join(found))
    print(f"audit: no known vulnerability in {len(report['dependencies']) - len(without)} packages.")


if __name__ == "__main__":
    main()
