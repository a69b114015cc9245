from __future__ import annotations

import pytest

from stimuli.files import atomic_folder, atomic_write, safe_member


def _write(path, text, overwrite=False, ours=True, fail=False):
    with atomic_folder(path, overwrite, lambda old: ours) as folder:
        (folder / "a.txt").write_text(text)
        if fail:
            raise RuntimeError("in the middle")


def test_new_folder_and_missing_parents_appear(tmp_path):
    _write(tmp_path / "x" / "y" / "set", "one")
    assert (tmp_path / "x" / "y" / "set" / "a.txt").read_text() == "one"
    assert [p.name for p in (tmp_path / "x" / "y").iterdir()] == ["set"]


def test_error_leaves_nothing_not_even_parents(tmp_path):
    with pytest.raises(RuntimeError):
        _write(tmp_path / "x" / "y" / "set", "one", fail=True)
    assert list(tmp_path.iterdir()) == []


def test_error_keeps_the_old_folder(tmp_path):
    _write(tmp_path / "set", "old")
    with pytest.raises(RuntimeError):
        _write(tmp_path / "set", "new", overwrite=True, fail=True)
    assert (tmp_path / "set" / "a.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_failed_rename_puts_the_old_folder_back(tmp_path, monkeypatch):
    _write(tmp_path / "set", "old")
    real = type(tmp_path).rename

    def broken(self, target):
        if self.name.endswith(".tmp"):
            raise OSError(28, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(type(tmp_path), "rename", broken)
    with pytest.raises(OSError, match="no space left"):
        _write(tmp_path / "set", "new", overwrite=True)
    assert (tmp_path / "set" / "a.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_overwrite_replaces_only_what_is_ours(tmp_path):
    _write(tmp_path / "set", "old")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        _write(tmp_path / "set", "new")
    with pytest.raises(FileExistsError, match="something else"):
        _write(tmp_path / "set", "new", overwrite=True, ours=False)
    assert (tmp_path / "set" / "a.txt").read_text() == "old"
    _write(tmp_path / "set", "new", overwrite=True)
    assert (tmp_path / "set" / "a.txt").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_empty_folder_is_taken_and_file_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    _write(tmp_path / "empty", "one")
    assert (tmp_path / "empty" / "a.txt").exists()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="is a file"):
        _write(tmp_path / "file", "one", overwrite=True)
    with pytest.raises(OSError, match="Cannot write"):
        _write(tmp_path / "file" / "set", "one")
    assert (tmp_path / "file").read_text() == "mine"


def test_folder_has_ordinary_permissions(tmp_path):
    (tmp_path / "plain").mkdir()
    _write(tmp_path / "set", "one")
    assert (tmp_path / "set").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_atomic_write_replaces_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    atomic_write(path, "eins\r\n")
    assert path.read_bytes() == b"eins\r\n"

    def broken(self, target):
        raise OSError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(type(path), "replace", broken)
        with pytest.raises(OSError, match="Cannot write"):
            atomic_write(path, b"zwei")
    assert path.read_bytes() == b"eins\r\n"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    with pytest.raises(OSError, match="Cannot write"):
        atomic_write(path / "below.txt", b"x")


@pytest.mark.parametrize("name", ["", ".", "/etc/passwd", "../a", "a/../../b", "a\\b", "C:/a", "a\0b"])
def test_names_that_leave_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="leaves its folder"):
        safe_member(tmp_path, name)


def test_symbolic_links_may_stay_but_not_leave(tmp_path):
    folder = tmp_path / "set"
    (folder / "images").mkdir(parents=True)
    (folder / "inner").symlink_to("images")
    (folder / "outer").symlink_to(tmp_path)
    assert safe_member(folder, "inner/a.png") == folder / "inner" / "a.png"
    with pytest.raises(ValueError, match="symbolic link"):
        safe_member(folder, "outer/a.png")
