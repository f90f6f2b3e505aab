"""Untrusted text in messages."""

from __future__ import annotations


def clean(text: str, limit: int = 400) -> str:
    """Text of a server or an archive as one line without control and bidirectional characters."""
    line = " ".join(text[: 4 * limit].split())[:limit]
    return "".join(character if character.isprintable() else "\ufffd" for character in line)
