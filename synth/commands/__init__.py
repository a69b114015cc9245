"""The commands of ``npc``, one file each; `synth.cli` mounts them.

Each reads files, calls one function of the Python interface and writes files. Packages that take long to load, torch
above all, are imported inside the functions, so that ``npc --help`` answers at once.
"""
