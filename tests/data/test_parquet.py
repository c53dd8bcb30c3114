"""Parquet files with images: the same images as in a folder, read in place, within limits."""

import json
import os
import threading
import time

import numpy as np
import pytest

import featcache
from featcache.data import parquet
from featcache.data.parquet_pages import check_pages
from featcache.errors import DatasetError, NoUsableImages
from featcache.images.image_file import BadImage

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

CELL = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
NAMES = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}


def extract(data, cache, **options):
    return featcache.extract("pocket", data, cache_dir=cache, progress=False, **options)


@pytest.fixture
def files(photos):
    return sorted(photos.rglob("*.png"))


def table_of(cells, **columns):
    schema = {"image": pa.array(cells, CELL), **columns}
    return pa.table(schema).replace_schema_metadata({b"huggingface": json.dumps(NAMES).encode()})


def write(path, files, **options):
    cells = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    labels = [int("dog" in str(file)) for file in files]
    weights = np.arange(len(files)) / 2
    pq.write_table(table_of(cells, label=labels, weight=weights), path, **options)
    return path


def age(path):
    """Make a file old enough for its ids to be remembered."""
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_photo_is_the_same_image_as_in_a_folder(tmp_path, photos, files, compression):
    first = extract(photos, tmp_path)
    data = write(tmp_path / "a.parquet", files, row_group_size=5, compression=compression)
    same = extract(data, tmp_path)
    assert same.summary.computed == 0
    assert same.ids == first.ids
    assert same.classes == ["cat", "dog"]
    np.testing.assert_array_equal(same.y, first.y)
    assert same.paths[3] == f"{data}[3]"
    assert same.attributes["weight"].tolist() == (np.arange(12) / 2).tolist()
    shuffled = [files[i] for i in np.random.default_rng(0).permutation(12)]
    again = extract(write(tmp_path / "b.parquet", shuffled, row_group_size=3), tmp_path)
    assert again.summary.computed == 0
    order = [first.ids.index(i) for i in again.ids]
    np.testing.assert_array_equal(again.y, first.y[order])


