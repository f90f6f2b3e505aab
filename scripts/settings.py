"""Defaults from the environment and from a file: `ATROUS_THREADS`, `ATROUS_BACKEND`, `ATROUS_CACHE`, config.ini.

Order: the command line, `ATROUS_<COMMAND>_<OPTION>`, `ATROUS_<OPTION>`, the file's section of the command, its section
`[atrous]`, the command's own default. The file is `$ATROUS_CONFIG`, else `atrous/config.ini` in `$XDG_CONFIG_HOME` or
`~/.config`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import click

from ..text_files import decode_text

#: options that `[atrous]` and `ATROUS_<OPTION>` set for all commands that have them
SHARED = ("threads", "backend", "device")
_MAIN = "atrous"
_CACHE = "cache"
_MAX_BYTES = 1 << 16


def find_file() -> Path | None:
    """The path of the file, None if there is none; UsageError if `ATROUS_CONFIG` names a missing one."""
    given = os.environ.get("ATROUS_CONFIG")
    if given is not None:
        if given and not Path(given).is_file():
            raise click.UsageError(f"ATROUS_CONFIG={given}: there is no such file")
        return Path(given) if given else None
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    path = Path(home, "atrous", "config.ini")
    return path if path.is_file() else None


def read_settings() -> dict[str, dict[str, str]]:
    """The sections of the file, {} without one; a cache folder is put into the environment, where it is read.

    Raises:
        UsageError: if the file cannot be read, or has an unknown key in `[atrous]`.
    """
    path = find_file()
    if path is None:
        return {}
    import configparser

    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise click.UsageError(f"{path}: is larger than {_MAX_BYTES} bytes")
        parser.read_string(decode_text(path.read_bytes()))
    except (OSError, ValueError, configparser.Error) as error:
        raise click.UsageError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
    sections = {name: dict(parser[name]) for name in parser.sections()}
    cache = sections.get(_MAIN, {}).pop(_CACHE, None)
    if cache is not None:
        os.environ.setdefault("ATROUS_CACHE", os.path.expanduser(cache))
    unknown = sorted(sections.get(_MAIN, {}).keys() - set(SHARED))
    if unknown:
        known = ", ".join((*SHARED, _CACHE))
        raise click.UsageError(f'{path}: [{_MAIN}] has no setting "{unknown[0]}"; it has {known}')
    return sections


def choose_defaults(command: click.Command, name: str, sections: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The defaults of a command's options by parameter name.

    Raises:
        UsageError: if the command's section names an option that it does not have.
    """
    shared = {**sections.get(_MAIN, {}), **_read_environment()}
    options = {
        option.lstrip("-"): parameter.name
        for parameter in command.params
        if isinstance(parameter, click.Option) and parameter.name is not None
        for option in parameter.opts
    }
    own = sections.get(name, {})
    unknown = sorted(own.keys() - options.keys())
    if unknown:
        raise click.UsageError(f'{find_file()}: [{name}] has no option "{unknown[0]}"')
    return {options[key]: value for key, value in {**shared, **own}.items() if key in options}


def _read_environment() -> dict[str, str]:
    values = {option: os.environ.get(f"ATROUS_{option.upper()}") for option in SHARED}
    return {option: value for option, value in values.items() if value}
