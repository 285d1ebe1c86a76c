"""Text for spreadsheets, which run what looks like a formula: blanks keep it text. Pure.

Also behind a separator or a line break: where the decimal sign is a comma, files are cut at semicolons,
even within quotes that do not stand around the whole of such a cell.
"""

import re

# and their full-width forms, which some spreadsheets take for the same
_SIGN = "=+\\-@\uff1d\uff0b\uff0d\uff20"
_FIRST = re.compile(rf"[{_SIGN}\t\r\n]")
_BEHIND = re.compile(rf"([;\t\r\n])(?=\s*[{_SIGN}])")
_BLANKS = re.compile(rf"([;\t\r\n]) (?=\s*[{_SIGN}])")


def guarded(text: str) -> str:
    """With a blank before each formula."""
    text = _BEHIND.sub(r"\1 ", text)
    return f" {text}" if _FIRST.match(text) else text


def unguarded(text: str) -> str:
    """What was guarded, as it was before, without blanks at its ends."""
    return _BLANKS.sub(r"\1", text.strip())
