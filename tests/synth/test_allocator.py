"""Blocks that are freed and taken again cost no new pages."""

from __future__ import annotations

import platform
import subprocess
import sys
import textwrap

import pytest

SCRIPT = """
    import resource, sys
    import numpy as np
    from synth._allocator import keep_freed_memory
    if sys.argv[1] == "keep":
        assert keep_freed_memory()
    for turn in range(12):
        blocks = [np.ones(12 * 2**17) for _ in range(4)]  # 12 MB each
        del blocks
        if turn == 1:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="tells glibc's allocator what to do; there is another")
def test_blocks_are_kept():
    faults = {
        how: int(subprocess.check_output([sys.executable, "-c", textwrap.dedent(SCRIPT), how]))
        for how in ("keep", "no")
    }
    assert faults["keep"] < 100
    assert faults["no"] > 10_000  # else the setting would be idle
