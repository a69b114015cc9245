"""What a rig says that it has shown: logs of PsychoPy, MWorks, BIDS and NWB, read back to (stimulus, repeat)."""

from stimuli.event_logs.log import EventLog
from stimuli.event_logs.read import FORMATS, read_event_log

__all__ = ["FORMATS", "EventLog", "read_event_log"]
