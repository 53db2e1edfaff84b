"""What docs/train-your-own-agent.md shows runs as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

from autoprune.formats.onnx_export import export_onnx
from autoprune.service.cli.demo_network import demo_network


def test_the_documented_agent_can_be_trained(root: Path, tmp_path: Path) -> None:
    text = (root / "docs" / "train-your-own-agent.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    network = demo_network()
    export_onnx(network.module, tmp_path / "model.onnx", input_shape=network.input_shape)
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, *drawing = done.stdout.splitlines()
    assert "'macs'" in first
    assert drawing[-1].startswith("nonzero")
    assert drawing[-1].endswith("within budget")
