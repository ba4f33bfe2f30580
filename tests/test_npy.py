"""Valid .npy files are read as by numpy; others raise NpyError."""

import io
import struct
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as of_numpy

from fr_ps.errors import InputError
from fr_ps.npy import NpyError, array_header, map_array, read_array, read_npy


def read(content: bytes) -> np.ndarray:
    return read_npy(io.BytesIO(content), len(content))


def written(array: np.ndarray, version: tuple[int, int] = (1, 0)) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version, allow_pickle=False)
    return file.getvalue()


def forged(header: str, data: bytes = bytes(64)) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text)) + text + data


ARRAYS = of_numpy.arrays(
    st.one_of(of_numpy.floating_dtypes(), of_numpy.integer_dtypes(), of_numpy.boolean_dtypes(), of_numpy.unicode_string_dtypes()),
    of_numpy.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)


@given(ARRAYS, st.booleans(), st.sampled_from([(1, 0), (2, 0), (3, 0)]))
def test_an_array_written_by_numpy_is_read_back(array: np.ndarray, fortran: bool, version: tuple[int, int]) -> None:
    got = read(written(np.asfortranarray(array) if fortran else array, version))
    assert got.dtype == array.dtype
    np.testing.assert_array_equal(got, array)


@given(st.data())
def test_a_file_with_changed_bytes_is_read_within_its_size_or_rejected(data: st.DataObject) -> None:
    content = bytearray(written(np.arange(6, dtype=np.float32).reshape(2, 3)))
    header = data.draw(st.sampled_from([len(content), 10 + 60]))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, header - 1))] = data.draw(
            st.one_of(st.integers(0, 255), st.sampled_from(b"0123456789(,)"))
        )
    content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    try:
        got = read(bytes(content))
    except NpyError:
        return
    assert got.nbytes <= len(content)


BAD_HEADERS = {
    "boolean in the shape": "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 4), }",
    "boolean type": "{'descr': True, 'fortran_order': False, 'shape': (4, 4), }",
    "list as a key": "{[1]: '<f4', 'fortran_order': False, 'shape': (4, 4), }",
    "key twice": "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (4, 4), }",
    "no shape": "{'descr': '<f4', 'fortran_order': False, }",
    "beyond int64": f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**22}, 4), }}",
    "at int64": f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**62}, 4), }}",
    "large beside none": f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**17}, {10**17}, 0), }}",
    "terabytes": "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }",
    "sum": f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({'+'.join(['1'] * 3000)},), }}",
    "brackets": f"{{'descr': '<f4', 'fortran_order': False, 'shape': {'(' * 3000}{')' * 3000}, }}",
    "negative": "{'descr': '<f4', 'fortran_order': False, 'shape': (-4, -4), }",
    "text as the shape": "{'descr': '<f4', 'fortran_order': False, 'shape': '44', }",
    "many axes": f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({'1, ' * 100}), }}",
    "records": "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (4, 4), }",
    "items without size": "{'descr': '<U0', 'fortran_order': False, 'shape': (4, 4), }",
    "unknown items": "{'descr': '<f7', 'fortran_order': False, 'shape': (4, 4), }",
    "objects": "{'descr': '|O', 'fortran_order': False, 'shape': (4, 2), }",
    "number as the order": "{'descr': '<f4', 'fortran_order': 1, 'shape': (4, 4), }",
    "no dictionary": "17",
    "not closed": "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 4), ",
    "code after it": "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 4), } + 1",
    "long": f"{{'descr': '<f4', 'fortran_order': False, 'shape': (4, 4), }}{' ' * 20_000}",
    "empty": "",
}


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_a_forged_header_is_rejected_in_one_line(name: str, tmp_path, rejected) -> None:
    with pytest.raises(NpyError):
        read(forged(BAD_HEADERS[name]))
    (tmp_path / "a.npy").write_bytes(forged(BAD_HEADERS[name]))
    with rejected("a.npy", "not a readable .npy file"):
        read_array(tmp_path / "a.npy")


def test_header_variants_of_other_programs_are_read() -> None:
    expected = np.arange(16, dtype="<f4").reshape(4, 4)
    for header in (
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 4)}",
        '{"shape": (4,4,), "fortran_order": False, "descr": "<f4"}',
        "{ 'shape' : ( 4L , 4L ) , 'descr':'<f4','fortran_order':False }   ",
    ):
        np.testing.assert_array_equal(read(forged(header, expected.tobytes())), expected)
    np.testing.assert_array_equal(
        read(forged("{'descr': '<f4', 'fortran_order': True, 'shape': (4, 4)}", expected.tobytes())), expected.T
    )


@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content + b"\0"], ids=["shorter", "longer"])
def test_a_wrong_number_of_bytes_is_an_error(change) -> None:
    with pytest.raises(NpyError, match="the header states 24"):
        read(change(written(np.zeros((2, 3), np.float32))))


@pytest.mark.parametrize("shape", [(0, 8), (3, 4), (2, 3, 4)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_mapped_array_equals_the_read_one_and_is_read_only(
    tmp_path: Path, shape: tuple[int, ...], order: Literal["C", "F"]
) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape, order=order)
    np.save(tmp_path / "a.npy", array)
    mapped = map_array(tmp_path / "a.npy")
    np.testing.assert_array_equal(mapped, read_array(tmp_path / "a.npy"))
    if mapped.size:
        with pytest.raises(ValueError, match="read-only"):
            mapped[0] = 1


def test_a_mapped_array_is_checked_like_a_read_one(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(written(np.zeros((4, 4), np.float32))[:-1])
    with pytest.raises(InputError, match=r"a.npy: not a readable .npy file \(63 bytes of data; the header states 64\)"):
        map_array(tmp_path / "a.npy")


def test_a_header_and_the_bytes_of_an_array_are_a_file(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    (tmp_path / "a.npy").write_bytes(array_header(array.shape, array.dtype) + array.tobytes())
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), array)
