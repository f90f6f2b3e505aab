"""The licenses of a made-up report of pip."""

from __future__ import annotations

from typing import Any

import pytest

from tools.list_licenses import find_requirements, find_users, name_license

ENVIRONMENT = {"extra": "", "python_version": "3.12", "sys_platform": "linux"}


def make_package(name: str, *requires: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "version": "1", "requires_dist": list(requires), **more}


def test_users_of_each_package() -> None:
    """A dependency of the core is named once; markers and the extras of dependencies count."""
    packages = {
        package["name"]: package
        for package in (
            make_package(
                "atrous",
                "numpy",
                'torch>=2; extra == "torch"',
                'server[tls]; extra == "serve"',
                'torch>=2; extra == "convert"',
                'pytest; extra == "test"',
                'tensorrt; extra == "torch"',
                'dots; sys_platform == "nowhere"',
                provides_extra=["torch", "serve", "convert"],
            ),
            make_package("numpy"),
            make_package("torch", "numpy", 'old; python_version < "3.11"', "Jinja2"),
            make_package("jinja2", 'pretty; extra == "colors"'),
            make_package("server", 'secrets; extra == "tls"', 'dots; sys_platform == "win32"'),
            *map(make_package, ("old", "pretty", "secrets", "dots", "pytest")),
        )
    }
    assert find_requirements(packages["atrous"]) == ["numpy", "server[tls]", "torch>=2"]
    assert find_users(packages, ENVIRONMENT) == {
        "numpy": ["core"],
        "torch": ["torch", "convert"],
        "jinja2": ["torch", "convert"],
        "server": ["serve"],
        "secrets": ["serve"],
    }


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"license_expression": "Apache-2.0 AND BSD-3-Clause"}, "Apache-2.0 and BSD"),
        ({"license_expression": "MIT", "license": "GPL"}, "MIT"),
        ({"classifier": ["License :: OSI Approved :: MIT License", "Topic :: GPL"]}, "MIT"),
        ({"license": "BSD 3-Clause License\n\nCopyright"}, "BSD"),
        ({"license_expression": "GPL-3.0-or-later"}, None),
        ({"classifier": ["License :: OSI Approved :: GNU Lesser General Public License v3 (LGPLv3)"]}, None),
        ({"license_expression": "LicenseRef-Secret"}, None),
        ({"license_expression": "Apache-2.0 WITH LLVM-exception AND BSL-1.0"}, "Apache-2.0 and BSL-1.0"),
        ({"license_expression": "BUSL-1.1"}, None),
        ({"license_expression": "MIT AND LicenseRef-Secret"}, None),
        ({"license": "Copyright (c) 2020 A and B, MIT License"}, "MIT"),
        ({}, None),
    ],
)
def test_licenses(fields: dict[str, Any], expected: str | None) -> None:
    assert name_license(make_package("some", **fields)) == expected


def test_a_maker_with_a_license_of_its_own() -> None:
    assert name_license(make_package("nvidia_cudnn_cu13", license_expression="LicenseRef-NVIDIA")) == "NVIDIA"
    assert name_license(make_package("not-nvidia-things", license="Proprietary")) is None
