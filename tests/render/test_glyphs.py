import pytest

from lit_xai.render import glyphs
from lit_xai.render.glyphs import LACKING, OWN, writable


def test_letters_that_no_font_has_are_replaced():
    assert writable("a\U000e0001b") == (f"a{LACKING}b", (OWN,))


@pytest.mark.parametrize("words", ["naïve", "שלום", "مرحبا", "↵⇥␣�□", "кино", "½"])
def test_what_matplotlibs_own_font_has_is_written_in_it(words):
    assert writable(words) == (words, (OWN,))


def test_another_installed_font_steps_in(monkeypatch):
    monkeypatch.setattr(glyphs, "_font_of", lambda letter: {"好": "Some Font", "z": None}.get(letter, OWN))
    assert writable("a好z") == (f"a好{LACKING}", (OWN, "Some Font"))


def test_a_font_that_is_gone_has_no_letters(tmp_path):
    assert glyphs._letters(str(tmp_path / "gone.ttf")) == frozenset()
