import pytest
import yaml
from reports import FACTS, NASTY, record

from lit_xai.report.card import model_card
from lit_xai.report.summary import summary
from lit_xai.report.words import interval


def header_of(card):
    start, header, _ = card.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(header)


@pytest.mark.parametrize(
    "arguments",
    [FACTS, {"task": "values"}, {"task": "binary", "classes": 2}, {"labels": False, "explained": False, "n": 20}],
)
def test_the_hub_reads_the_header(arguments):
    hub = pytest.importorskip("huggingface_hub")
    one = record(**arguments)
    card = hub.ModelCard(model_card(one))
    metrics = {result.metric_name: result.metric_value for result in card.data.eval_results or []}
    if one.labels is not None:
        last = summary(one)["networks"][-1]
        assert metrics[last["metric"]["name"]] == last["metric"]["value"]
        assert {result.dataset_split for result in card.data.eval_results} == {"test"}
    assert set(card.data.tags) >= {"lit-xai", "model-compression"}


def test_the_user_has_the_last_word_in_the_header():
    found = header_of(model_card(record(n=40, **{**FACTS, "card": {"license": "mit", "library_name": "timm"}})))
    assert (found["license"], found["library_name"]) == ("mit", "timm")
    assert found["model-index"][0]["name"].endswith(NASTY)


def test_the_numbers_are_those_of_the_report():
    one = record(**FACTS)
    card, numbers = model_card(one), summary(one)
    for line in numbers["verdict"]["lines"]:
        assert interval(line).replace("[", "\\[").replace("]", "\\]") in card
    assert numbers["networks"][-1]["name"] not in card.split("---\n", 2)[2]  # escaped
    assert "[" not in card.split("---\n", 2)[2].replace("\\[", "")


def test_no_name_leaves_its_cell():
    body = model_card(record(**FACTS)).split("---\n", 2)[2]
    tables = [line for line in body.splitlines() if line.startswith("|")]
    networks = [line for line in tables if line.startswith("| accuracy |")]
    assert networks
    assert all(line.replace("\\|", "").count("|") == 5 for line in networks)
    assert "<b>" not in body.replace("\\<b\\>", "")


def test_an_afterthought_and_who_was_hurt_are_in_bold():
    one = record(n=600, requirements={"flips": "<=0.9"})
    one.candidate.outputs[one.groups == 1] *= -1
    card = model_card(one)
    assert "**Requirements stated afterwards" in card
    assert "surely hurt" in card
    assert "| group | south |" in card