def test_rows_are_read_in_any_order_and_by_several_threads(tmp_path, files, monkeypatch):
    monkeypatch.setattr(parquet, "_MAX_ROWS_PER_BATCH", 2)
    monkeypatch.setattr(parquet, "_MAX_BATCHES", 2)
    data = featcache.load_dataset(write(tmp_path / "a.parquet", files, row_group_size=7))
    expected = [file.read_bytes() for file in files]
    source = data.take([11, 0, 6, 7, 0, 3]).source
    assert [source.read(i) for i in range(6)] == [expected[i] for i in (11, 0, 6, 7, 0, 3)]
    wrong = []

    def check(seed):
        order = np.random.default_rng(seed).permutation(12).tolist()
        wrong.extend(i for i in order if data.source.read(i) != expected[i])

    threads = [threading.Thread(target=check, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_ids_are_remembered_while_the_file_is_unchanged(tmp_path, files, monkeypatch):
    data = write(tmp_path / "a.parquet", files)
    first = extract(data, tmp_path)
    again = write(tmp_path / "a.parquet", files[::-1])
    assert extract(again, tmp_path).ids == first.ids[::-1]
    reads = []
    read = parquet.ParquetFile.read
    monkeypatch.setattr(
        parquet.ParquetFile, "read", lambda *args: (reads.append(args[1]), read(*args))[1]
    )
    later = time.time_ns() + 10**10
    monkeypatch.setattr(time, "time_ns", lambda: later)
    assert extract(again, tmp_path).ids == first.ids[::-1]
    assert len(reads) == 12
    assert extract(again, tmp_path).ids == first.ids[::-1]
    assert len(reads) == 12


def test_several_files_are_one_data_set_with_a_split(tmp_path, files):
    paths = [
        write(tmp_path / "train-00000-of-00002.parquet", files[:5]),
        write(tmp_path / "train-00001-of-00002.parquet", files[5:10]),
        write(tmp_path / "test-00000-of-00001-0123abcd.parquet", files[10:]),
    ]
    dataset = featcache.load_dataset(paths)
    assert dataset.split == ["train"] * 10 + ["test"] * 2
    assert dataset.labels == ["cat"] * 6 + ["dog"] * 6
    assert [dataset.source.read(i) for i in range(12)] == [file.read_bytes() for file in files]
    pq.write_table(pa.table({"photo": pa.array([b"a"])}), tmp_path / "other.parquet")
    with pytest.raises(DatasetError, match="other columns"):
        featcache.load_dataset([*paths, tmp_path / "other.parquet"])


def test_a_bad_image_is_named_and_the_others_have_their_rows(tmp_path, files):
    contents = [files[0].read_bytes(), b"no", None, files[1].read_bytes()]
    cells: list = [{"bytes": data, "path": "a.png"} for data in contents]
    cells.insert(1, None)
    pq.write_table(table_of(cells, label=[0, 0, 1, 1, 1]), tmp_path / "a.parquet")
    found = extract(tmp_path / "a.parquet", tmp_path)
    assert found.positions.tolist() == [0, 4]
    assert found.y.tolist() == [0, 1]
    assert ["empty" in found.quarantined[0].reason, len(found.quarantined)] == [True, 3]


def test_a_path_in_a_file_from_elsewhere_is_not_opened(tmp_path, files):
    cells = [{"bytes": files[0].read_bytes(), "path": None}, {"bytes": None, "path": str(files[1])}]
    pq.write_table(table_of(cells), tmp_path / "a.parquet")
    found = extract(tmp_path / "a.parquet", tmp_path)
    assert found.positions.tolist() == [0]
    assert "has no bytes but a path, which is not opened" in found.quarantined[0].reason


def test_text_in_place_of_bytes_is_quarantined(tmp_path):
    cells = pa.array([{"bytes": "text"}], pa.struct([("bytes", pa.string())]))
    pq.write_table(pa.table({"image": cells}), tmp_path / "a.parquet")
    with pytest.raises(NoUsableImages, match="is str; expected the bytes of a file"):
        extract(tmp_path / "a.parquet", tmp_path)


def test_labels_that_are_lists_are_not_lost_silently(tmp_path, files, caplog):
    cells = [{"bytes": file.read_bytes(), "path": None} for file in files[:2]]
    pq.write_table(table_of(cells, label=[[0, 1], [1, 0]]), tmp_path / "a.parquet")
    assert featcache.load_dataset(tmp_path / "a.parquet").labels is None
    assert "the column 'label' is of type list" in caplog.text


@pytest.mark.parametrize(
    "kind", [pa.binary(), pa.large_binary(), pa.dictionary(pa.int32(), pa.binary())]
)
def test_a_column_of_bytes_and_text_labels(tmp_path, files, kind):
    cells = pa.array([file.read_bytes() for file in files]).cast(kind)
    kinds = pa.array(["a", None] * 6).dictionary_encode()
    pq.write_table(pa.table({"photo": cells, "label": kinds}), tmp_path / "a.parquet")
    dataset = featcache.load_dataset(tmp_path / "a.parquet")
    assert dataset.labels == ["a", None] * 6
    assert [dataset.source.read(i) for i in range(12)] == [file.read_bytes() for file in files]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [1]}, "no column of images"),
        ({"a": [b"1"], "b": [b"2"]}, "Several columns may have the images"),
        ({"image": pa.array([], pa.binary())}, "0 rows"),
    ],
)
def test_what_has_no_images_is_refused_in_a_sentence(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(DatasetError, match=message):
        featcache.load_dataset(tmp_path / "a.parquet")


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "footer"])
def test_a_damaged_file_is_refused_in_a_sentence(tmp_path, files, damage):
    path = write(tmp_path / "a.parquet", files)
    data = path.read_bytes()
    path.write_bytes({
        "empty": b"", "text": b"PAR1 no parquet", "cut": data[:-9],
        "footer": data[:-8] + b"\xff\xff\xff\x7fPAR1",
    }[damage])  # fmt: skip
    with pytest.raises(DatasetError, match="cannot be read as Parquet"):
        featcache.load_dataset(path)


