"""Labels of stimuli in BIDS, which may hold letters and digits only; shared by the exporter and the importer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from stimuli.provenance import sha256_bytes


def bids_labels(ids: Sequence[str]) -> list[str]:
    """
    Turn stimulus ids into BIDS labels, one each.

    The label is the id without anything but letters and digits. Where two ids would get one label (also where file
    systems ignore case), each of them ends in eight digits of the SHA-256 of its id, and in eight more as often as that
    is again the label of another, so that the label of a stimulus does not depend on the order of the set.

    Parameters
    ----------
    ids : sequence of str
        Distinct stimulus ids.

    Returns
    -------
    list of str
        Labels for file names such as ``stim-<label>_image.png``, distinct even if case is ignored.

    Raises
    ------
    ValueError
        If an id is given twice.

    Examples
    --------
    >>> bids_labels(["site3_stretch_1", "gray"])
    ['site3stretch1', 'gray']
    >>> bids_labels(["a_1", "a-1"])
    ['a11426674c', 'a12f8fe63a']
    """
    plain = [re.sub(r"[^A-Za-z0-9]", "", name) for name in ids]
    if len(set(ids)) < len(ids):
        raise ValueError("A stimulus id occurs more than once: give every stimulus its own id.")
    digest = [sha256_bytes(name.encode()) for name in ids]
    digits = [0 if label else 8 for label in plain]
    while True:
        labels = [label + tail[:n] for label, tail, n in zip(plain, digest, digits, strict=True)]
        count = Counter(label.lower() for label in labels)
        shared = [count[label.lower()] > 1 for label in labels]
        if not any(shared):
            return labels
        digits = [n + 8 * again for n, again in zip(digits, shared, strict=True)]
