"""Errors that name what was got, what is allowed and what to try."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AnalogError(Exception):
    """Base of every error that analogpde raises on purpose."""


class InvalidInput(AnalogError, ValueError):
    """A value from the user that cannot be used.

    Args:
        what: the option, field or argument, as the user wrote it.
        got: the value received.
        allowed: the allowed range or choices, in words.
        remedy: what to try instead; empty if `allowed` says it all.
    """

    def __init__(self, what: str, got: object, allowed: str, remedy: str = "") -> None:
        self.what, self.got, self.allowed, self.remedy = what, got, allowed, remedy
        text = f"{what}: got {got!r}; allowed: {allowed}"
        super().__init__(f"{text}. {remedy}" if remedy else f"{text}.")


class ProgrammingFailed(AnalogError):
    """A block that no tile of this chip can hold as a stable circuit."""


def cause(error: BaseException) -> AnalogError | None:
    """Return the error of ours that another one, PETSc's most often, was raised from; None if there is none."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, AnalogError):
        found = found.__cause__ or found.__context__
    return found


def did_you_mean(word: str, known: Iterable[str], *, likeness: float = 0.6) -> str:
    """Return 'Did you mean …?' for the known word nearest to `word`, or an empty string if none, or no single one, is.

    Args:
        word: what was written.
        known: what could have been meant.
        likeness: from 0 to 1, how alike (difflib's ratio) they must be.
    """
    words = list(known)
    longer = [other for other in words if len(word) >= 4 and other.startswith(word)]

    def unlike(other: str) -> tuple[float, int]:
        """Return how unlike a word is; of words that are equally alike the one that begins alike comes first."""
        alike = [a == b for a, b in zip(other, word, strict=False)]
        begin = alike.index(False) if False in alike else len(alike)
        return -round(difflib.SequenceMatcher(None, other, word).ratio(), 2), -begin

    near = sorted(difflib.get_close_matches(word, words, n=3, cutoff=likeness), key=unlike)
    tied = len(near) > 1 and unlike(near[0]) == unlike(near[1])  # tc3: tc2, tc5 or tc6
    found = longer or ([] if tied else near)
    return f"Did you mean {found[0]}?" if found else ""
