"""Leases and marks of use that are no such thing, or whose owner cannot be looked up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from featcache._io.cache_dirs import stores_folder
from featcache.cli import main
from featcache.gc.collect import collect
from featcache.store import lease as leases
from featcache.store.lease import NAME, USE_PREFIX, is_in_use, lease, mark_in_use
from featcache.store.removal import remove_renamed
from featcache.store.store import Store
from stores import SPEC, WIDTH, ids_of, rows_of


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**30)


def nested(path: Path) -> None:
    path.write_text("[" * 4000)


def number(text: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        owner = {**leases._describe_machine(), "started": "1", "pid": json.loads(text)}
        path.write_bytes(leases._encode_claim(owner))

    return make


KINDS: dict[str, Callable[[Path], None]] = {
    "fifo": os.mkfifo,
    "folder": lambda path: (path / "x").mkdir(parents=True),
    "link to nothing": lambda path: path.symlink_to("nothing"),
    "link to endless": lambda path: path.symlink_to("/dev/zero"),
    "1 GiB": sparse,
    "infinity": number("Infinity"),
    "huge number": number("9" * 3000),
    "text": number('"x"'),
    "nested": nested,
}
CHILD = """
import sys
from pathlib import Path
from featcache.store.lease import is_in_use, lease
with lease(Path(sys.argv[1])) as held:
    print(bool(held), is_in_use(Path(sys.argv[1])))
"""


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_claim_counts_until_it_is_old(tmp_path: Path, kind: str) -> None:
    for name in (NAME, f"{USE_PREFIX}{'a' * 32}"):
        KINDS[kind](tmp_path / name)

    def said() -> str:
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(tmp_path)],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        return done.stdout.strip() or done.stderr

    assert said() == "False True"
    then = time.time() - 2 * leases.LIFETIME
    for name in (NAME, f"{USE_PREFIX}{'a' * 32}"):
        os.utime(tmp_path / name, (then, then), follow_symlinks=False)
    assert said() == "True False"
    assert [path.name for path in tmp_path.iterdir() if path.name != "nothing"] == []


def test_a_living_user_that_was_stopped_for_long_still_uses_a_store(tmp_path: Path) -> None:
    with mark_in_use(tmp_path) as held:
        assert held
        os.utime(held.path, (1, 1))
        assert is_in_use(tmp_path)


def test_a_lease_that_was_taken_over_meanwhile_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"")
    found = os.lstat(tmp_path / NAME)
    (tmp_path / "old").hardlink_to(tmp_path / NAME)  # its inode is not given again
    (tmp_path / NAME).unlink()
    with lease(tmp_path) as held:
        leases._remove_claim(tmp_path / NAME, found)  # who judged before, and comes too late
        assert held.still_held()


def stored(cache: Path) -> Store:
    store = Store.create(stores_folder(cache) / SPEC.folder, SPEC, WIDTH)
    store.append(rows_of(0, 1, 2), ids_of(0, 1, 2))
    store.write_manifest()
    return store


@pytest.mark.parametrize("again", [False, True])
def test_a_store_in_use_whose_removal_was_killed_is_put_back(tmp_path: Path, again: bool) -> None:
    store = stored(tmp_path)
    renamed = store.folder.with_name(f".gone-{'0' * 32}-{store.folder.name}")
    with mark_in_use(store.folder):
        store.folder.rename(renamed)
        if again:  # the extraction went on in a new folder
            other = Store.create(store.folder, SPEC, WIDTH)
            other.append(rows_of(7), ids_of(7))
        (renamed / NAME).write_bytes(b"")
        found = collect(tmp_path, unused_days=1)
        assert [(kept.name, kept.reason) for kept in found.kept] == [
            (store.folder.name, "it is in use")
        ]
        assert is_in_use(store.folder)
    assert not renamed.exists()
    assert not (store.folder / NAME).exists()
    assert Store(store.folder).contains(ids_of(0, 1, 2)).all()
    assert Store(store.folder).contains(ids_of(7)).all() == again
    assert remove_renamed(renamed) is None


def test_junk_in_the_folder_of_stores_hides_no_damage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = stored(tmp_path)
    stores = store.folder.parent
    os.mkfifo(stores / "fifo")
    (stores / "file").write_bytes(b"x")
    (stores / "loop").symlink_to("loop")
    (stores / "link").symlink_to(store.folder)
    (stores / ".gone-x").mkdir()
    (stores / ".gone-x" / "x.h5").touch()
    (stores / "other" / "MANIFEST.json").mkdir(parents=True)
    assert main(["verify", "--cache-dir", str(tmp_path)]) == 1
    assert "other: damaged: MANIFEST.json" in capsys.readouterr().out
    assert main(["gc", "--unused-days", "0", "--cache-dir", str(tmp_path)]) == 0
    assert "link: it is a symbolic link" in capsys.readouterr().out
    assert (stores / "link").is_symlink()


def test_modules_in_the_current_folder_are_not_imported_by_the_inspecting_process(
    tmp_path: Path,
) -> None:
    stored(tmp_path)
    (tmp_path / "numpy.py").write_text("open('imported', 'w')")
    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(leases.__file__).parents[2])!r})
from featcache.hdf5.sandbox import inspect_shard
import os
os.chdir({str(tmp_path)!r})
sys.path.insert(0, "")
print(inspect_shard(next(Path("stores").glob("*/*.h5"))).width)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), (tmp_path / "imported").exists()) == (str(WIDTH), False), done
