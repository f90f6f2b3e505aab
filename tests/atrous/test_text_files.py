"""Text in the codecs of users' editors and shells."""

from __future__ import annotations

import pytest

from atrous.text_files import decode_text

TEXT = "road\r\nStraße\r\n"


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_text_is_decoded_without_its_mark(codec: str) -> None:
    assert decode_text(TEXT.encode(codec)) == TEXT


@pytest.mark.parametrize("data", [b"", b"a", b"ab\ncd"])
def test_short_text(data: bytes) -> None:
    assert decode_text(data) == data.decode()


def test_other_codecs_are_an_error() -> None:
    with pytest.raises(UnicodeDecodeError):
        decode_text(TEXT.encode("latin-1"))
