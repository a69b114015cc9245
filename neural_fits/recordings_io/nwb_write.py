"""Write recordings as NWB: one row of the trials per presentation, responses as a TimeSeries, sites as a table.

Recordings do not know when their trials took place, so all times are NaN, and the session starts with the epoch.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np

from neural_fits.recordings import SiteRecordings
from neural_fits.recordings_io import _header
from neural_fits.recordings_io._columns import pack
from stimuli.nwb_files import require_pynwb

__all__ = ["encode"]

#: name of the processing module that holds the responses
MODULE = "recorded_responses"


def encode(recordings: SiteRecordings) -> bytes:
    """Turn recordings into the content of an NWB file.

    Parameters
    ----------
    recordings : SiteRecordings
        What to write.

    Returns
    -------
    bytes
        The file.

    Raises
    ------
    ImportError
        If pynwb is not installed.
    ValueError
        If nothing was recorded.
    """
    require_pynwb()
    from hdmf.common import DynamicTable, VectorData
    from pynwb import NWBHDF5IO, NWBFile, TimeSeries
    from pynwb.epoch import TimeIntervals

    packed = [(str(name), *pack(column)) for name, column in recordings.sites.items()]
    shown = ~np.isnan(recordings.responses).all(axis=tuple(range(2, recordings.responses.ndim)))
    if not shown.any():
        raise ValueError(
            f"the recordings of shape {recordings.shape} hold no recorded response, which NWB cannot store; use .nc or "
            ".h5."
        )
    stimulus, repeat = np.nonzero(shown)
    record = _header.header(
        recordings,
        columns=[{"name": name, "missing": missing} for name, _, missing in packed],
        # As JSON inside JSON: lists of these lengths are kept out of the way of people who look at the record.
        stimulus_ids=json.dumps(recordings.stimulus_ids),
        site_ids=json.dumps(recordings.site_ids),
        n_repeats=recordings.shape[1],
    )
    nwb = NWBFile(
        session_description="Responses of sites to images; times of the trials are not known (NaN).",
        identifier=hashlib.sha256(record.encode() + recordings.responses.tobytes()).hexdigest(),
        session_start_time=datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC),
    )
    unknown = np.full(len(stimulus), np.nan)
    trials = {
        "start_time": ("Not known.", unknown),
        "stop_time": ("Not known.", unknown),
        "stimulus_id": ("Id of the stimulus that was shown.", [recordings.stimulus_ids[s] for s in stimulus]),
        "repeat": ("Number of the repeat of this stimulus, from 0.", repeat),
    }
    nwb.trials = TimeIntervals(
        name="trials",
        description="One row per presentation.",
        columns=[VectorData(name=name, description=text, data=data) for name, (text, data) in trials.items()],
    )
    sites = DynamicTable(
        name="sites",
        description="One row per site, in the order of the second axis of responses.",
        columns=[
            VectorData(name="site_id", description="Id of the site.", data=recordings.site_ids),
            *(
                VectorData(
                    name=f"site_column_{k}", description=name or "-", data=v.tolist() if v.dtype == object else v
                )
                for k, (name, v, _) in enumerate(packed)
            ),
        ],
    )
    series = TimeSeries(
        name="responses",
        description="Responses (presentation, site[, time]); presentations are the rows of the trials.",
        comments=record,
        data=recordings.responses[stimulus, repeat],
        unit=recordings.unit or "-",
        timestamps=unknown,
    )
    module = nwb.create_processing_module(name=MODULE, description="Responses of recorded sites to images.")
    module.add(sites)
    module.add(series)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pynwb warns of NaN times and of empty tables, which are meant
        path = Path(folder) / "recordings.nwb"
        with NWBHDF5IO(path=str(path), mode="w") as io:
            io.write(nwb)
        return path.read_bytes()
