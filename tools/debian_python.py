"""Unpack Debian's Python for arm64 into a folder: `python -m tools.debian_python FOLDER`.

FOLDER/usr/bin/python is then an interpreter of this machine: it runs Python for arm64 in qemu, and what that starts as
`sys.executable`, environments that link to it, and programs for this machine all work. So pip, uv and CMake see a
Python for aarch64. apt downloads the packages by lists of FOLDER's own; the system's stay as they are.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import click

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SOURCE = f"deb [signed-by={KEYRING}] http://deb.debian.org/debian trixie main\n"
VERSION = "3.13"
#: the interpreter and its headers, and the library that most wheels with C++ in them load
PACKAGES = (f"python{VERSION}", f"libpython{VERSION}-dev", "libstdc++6")
#: what this and `make cross-wheel` run or read, and the package of each
NEEDED = {
    "apt-get": "apt",
    "dpkg": "dpkg",
    "qemu-aarch64": "qemu-user",
    "aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu",
    str(KEYRING): "debian-archive-keyring",
}


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, resolve_path=True))
def command(folder: Path) -> None:
    """Unpack Debian's Python for arm64 into FOLDER, which is emptied first."""
    missing = [package for needed, package in NEEDED.items() if not (shutil.which(needed) or Path(needed).is_file())]
    if missing:
        raise click.ClickException(f"missing packages of Debian or Ubuntu: apt-get install {' '.join(missing)}")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        for package in download_packages(folder / "apt"):
            subprocess.run(["dpkg", "-x", package, folder], check=True)
    except subprocess.CalledProcessError as error:
        failed = shlex.join(map(str, error.cmd))
        raise click.ClickException(f"{failed} failed; check that deb.debian.org is reachable") from error
    (folder / "lib").symlink_to("usr/lib")  # where the loader's absolute name leads
    launcher = folder / "usr" / "bin" / "python"
    launcher.write_text(write_launcher(folder), encoding="utf-8")
    launcher.chmod(0o755)
    subprocess.run([launcher, "-c", "import platform; assert platform.machine() == 'aarch64'"], check=True)


def download_packages(state: Path) -> list[Path]:
    """Download the packages and all that they depend on; `state` gets apt's lists. Raises CalledProcessError."""
    archives = state / "archives"
    for part in (archives, state / "lists"):
        (part / "partial").mkdir(parents=True)
    (state / "sources.list").write_text(SOURCE, encoding="utf-8")
    (state / "status").touch()  # nothing is installed
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Update::Error-Mode": "any",  # else a mirror out of reach is a warning
        "Dir::Etc::SourceList": state / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State": state,
        "Dir::State::Status": state / "status",
        "Dir::Cache": state,
    }
    apt = ["apt-get", "-qq", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    subprocess.run([*apt, "update"], check=True)
    subprocess.run([*apt, "install", "--download-only", "--no-install-recommends", *PACKAGES], check=True)
    return sorted(archives.glob("*.deb"))


def write_launcher(root: Path) -> str:
    """A shell script that runs the Python under `root` in qemu, by the name that the script was started by.

    Python finds its environment (`pyvenv.cfg`) and `sys.executable` by that name, so both lead to the script.
    """
    place = shlex.quote(str(root))
    return f'#!/bin/sh\nexec qemu-aarch64 -L {place} -0 "$0" {place}/usr/bin/python{VERSION} "$@"\n'


if __name__ == "__main__":
    command()
