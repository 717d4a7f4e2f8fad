"""What is refused everywhere alike: questions a target cannot answer, numbers that are none, text that is none."""

from __future__ import annotations


class Unsupported(TypeError):
    """The target cannot answer this kind of question; the message names the ones it can."""


class NonFinite(ValueError):
    """NaN or infinity where a number was needed."""


def check_text(text: str, where: str) -> None:
    """Check that text can be written to files and pictures.

    Raises:
        ValueError: it holds half a character, as text does that was cut between the two or read from bytes.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        around = text[max(0, error.start - 20) : error.end]
        raise ValueError(
            f"{where} must be Unicode text, got {text[error.start]!r} in {around!r}: "
            "half a character; put text.encode('utf-8', 'replace').decode() in its place"
        ) from error
