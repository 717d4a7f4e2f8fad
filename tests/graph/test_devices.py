"""Models and graphs on another device answer as they do on the CPU: no tensor stays behind."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "second_device.py"


def test_every_answer_on_another_device_is_that_of_the_cpu():
    said = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=240)
    assert said.returncode == 0, said.stderr[-2000:]
    found = json.loads(said.stdout)
    assert len(found) == 11
    assert {what: gap for what, gap in found.items() if not isinstance(gap, float) or gap > 1e-6} == {}
