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
    systems ignore case), each of them ends in eight digits of the SHA-256 of its id, so that the label of a stimulus
    does not depend on the order of the set.

    Parameters
    ----------
    ids : sequence of str
        Distinct stimulus ids.

    Returns
    -------
    list of str
        Labels for file names such as ``stim-<label>_image.png``, distinct even if case is ignored.

    Examples
    --------
    >>> bids_labels(["site3_stretch_1", "gray"])
    ['site3stretch1', 'gray']
    >>> bids_labels(["a_1", "a-1"])
    ['a11426674c', 'a12f8fe63a']
    """
    plain = [re.sub(r"[^A-Za-z0-9]", "", name) for name in ids]
    count = Counter(label.lower() for label in plain)
    digest = [sha256_bytes(name.encode())[:8] for name in ids]
    return [
        label if label and count[label.lower()] == 1 else label + tail
        for label, tail in zip(plain, digest, strict=True)
    ]