def test_damaged_pages_cost_their_images_only(tmp_path, files):
    path = write(tmp_path / "a.parquet", files, row_group_size=6, compression="none")
    data = bytearray(path.read_bytes())
    chunk = pq.read_metadata(path).row_group(0).column(0)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + 40] = bytes(40)
    path.write_bytes(bytes(data))
    found = extract(path, tmp_path)
    assert found.positions.tolist() == list(range(6, 12))
    assert "damaged" in found.quarantined[0].reason


def test_a_value_that_occurs_many_times_is_kept_once(tmp_path):
    big = np.random.default_rng(0).bytes(4_000_000)
    cells = pa.DictionaryArray.from_arrays(pa.array(np.zeros(3000, np.int32)), pa.array([big]))
    pq.write_table(
        pa.table({"image": cells}), tmp_path / "a.parquet", dictionary_pagesize_limit=10**8
    )
    before = pa.total_allocated_bytes()
    dataset = featcache.load_dataset(tmp_path / "a.parquet")
    assert dataset.source.read(2999) == big
    assert pa.total_allocated_bytes() - before < 60e6  # 12 GB if each was unpacked


def test_a_page_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("featcache.data.parquet_pages.MAX_PAGE_BYTES", 10**6)
    table = pa.table({"image": pa.array([bytes(3_000_000)])})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    assert (tmp_path / "a.parquet").stat().st_size < 5000
    with pytest.raises(NoUsableImages, match="page of 3,000,0"):
        extract(tmp_path / "a.parquet", tmp_path)
    table = pa.table({"image": [b"a"], "label": ["b" * 3_000_000]})
    pq.write_table(table, tmp_path / "b.parquet", compression="zstd", use_dictionary=False)
    with pytest.raises(DatasetError, match="column 'label' lies in a page of"):
        featcache.load_dataset(tmp_path / "b.parquet")


def test_an_encoding_that_repeats_values_is_refused(tmp_path):
    table = pa.table({"image": [b"abc" * 1000] * 50})
    pq.write_table(
        table, tmp_path / "a.parquet", use_dictionary=False,
        column_encoding={"image": "DELTA_BYTE_ARRAY"},
    )  # fmt: skip
    with pytest.raises(NoUsableImages, match="DELTA_BYTE_ARRAY"):
        extract(tmp_path / "a.parquet", tmp_path)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "cannot be read"),
        (b"\x15\x00", "cannot be read"),
        (b"\x15\x00\x00", "no size"),
        (b"\x15\x00\x15\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "cannot be read"),
        (b"\x1c" * 50, "cannot be read"),
        (b"\x19\x00\x00", "cannot be read"),
        (b"\x15\x00\x15\x01\x15\x00\x00", "no size"),
        (b"\x15\x00\x15\x80\x80\x80\x80\x0c\x15\x00\x00", "page of 1,610,612,736 bytes"),
    ],
)
def test_headers_of_pages_are_read_with_suspicion(data, reason):
    with pytest.raises(BadImage, match=reason):
        check_pages(lambda start, size: data[start : start + size], 0, 100)


def test_endless_pages_end(monkeypatch):
    monkeypatch.setattr("featcache.data.parquet_pages._MAX_PAGES", 100)
    page = b"\x15\x00\x15\x00\x15\x00\x00"
    with pytest.raises(BadImage, match="more than 100 pages"):
        check_pages(lambda start, size: page * 10_000, 0, 10**6)


def test_the_attributes_of_very_wide_tables_are_left_out(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(parquet, "_MAX_ATTRIBUTES", 3)
    columns = {f"c{i}": [i] for i in range(4)}
    pq.write_table(pa.table({"image": [b"a"], "label": [7], **columns}), tmp_path / "a.parquet")
    dataset = featcache.load_dataset(tmp_path / "a.parquet")
    assert dataset.labels == [7]
    assert dataset.attributes == {}
    assert "5 columns" in caplog.text
