"""Stimulus sets as each rig wants them: one module a rig, put together by `stimuli.export.export_set`."""
