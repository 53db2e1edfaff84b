"""Files are written whole or not at all."""

from pathlib import Path

import pytest

from autoprune.files import write_whole


def test_what_cannot_be_written_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_whole(path, b"old", durable=True)
    with pytest.raises(TypeError):
        write_whole(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_whole(tmp_path / "folder", b"new")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["folder", "plan.json"]
