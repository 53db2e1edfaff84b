"""Send thousands of generated requests to a service: none may end in a 5xx, or be answered otherwise than described.

    python -m venv fuzz && fuzz/bin/pip install -c constraints.txt schemathesis
    PYTHONPATH=. .venv/bin/python benchmarks/fuzz_api.py fuzz/bin/schemathesis --seconds 240

Schemathesis reads /openapi.json and generates requests that fit it, and ones that do not. Of those that fit, many must
be refused all the same, since they name models that are not there: that check is left out. Those that do not fit may
also be refused for their size (413), whatever else is wrong. Exit code that of Schemathesis.
"""

import argparse
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from autoprune.service.settings import Settings
from tests.service.live_service import images_npz, in_thread, tiny_onnx

CONFIG = """
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429]
"""


def main() -> int:
    """Run the script; return its exit code."""
    parser = argparse.ArgumentParser(description="Send generated requests to a service.")
    parser.add_argument("schemathesis", type=Path, help="the program")
    parser.add_argument("--seconds", type=int, default=240)
    parser.add_argument("--examples", type=int, default=60, help="requests of each kind for each operation")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(Path(folder) / "home", run_jobs=False)
        with in_thread(replace(settings, requests_per_s=10**6, queued_jobs=10**6)) as live:
            live.post_model(tiny_onnx())
            live.post_dataset(images_npz(), "images.npz")
            config = Path(folder) / "schemathesis.toml"
            config.write_text(CONFIG, encoding="utf-8")
            command = [
                options.schemathesis, "--config-file", config, "run", f"{live.client.base_url}/openapi.json",
                "--continue-on-failure", "--no-shrink", "--exclude-checks", "positive_data_acceptance",
                "--max-time", options.seconds, "--max-examples", options.examples, "--seed", options.seed,
            ]  # fmt: skip
            return subprocess.run([str(part) for part in command], check=False).returncode  # noqa: S603 - as asked


if __name__ == "__main__":
    sys.exit(main())
