"""List the licenses of the packages that atrous and its extras install: `make licenses`.

pip resolves the newest versions for this platform, without installing them. A license that is neither permissive nor in
`EXCEPTIONS` is an error. It is what the package says of itself; a wheel may contain libraries under other licenses.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import metadata
from typing import Any

import click
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from atrous.scripts import console

#: extras of those who work on atrous, not of those who use it
DEVELOPMENT = {"test", "check", "release", "rtx-check", "cuda-check", "ray-check"}
#: name -> what stands for it in a license expression, a classifier or the field `License`
PERMISSIVE = {
    "Apache-2.0": r"\bapache",
    "MIT": r"\bmit\b",
    "BSD": r"\b(bsd|0bsd)\b",
    "BSL-1.0": r"\bbsl-1\.0\b|boost software",
    "ISC": r"\bisc\b",
    "PSF-2.0": r"\bpsf\b|python software foundation",
    "MPL-2.0": r"\bmpl\b|mozilla public",
    "HPND": r"\bhpnd\b|historical permission",
    "Zlib": r"\bzlib\b",
    "Unlicense": r"\bunlicense\b",
    "CC0": r"\bcc0\b",
}
COPYLEFT = re.compile(r"gpl|general public|affero", re.IGNORECASE)
#: packages of which PyPI has a placeholder only: NVIDIA's own index has them, under NVIDIA's license
ELSEWHERE = {"tensorrt"}
#: packages -> the license: NVIDIA's own, or that of the repository where the package states none
EXCEPTIONS = {r"nvidia-|tensorrt|cuda-|onnxruntime-ep-nv-": "NVIDIA", r"mlcommons-loadgen$": "Apache-2.0"}

Metadata = Mapping[str, Any]


@click.command()
def command() -> None:
    """Print the table; exit with 1 if a license is not allowed."""
    own = metadata("atrous")
    extras = [extra for extra in own.get_all("Provides-Extra") or () if extra not in DEVELOPMENT]
    atrous: Metadata = {"requires_dist": own.get_all("Requires-Dist") or (), "provides_extra": extras}
    report = read_report(find_requirements(atrous))
    packages: dict[str, Metadata] = {
        canonicalize_name(each["metadata"]["name"]): each["metadata"] for each in report["install"]
    }
    users = find_users({**packages, "atrous": atrous}, report["environment"])
    licenses = {name: name_license(packages[name]) for name in users}
    rows = [(name, packages[name]["version"], licenses[name] or "?", ", ".join(users[name])) for name in sorted(users)]
    console.print_table(("package", "version", "license", "brought by"), rows)
    wrong = [name for name in sorted(users) if licenses[name] is None]
    if wrong:
        raise click.ClickException(f"not on the list of licenses: {', '.join(wrong)}")


def find_requirements(atrous: Metadata) -> list[str]:
    """The requirements of the core and of the extras on this platform, without `ELSEWHERE`."""
    found = set()
    for requirement in map(Requirement, atrous["requires_dist"]):
        marker = requirement.marker
        if requirement.name not in ELSEWHERE and (
            marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *atrous["provides_extra"]))
        ):
            requirement.marker = None
            found.add(str(requirement))
    return sorted(found)


def read_report(requirements: list[str]) -> dict[str, Any]:
    """The report of pip on what it would install."""
    words = ("install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-", *requirements)
    found: dict[str, Any] = json.loads(subprocess.check_output([sys.executable, "-m", "pip", *words]))
    return found


def find_users(packages: Mapping[str, Metadata], environment: Mapping[str, str]) -> dict[str, list[str]]:
    """Package -> the extras of atrous that bring it; "core" alone for those of every installation."""
    users: dict[str, list[str]] = {}
    for extra in ("", *packages["atrous"]["provides_extra"]):
        seen, todo = set(), [("atrous", extra)]
        while todo:
            name, wanted = todo.pop()
            if name not in packages or (name, wanted) in seen:
                continue
            seen.add((name, wanted))
            for text in packages[name].get("requires_dist", ()):
                requirement = Requirement(text)
                if requirement.marker is None or requirement.marker.evaluate({**environment, "extra": wanted}):
                    todo += [(canonicalize_name(requirement.name), each) for each in ("", *requirement.extras)]
        for name in sorted({name for name, _ in seen} - {"atrous"}):
            if users.setdefault(name, []) != ["core"]:
                users[name].append(extra or "core")
    return users


def name_license(package: Metadata) -> str | None:
    """The license in short, or None if it is not allowed; the expression counts before classifiers and free text."""
    classifiers = [text for text in package.get("classifier", ()) if text.startswith("License ::")]
    text = package.get("license_expression") or "; ".join(classifiers) or package.get("license", "")[:200]
    if COPYLEFT.search(text):
        return None
    parts = [
        [short for short, pattern in PERMISSIVE.items() if re.search(pattern, part.lower())]
        for part in text.split(" AND ")  # of an expression
    ]
    if not all(parts):
        name = canonicalize_name(package["name"])
        return next((short for pattern, short in EXCEPTIONS.items() if re.match(pattern, name)), None)
    return " and ".join(dict.fromkeys(short for part in parts for short in part))


if __name__ == "__main__":
    command()
