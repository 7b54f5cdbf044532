"""Tests of the rows of a table that a report writes out."""

import pytest
import torch

from lit_xai.report.changed_rows import gallery_table
from lit_xai.report.explaining import Maps
from lit_xai.report.pictures import Gallery, Look
from tests.reports import record

NAMES = ["age", "job=cook", "job=nurse", "job=pilot"]
GROUPS = ["age", "job", "job", "job"]
MEAN, STD = [40.0, 0.3, 0.6, 0.1], [10.0, 1.0, 1.0, 1.0]
NURSE = [38.0, 0.0, 1.0, 0.0]


def counts(own, values=NURSE, **look):
    """Return what the report says counts most for a row."""
    found = record(explained=False)
    values = (torch.tensor([values]) - torch.tensor(MEAN)) / torch.tensor(STD)
    by_network = {one.name: {"x": torch.tensor([own])} for one in found.networks}
    maps = Maps("Occlusion", "zero", [7], values, by_network, {})
    look = {"feature_names": NAMES, "mean": MEAN, "std": STD, **look}
    table = gallery_table(found, Gallery("changed", "", maps, [0]), Look(**look))
    return table["rows"][0][-1]


def test_a_category_is_one_feature_with_the_value_that_the_row_has():
    assert counts([-2.0, 0.5, 1.0, 0.5], feature_groups=GROUPS) == "age = 38 (\N{MINUS SIGN}50%), job=nurse (+50%)"
    assert counts([1.0, 0.0, 1.0, 0.0], feature_groups=["age", *["position"] * 3]) == (
        "age = 38 (+50%), position = job=nurse (+50%)"
    )


@pytest.mark.parametrize("values", [[38.0, 0.0, 0.0, 0.0], [38.0, 0.0, 1.0, 1.0], [38.0, 0.5, 0.25, 0.25]])
def test_a_feature_of_columns_that_are_no_category_has_no_value(values):
    assert counts([1.0, 0.0, 3.0, 0.0], values, feature_groups=GROUPS) == "job (+75%), age = 38 (+25%)"


def test_a_zero_is_written_as_zero_after_normalization():
    assert counts([0.0, 3.0, 0.0, 1.0]) == "job=cook = 0 (+75%), job=pilot = 0 (+25%)"


def test_what_is_nothing_is_not_listed():
    assert counts([1.0, 0.001, 0.0, 0.0]) == "age = 38 (+100%)"
    assert counts([0.0, 1.0, -1.0, 0.0], feature_groups=GROUPS) == "nothing"


def test_texts_are_written_with_the_words_that_count_most():
    found = record(explained=False)
    values = torch.tensor([[1, 3, 4, 5, 2, 0, 0, 0]])
    own = torch.tensor([[0.0, 1.0, 3.0, 2.0, 0.0, 0.0, 0.0, 0.0]])
    by_network = {one.name: {"input_ids": own * sign} for one, sign in zip(found.networks, (1, 1, -1), strict=True)}
    maps = Maps("Occlusion", "zero", [7], {"input_ids": values}, by_network, {})
    look = Look(token_names=["[PAD]", "[CLS]", "[SEP]", "a", "dull", "##ish"])
    table = gallery_table(found, Gallery("changed", "", maps, [0]), look)
    assert table["columns"][:2] == ["test sample", "text"]
    assert table["rows"][0][1] == "a dullish"
    minus = "\N{MINUS SIGN}"
    assert table["rows"][0][-2:] == ["dullish (+83%), a (+17%)", f"dullish ({minus}83%), a ({minus}17%)"]
    assert "the 3 words that count most" in table["note"]


def test_values_and_categories_are_left_out_where_samples_are_not_shown():
    assert counts([1.0, 0.0, 1.0, 0.0], samples="maps_only", feature_groups=GROUPS) == "age (+50%), job (+50%)"
