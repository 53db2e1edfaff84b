"""Zips from strangers: every way to misuse one is refused with an error that names the entry."""

import stat
import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from autoprune.datasets._archive import MIB, ArchiveLimits, DamagedEntryError, opened_archive, read_entry
from autoprune.datasets.image_folder import load_image_folder
from autoprune.errors import DatasetError
from tests.autoprune.datasets.image_corpus import picture, two_classes, write_zip


def load(path: Path, tmp_path: Path) -> None:
    load_image_folder(path, cache_dir=tmp_path / "cache")


def assert_nothing_cached(tmp_path: Path) -> None:
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "name", ["../evil.png", "cat/../../evil.png", "/etc/evil.png", "C:/evil.png", "\\evil.png", "cat\\..\\..\\evil.png"]
)
def test_unsafe_names_are_refused(tmp_path: Path, name: str) -> None:
    path = write_zip(tmp_path / "a.zip", {**two_classes(), name: picture(0)})
    with pytest.raises(DatasetError, match=r"evil\.png' (has an absolute name|leads out)"):
        load(path, tmp_path)
    assert_nothing_cached(tmp_path)


@pytest.mark.parametrize(("kind", "message"), [(stat.S_IFLNK, "symbolic link"), (stat.S_IFCHR, "neither a file")])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int, message: str) -> None:
    path = write_zip(tmp_path / "a.zip", two_classes())
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("cat/link.png")
        info.external_attr = (kind | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DatasetError, match=f"'cat/link.png' is .*{message}"):
        load(path, tmp_path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", two_classes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("cat/0.png", picture(9))
    with pytest.raises(DatasetError, match=r"'cat/0\.png' occurs twice"):
        load(path, tmp_path)


def test_other_compressions_are_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", two_classes(), zipfile.ZIP_LZMA)
    with pytest.raises(DatasetError, match="compression other than"):
        load(path, tmp_path)


def test_encrypted_entries_are_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", two_classes())
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="is encrypted"):
        load(path, tmp_path)


def test_a_zip_bomb_is_refused_before_it_is_decompressed(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "bomb.zip", {**two_classes(), "cat/bomb.png": bytes(20 * MIB)})
    with pytest.raises(DatasetError, match=r"'cat/bomb\.png' expands more than 100 times"):
        load(path, tmp_path)
    assert_nothing_cached(tmp_path)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (ArchiveLimits(entries=3, entry_bytes=MIB, total_bytes=MIB), "4 entries; at most 3"),
        (ArchiveLimits(entries=9, entry_bytes=50, total_bytes=MIB), "'dog/0.png' would expand to"),
        (ArchiveLimits(entries=9, entry_bytes=MIB, total_bytes=300), "would expand to .* GiB"),
    ],
)
def test_each_limit_holds(tmp_path: Path, limits: ArchiveLimits, message: str) -> None:
    path = write_zip(tmp_path / "a.zip", two_classes())
    with pytest.raises(DatasetError, match=message):
        load_image_folder(path, cache_dir=tmp_path / "cache", limits=limits)


def test_a_header_that_understates_the_size_does_not_get_more_memory(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "liar.zip", {"cat/bomb.png": bytes(64 * MIB)})
    content = bytearray(path.read_bytes())
    central = content.index(b"PK\x01\x02")
    struct.pack_into("<I", content, central + 24, 1000)  # uncompressed size in the central directory
    path.write_bytes(content)
    limits = ArchiveLimits(entries=9, entry_bytes=MIB, total_bytes=MIB)
    with opened_archive(path, limits) as (archive, entries):
        tracemalloc.start()
        with pytest.raises(DamagedEntryError, match="CRC"):
            read_entry(archive, entries[0])
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak_bytes < 8 * MIB


def test_a_header_that_overstates_the_size_is_a_damaged_entry(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "liar.zip", {"cat/a.png": picture(0)})
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, content.index(b"PK\x01\x02") + 24, 5000)
    path.write_bytes(content)
    limits = ArchiveLimits(entries=9, entry_bytes=MIB, total_bytes=MIB)
    with opened_archive(path, limits) as (archive, entries), pytest.raises(DamagedEntryError, match="5000"):
        read_entry(archive, entries[0])


@pytest.mark.parametrize("kept_share", [0.0, 0.3, 0.9])
def test_a_truncated_zip_is_refused(tmp_path: Path, kept_share: float) -> None:
    path = write_zip(tmp_path / "a.zip", two_classes())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept_share)])
    with pytest.raises(DatasetError, match="expected a complete zip archive; it is damaged or truncated"):
        load(path, tmp_path)


def test_damage_inside_a_zip_names_the_image(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", two_classes(), zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[content.index(b"dog/1.png") + 60] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"1 of 4 images cannot be read: dog/1\.png \(.*CRC"):
        load(path, tmp_path)
