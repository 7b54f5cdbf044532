"""Catalogs of gettext, against the standard library's own reader and writer of the format."""

import gettext
import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_xai.data import Phrases
from lit_xai.data.phrases import SYSTEM, read_catalog

NAMES = {"Germany": "Deutschland", "Arabic": "Arabisch", "Old Welsh": "Altwalisisch", "Norway": "Norwegen"}


def catalog(messages, order="<"):
    """A ``.mo`` file, as the manual of gettext describes it."""
    rows = sorted({"": "Content-Type: text/plain; charset=UTF-8\n", **messages}.items())
    keys, values = ([text.encode() for text in side] for side in zip(*rows, strict=True))
    start = 28 + 16 * len(rows)
    tables, data = b"", b""
    for side in (keys, values):
        for text in side:
            tables += struct.pack(f"{order}2I", len(text), start + len(data))
            data += text + b"\0"
    head = struct.pack(f"{order}7I", 0x950412DE, 0, len(rows), 28, 28 + 8 * len(rows), 0, 0)
    return head + tables + data


def folder_with(tmp_path, messages, kind="iso_3166-1", inner=()):
    place = tmp_path.joinpath("de", *inner)
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{kind}.mo").write_bytes(catalog(messages))
    return tmp_path


TEXTS = st.text(st.characters(exclude_characters="\0\4", exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@given(st.dictionaries(TEXTS, TEXTS, max_size=8), st.sampled_from("<>"))
def test_every_message_is_read_as_the_standard_library_does(messages, order):
    data = catalog(messages, order)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pathlib.Path.read_bytes", lambda _: data)
        found = read_catalog("any.mo")
    assert found == messages
    witness = gettext.GNUTranslations(io.BytesIO(data))
    assert all(witness.gettext(source) == target for source, target in messages.items())


def test_contexts_are_dropped_and_plurals_left_out(tmp_path):
    folder_with(tmp_path, {"place\4Turkey": "Türkei", "boat\0boats": "Boot\0Boote", "empty": ""})
    assert read_catalog(tmp_path / "de" / "iso_3166-1.mo") == {"Turkey": "Türkei"}


@pytest.mark.parametrize("inner", [(), ("LC_MESSAGES",)])
def test_names_that_differ_are_pairs(tmp_path, inner):
    folder_with(tmp_path, {**NAMES, "Angola": "Angola"}, inner=inner)
    folder_with(tmp_path, {"Euro": "Euro", "Pound": "Pfund"}, "iso_4217", inner)
    assert Phrases(folder=tmp_path).read() == sorted({**NAMES, "Pound": "Pfund"}.items())
    assert Phrases(folder=tmp_path, kinds=["iso_4217"]).read() == [("Pound", "Pfund")]


def test_missing_files_are_named_with_what_installs_them(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"iso_3166-1.mo and iso_639-3.mo .*iso-codes"):
        Phrases("xx", folder=tmp_path).prepare_data()
    folder_with(tmp_path, NAMES)
    with pytest.raises(FileNotFoundError, match=r"iso_9.mo"):
        Phrases(folder=tmp_path, kinds=["iso_3166-1", "iso_9"]).prepare_data()


@pytest.mark.parametrize("damage", [b"", b"hello, world, this is none", catalog(NAMES)[:60], catalog(NAMES)[:-20]])
def test_what_is_no_catalog_is_refused(tmp_path, damage):
    (tmp_path / "x.mo").write_bytes(damage)
    with pytest.raises(ValueError, match="expected a gettext catalog"):
        read_catalog(tmp_path / "x.mo")


def test_the_systems_own_are_read():
    data = Phrases()
    try:
        data.prepare_data()
    except FileNotFoundError:
        pytest.skip(f"no iso-codes in {SYSTEM}")
    assert len(data.read()) > 500
