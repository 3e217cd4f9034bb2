"""Texts behave as a tuple of str, whatever Arrow array is inside."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from homing.pools.lookup import RowsById
from homing.pools.names import RowNames
from homing.pools.texts import Texts, digest_of, digest_of_pairs

WORDS = ("b", "a", "cé", "a", "", "zz\n")


@pytest.fixture(params=["plain", "encoded", "chunks", "slice"])
def texts(request):
    if request.param == "plain":
        return Texts(WORDS)
    if request.param == "encoded":
        return Texts(pa.array(WORDS).dictionary_encode())
    if request.param == "chunks":
        return Texts(pa.chunked_array([pa.array(WORDS[:2]), pa.array(WORDS[2:])]))
    return Texts(["x", *WORDS, "y"])[1:-1]


def test_texts_are_a_sequence(texts):
    assert texts == WORDS
    assert list(WORDS) == texts
    assert tuple(texts) == WORDS
    assert (len(texts), texts[2], texts[-1], texts[1:3], texts[::-2]) == (6, "cé", "zz\n", WORDS[1:3], WORDS[::-2])
    assert (texts.index("a"), texts.index("a", 2), texts.count("a")) == (1, 3, 2)
    assert "cé" in texts
    assert "c" not in texts
    assert 3 not in texts
    assert texts != WORDS[:-1]
    assert texts != (*WORDS[:-1], "z")
    with pytest.raises(ValueError, match="'c' is not among the 6 texts"):
        texts.index("c")
    with pytest.raises(IndexError):
        texts[6]


def test_texts_are_taken_joined_and_encoded(texts):
    rows = np.array([5, 0, 0])
    assert texts.take(rows) == tuple(WORDS[row] for row in rows)
    assert texts.with_prefix("p/") == tuple(f"p/{word}" for word in WORDS)
    assert Texts.concat([texts, Texts.constant("k", 2), texts]) == (*WORDS, "k", "k", *WORDS)
    codes, names = texts.encode()
    assert names == ("", "a", "b", "cé", "zz\n")
    assert tuple(names[code] for code in codes) == WORDS
    assert texts.unique() == names
    assert texts.take(np.array([0])).unique() == ("b",)
    assert texts.to_arrow().to_pylist() == list(WORDS)
    assert texts.first_double() in (1, 3)
    assert texts.take(np.array([0, 1, 2])).first_double() is None
    assert [WORDS[row] for row in texts.order()] == sorted(WORDS)


def test_digests_are_those_of_the_texts_one_by_one(texts):
    digest = hashlib.sha256()
    for text in WORDS * 2:
        digest.update(len(text.encode()).to_bytes(8, "little") + text.encode())
    assert digest_of(texts, texts) == digest.hexdigest()
    lines = hashlib.sha256()
    for line in sorted(f"{len(one)}:{one}{other}\n" for one, other in zip(WORDS, WORDS[::-1], strict=True)):
        lines.update(line.encode())
    assert digest_of_pairs(texts, Texts(WORDS[::-1])) == lines.hexdigest()


def test_no_texts_are_texts_too():
    for none in (Texts(), Texts.concat([]), Texts(pa.chunked_array([], pa.string())), Texts(["a"])[:0]):
        assert none == ()
        assert (len(none), none.unique(), none.digest()) == (0, (), hashlib.sha256().hexdigest())
        assert none.first_double() is None
        assert none.to_arrow().to_pylist() == []


def test_a_null_is_an_empty_text():
    assert Texts(pa.array(["a", None])) == ("a", "")
    assert Texts(pa.array(["a", None, "a"]).dictionary_encode()) == ("a", "", "a")


def test_names_of_rows_are_put_together_when_asked():
    names = RowNames([("source", Texts(["a", "b"])), ("target", Texts(["a"]))])
    assert names == ("source a", "source b", "target a")
    assert (names[-1], names[1:], len(names)) == ("target a", ("source b", "target a"), 3)
    assert names.take(np.array([2, 0, 2])) == ("target a", "source a", "target a")
    with pytest.raises(IndexError):
        names[3]


def test_rows_are_found_by_id():
    ids = Texts([f"pool/{number}.png" for number in range(2_000)])
    rows = RowsById(ids)
    assert all(rows.find(sample_id) == row for row, sample_id in enumerate(ids))
    assert rows.find("pool/2000.png") is None
    assert RowsById(Texts()).find("a") is None
