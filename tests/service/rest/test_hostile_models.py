"""Model files that are damaged at random are refused or read: the reading process lives, and takes little memory."""

from pathlib import Path

from tests.service.rest.upload_reader import read_mutated

#: Of the reading process, which holds PyTorch and ONNX: a network may take 1 GiB for an image, and two run at a time.
MOST_MIB = 3072


def test_damaged_files_never_harm_the_process_that_reads_them(tmp_path: Path) -> None:
    found = read_mutated(tmp_path, files=300, seed=7, most_mib=MOST_MIB)
    assert found.bad == []
    assert found.outcomes["refused"] > 100
    assert found.outcomes["accepted"] > 10
    assert found.outcomes.total() == 300
