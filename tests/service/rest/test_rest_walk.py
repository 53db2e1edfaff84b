"""What docs/rest.md shows with curl is run as it stands there, but for the address."""

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

from autoprune.service.settings import Settings
from tests.components import missing
from tests.service.live_service import images_zip, in_process, tiny_onnx

PAGE = Path(__file__).parents[3] / "docs" / "rest.md"


def test_the_walk_of_the_documentation(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        missing("curl", "apt-get install curl")
    (tmp_path / "model.onnx").write_bytes(tiny_onnx())
    (tmp_path / "images.zip").write_bytes(images_zip([f"{number % 10}/{number}.png" for number in range(200)]))
    walk = re.search(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert walk is not None
    with in_process(Settings(tmp_path / "home")) as (live, _):
        script = walk[1].replace("http://127.0.0.1:8765", live.url)
        command = ["bash", "-euc", script]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True)
        job = live.client.get("/v1/jobs").json()[0]
    assert job["state"] == "succeeded", done.stdout
    digest = hashlib.sha256((tmp_path / "pruned.onnx").read_bytes()).hexdigest()
    assert done.stdout.count(digest) == 3  # in the list of files, of the file, as its ETag
    assert '"state":"succeeded"' in done.stdout
    assert "\n304\n" in done.stdout
    assert '"status": 409' in done.stdout.splitlines()[-1]
