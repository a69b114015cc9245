"""The example on recorded V4 sites, where the data are present; the other examples run in the gate."""

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_recorded_v4_line_runs(v4_data, tmp_path):
    script = EXAMPLES / "02_recorded_v4.py"
    finished = subprocess.run(
        [sys.executable, str(script), str(v4_data), "--small", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert "driver: medians over sites" in finished.stdout
    page = (tmp_path / "report.html").read_text()
    assert "Forecast only" in page
