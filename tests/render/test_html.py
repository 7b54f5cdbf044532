from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from lit_xai.render import attribution_html

NAMES = ["[PAD]", "<b>&", "un", "##believ", "##able", "good"]


class Spans(HTMLParser):
    """Reads a page as a browser would: the text, and each span with its attributes."""

    def __init__(self, page):
        super().__init__()
        self.spans, self.text, self.open = [], "", []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.open += [tag] * (tag != "meta")
        if tag == "span" and "style" in dict(attrs):
            self.spans.append([dict(attrs), ""])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] == "span" and self.spans:
            self.spans[-1][1] += data


def page_of(ids, maps, **options):
    return attribution_html(torch.tensor(ids), torch.tensor(maps), token_names=NAMES, **options)


def test_every_token_has_its_words_its_share_and_its_color():
    page = Spans(page_of([[5, 2, 3, 4, 0]], [[3.0, -1.0, 0.0, 0.0, 0.0]], limit=0.75))
    words = [text.split()[0] for _, text in page.spans[:5]]
    assert words == ["good", "un", "believ", "able", "[PAD]"]
    assert [attributes["title"] for attributes, _ in page.spans[:2]] == ["+75.0%", "-25.0%"]
    assert "#67001f" in page.spans[0][0]["style"]
    assert "unbelievable" in page.text


def test_what_is_said_of_a_text_is_set_apart_by_dots():
    page = page_of([[5, 2]], [[3.0, -1.0]], labels=[1], predictions=[1], class_names=["bad", "fine"])
    assert "true fine · pred fine ✓ · Σ|a| = 4" in Spans(page).text


def test_names_of_tokens_and_classes_are_text_and_no_markup():
    page = page_of([[1, 5]], [[1.0, 2.0]], title="<script>", labels=[0], class_names=["<i>"])
    assert Spans(page).spans[0][1].strip() == "<b>&"
    assert "<script>" not in page
    assert "<i>" not in page


def test_texts_are_whole_and_need_no_other_file():
    page = page_of([[5] * 2000], np.ones((1, 2000)))
    assert page.count(">good<") == 0  # one run of equal tokens
    page = page_of([[5, 2] * 1000], np.ones((1, 2000)))
    assert page.count(">good<") == 1000
    assert "http" not in page
    assert "src=" not in page


@pytest.mark.parametrize("options", [{"shows_inputs": False}, {"kind": "heatmap"}])
def test_there_is_none_of_other_kinds_or_where_inputs_must_not_be_shown(options):
    assert page_of([[1, 5]], [[1.0, 2.0]], **options) == ""


def test_there_is_none_of_images():
    assert attribution_html(torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)) == ""


def test_special_tokens_do_not_decide_which_way_a_text_runs():
    # dir="auto" goes by the first letter of a direction, and leaves out what has one of its own.
    names = ["[PAD]", "[CLS]", "\u05e9\u05dc\u05d5\u05dd"]
    options = {"token_names": names, "labels": [0], "class_names": ["\u05e8\u05e2"]}
    page = attribution_html(torch.tensor([[1, 2, 2]]), torch.ones(1, 3), **options)
    special, *words = [attributes.get("dir") for attributes, _ in Spans(page).spans[:3]]
    assert (special, words) == ("ltr", [None, None])
    assert '<b dir="auto">\u05e8\u05e2</b>' in page
