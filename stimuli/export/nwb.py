"""NWB: the images as a stimulus template, the planned order as IndexSeries and table; needs the extra ``nwb``.

The bytes are the same for the same set and the same versions of pynwb and h5py: object ids are made from the content
instead of at random, and times are fixed.
"""

from __future__ import annotations

import datetime
import uuid
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from stimuli import _table
from stimuli.export.bundle import Bundle
from stimuli.nwb_files import require_pynwb
from stimuli.provenance import sha256_bytes
from stimuli.stimulus_set import StimulusSet

START = (
    "nwb/stimuli.nwb holds the images (the stimulus template stimuli), and the planned order as IndexSeries and as the "
    "table presentations; onsets are nominal. Copy them into the file of the recording with the onsets of the run; "
    "npc events reads either of them back."
)
IMAGES, SERIES, TABLE = "stimuli", "presented_stimuli", "presentations"
ORDER = "order_of_images"
_TAKEN = {ORDER, "description", "namespace", "neurodata_type", "object_id"}  # the container's own datasets, attributes
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def write(bundle: Bundle) -> None:
    """
    Write ``stimuli.nwb``: images, an IndexSeries into them, and a table of the planned presentations.

    Images are read while they are written, one at a time, as (height, width) or (height, width, 3). pynwb writes the
    first; the others are added beside it in HDF5, because what pynwb keeps of each in memory is some 15 kB.

    Parameters
    ----------
    bundle : Bundle
        The set that is being exported.

    Raises
    ------
    ImportError
        If pynwb is not installed.
    ValueError
        If a stimulus has a name that NWB keeps for itself.
    """
    require_pynwb()
    taken = [name for name in bundle.stimuli.stimulus_ids if name in _TAKEN]
    if taken:
        raise ValueError(
            f"stimulus_id {_table.some(taken)} is a name that NWB keeps for itself: rename the stimulus, or export "
            "without nwb."
        )
    from pynwb import NWBHDF5IO

    path, make = bundle.folder / "nwb" / "stimuli.nwb", _Maker(_content(bundle))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hdmf warns of what concerns its own authors
        with NWBHDF5IO(path=str(path), mode="w") as io:
            io.write(_file(bundle, make))
    _append_images(path, bundle.stimuli, make.space)


class _Maker:
    """Makes pynwb objects whose ids follow from the content of the set and their place in the file."""

    def __init__(self, content: str) -> None:
        self.content = content
        self.space = uuid.uuid5(uuid.NAMESPACE_URL, content)
        self.count = 0

    def __call__(self, kind: Any, **fields: Any) -> Any:
        self.count += 1
        made = kind.__new__(kind, object_id=str(uuid.uuid5(self.space, str(self.count))))
        made.__init__(**fields)
        return made


def _content(bundle: Bundle) -> str:
    """Return a hash of the set and of the order, from which all ids are made."""
    return sha256_bytes((bundle.folder / "stimuli.csv").read_bytes() + _table.to_csv(bundle.order.table).encode())


def _file(bundle: Bundle, make: _Maker) -> Any:
    """Return the file with the first image only."""
    from hdmf.common import ElementIdentifiers, VectorData
    from pynwb import NWBFile
    from pynwb.base import ImageReferences, Images
    from pynwb.epoch import TimeIntervals
    from pynwb.file import Subject
    from pynwb.image import GrayscaleImage, IndexSeries, RGBImage

    stimuli, order, config = bundle.stimuli, bundle.order.table, bundle.order.config
    degrees = f"{stimuli.size_deg:g} deg wide on the screen, 8-bit codes, background code 128"
    nwb = make(
        NWBFile,
        session_description=f"Planned presentation of the stimulus set {bundle.name}: nothing has been shown yet.",
        identifier=make.content,
        session_start_time=_day(config.day),
        file_create_date=_EPOCH,
        experiment_description="Visual stimuli and the order in which they are to be shown.",
        keywords=["visual stimuli"],
        stimulus_notes=f"Images are {degrees}. {len(order)} presentations, seed {config.seed}.",
    )
    nwb.subject = make(
        Subject,
        subject_id=config.animal or "unknown",
        sex="U",
        age="P0D/",  # an open range: nothing is known here, and a file without age is refused by archives
        description="The animal that is to see the stimuli; sex, age and species are for the laboratory to fill in.",
    )
    kind = GrayscaleImage if stimuli.shape[0] == 1 else RGBImage
    images = [make(kind, name=stimuli.stimulus_ids[0], data=_pixels(stimuli, 0), description=degrees)]
    references = make(ImageReferences, name=ORDER, data=images)
    template = make(
        Images,
        name=IMAGES,
        images=images,
        order_of_images=references,
        description=f"The images of the stimulus set {bundle.name} (height, width[, channel]), {degrees}.",
    )
    nwb.add_stimulus_template(template)
    place = {name: k for k, name in enumerate(stimuli.stimulus_ids)}
    onset = order["onset_ms_nominal"].to_numpy(dtype=np.float64) / 1000
    shown = order["stimulus_id"].map(place).to_numpy(dtype=np.uint32)
    series = make(
        IndexSeries,
        name=SERIES,
        data=shown,
        unit="N/A",
        indexed_images=template,
        timestamps=onset,
        description="Planned order of the images; timestamps are nominal onsets.",
    )
    nwb.add_stimulus(series)
    columns = {
        "start_time": ("Nominal onset.", onset),
        "stop_time": ("Nominal end.", onset + order["duration_ms"].to_numpy(dtype=np.float64) / 1000),
        "stimulus_id": ("Name of the image.", order["stimulus_id"].tolist()),
        "trial": ("Trial, counted from 0.", order["trial"].to_numpy()),
        "position": ("Place in the trial, counted from 0.", order["position"].to_numpy()),
        "block": ("Block, counted from 0.", order["block"].to_numpy()),
        "repeat": ("Planned repeat of the image, counted from 0.", order["repeat"].to_numpy()),
    }
    table = make(
        TimeIntervals,
        name=TABLE,
        description="Planned presentations, one row each.",
        id=make(ElementIdentifiers, name="id", data=np.arange(len(order))),
        columns=[make(VectorData, name=name, description=text, data=data) for name, (text, data) in columns.items()],
    )
    nwb.add_time_intervals(table)
    return nwb


def _day(text: str) -> datetime.datetime:
    """Return the start of the day of the session where it is an ISO date, and the epoch otherwise."""
    try:
        return datetime.datetime.combine(datetime.date.fromisoformat(text), datetime.time(), tzinfo=datetime.UTC)
    except ValueError:
        return _EPOCH


def _pixels(stimuli: StimulusSet, position: int) -> NDArray[np.uint8]:
    codes = stimuli.codes([position])[0]
    return codes[0] if codes.shape[0] == 1 else np.ascontiguousarray(codes.transpose(1, 2, 0))


def _append_images(path: Path, stimuli: StimulusSet, space: uuid.UUID) -> None:
    """Add all images but the first, stored as pynwb has stored that one."""
    names = stimuli.stimulus_ids
    with h5py.File(path, "r+") as file:
        group = file[f"stimulus/templates/{IMAGES}"]
        like = dict(group[names[0]].attrs)
        for position, name in enumerate(names[1:], start=1):
            added = group.create_dataset(name, data=_pixels(stimuli, position))
            added.attrs.update({**like, "object_id": str(uuid.uuid5(space, f"image {name}"))})
        attributes = dict(group[ORDER].attrs)
        del group[ORDER]
        listed = group.create_dataset(ORDER, data=[group[name].ref for name in names], dtype=h5py.ref_dtype)
        listed.attrs.update(attributes)
