"""A file or a folder is written whole, or not at all."""

import os

import pytest

from inrbridge.errors import CannotSave, StoreError
from inrbridge.writing import written_whole


def test_a_file_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "a.txt"
    for text in ("old", "new"):
        with written_whole(path) as temporary:
            temporary.write_text(text)
        assert path.read_text() == text and os.listdir(tmp_path) == ["a.txt"]


def test_a_folder_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "step"
    for name in ("old", "new"):
        with written_whole(path) as temporary:
            temporary.mkdir()
            (temporary / name).touch()
        assert os.listdir(path) == [name] and os.listdir(tmp_path) == ["step"]


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_failure_leaves_the_old_one_and_no_trace(tmp_path, is_folder):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(StoreError, match=r"Cannot write .*a\.txt .*disk full"), written_whole(path, StoreError) as temporary:
        if is_folder:
            temporary.mkdir()
        else:
            temporary.write_text("half")
        raise OSError("disk full")
    with pytest.raises(KeyboardInterrupt), written_whole(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(CannotSave, match="choose a folder that is there"), written_whole(tmp_path / "no" / "a.txt") as temporary:
        temporary.write_text("x")
