"""Untrusted text (names of files, layers, classes and servers) for terminals, logs and messages.

A name may hold terminal escapes, line breaks that forge a line of output, or bidirectional marks that reorder it. All
are written as backslash escapes.
"""

from __future__ import annotations


def escape(text: str, *, keep: str = "") -> str:
    """Replace every character that is not printable by its backslash escape.

    Args:
        text: any text.
        keep: characters to leave as they are, such as a line break.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode("ascii") for c in text)


def escape_lines(text: str) -> str:
    """Escape a message that may have several lines; lines after the first are indented, so that none can be forged."""
    first, *others = escape(text, keep="\n").split("\n")
    return "\n".join((first, *(line if line.startswith("  ") or not line else f"  {line}" for line in others)))


def clean(text: str, limit: int = 400) -> str:
    """Text of a server or an archive as one escaped line of about `limit` characters at most."""
    return escape(" ".join(text[: 4 * limit].split())[:limit])
