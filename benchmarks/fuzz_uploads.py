"""Read thousands of damaged ONNX files as the service does, in a process of its own, and say what came of it.

    PYTHONPATH=. .venv/bin/python benchmarks/fuzz_uploads.py --files 2000

Exit code 1 where a file ended or hung the reading process, raised anything but an error for the user, or took more
memory than it may; these files are kept.
"""

import argparse
import sys
from pathlib import Path

from tests.service.rest.upload_reader import read_mutated


def main() -> int:
    """Run the script; return its exit code."""
    parser = argparse.ArgumentParser(description="Read damaged ONNX files as the service does.")
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most-mib", type=int, default=3072, help="memory that the reading process may take")
    parser.add_argument("--output", type=Path, default=Path("fuzzed"), help="where files that are bad stay")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    found = read_mutated(options.output, files=options.files, seed=options.seed, most_mib=options.most_mib)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in found.outcomes.most_common())
    lines = [f"{options.files} files: {counts}; at most {found.peak_mib} MiB and {found.slowest_s:.1f} s"]
    sys.stdout.write("\n".join([*lines, *(f"{path}: {what}" for path, what in found.bad)]) + "\n")
    return 1 if found.bad else 0


if __name__ == "__main__":
    sys.exit(main())
