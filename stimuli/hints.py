"""The closest known name for a misspelt one, worded for an error. Used wherever a name is looked up."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """
    Return ``"did you mean 'x'? "`` for the closest known name, or nothing when none is close.

    Parameters
    ----------
    name : str
        What came.
    known : iterable of str
        What is there.

    Returns
    -------
    str
        The hint, with a space at its end.

    Examples
    --------
    >>> did_you_mean("rigde", ["ridge", "local"])
    "did you mean 'ridge'? "
    """
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]!r}? " if close else ""
