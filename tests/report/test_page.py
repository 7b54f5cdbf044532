import base64
import itertools
import re
from html.parser import HTMLParser

import pytest
from reports import FACTS, NASTY, record

from lit_xai.report.drawings import both_axes
from lit_xai.report.page import MOST, SECTIONS, page
from lit_xai.report.summary import summary

VOID = {"meta", "link", "input", "img", "br", "line", "circle", "rect", "path", "use"}
CASES = {
    "full": {"facts": FACTS},
    "both axes": {"faithful": True, "facts": {**FACTS, "faithfulness": []}},
    "afterwards": {"classes": 2, "facts": {**FACTS, "stated": "afterwards", "reading": 3}},
    "binary": {"task": "binary", "classes": 2},
    "values": {"task": "values", "facts": {"requirements": {"mae": "ratio<=1.05"}}},
    "bare": {"labels": False, "groups": False, "explained": False, "latency": False, "costs": False, "n": 40},
    "many": {"n": 400, "classes": 1000, "groups": False, "explained": False, "latency": False},
}
BADGES = {"passed": "Passed", "failed": "Failed", "inconclusive": "Inconclusive", None: "No verdict"}


class Reader(HTMLParser):
    """Reads a page as a browser would, and keeps what tests ask for."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs), tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs), tuple(self.open)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)

    def all(self, *names):
        return [attrs for tag, attrs, _ in self.tags if tag in names]


@pytest.fixture(scope="module", params=CASES)
def shown(request):
    arguments = dict(CASES[request.param])
    one = record(**arguments, **arguments.pop("facts", {})) if "facts" not in arguments else None
    if one is None:
        facts = arguments.pop("facts")
        one = record(**arguments, **facts)
    numbers = summary(one)
    return one, numbers, page(one, numbers)


def test_every_tag_is_closed_and_every_link_leads_somewhere(shown):
    reader = Reader(shown[2])
    assert reader.open == []
    ids = [attrs["id"] for _, attrs, _ in reader.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [attrs.get("href") or attrs["xlink:href"] for attrs in reader.all("a", "use")]
    links += [f"#{name}" for name in re.findall(r"url\(#([^)]*)\)", shown[2])]
    assert {link for link in links if not link.startswith("#")} == set()
    assert {link[1:] for link in links} <= set(ids)


def test_nothing_is_requested_or_run(shown):
    reader = Reader(shown[2])
    assert reader.all("script", "iframe", "object", "embed", "base", "form") == []
    assert not [name for _, attrs, _ in reader.tags for name in attrs if name.startswith("on")]
    sources = [attrs[key] for _, attrs, _ in reader.tags for key in ("src", "href", "xlink:href") if key in attrs]
    assert {source.partition(":")[0] for source in sources if not source.startswith("#")} <= {"data"}
    assert not re.search(r"url\((?!#)|@import", shown[2])
    assert len(shown[2]) < 200_000


def test_a_screen_reader_finds_its_way(shown):
    reader = Reader(shown[2])
    assert reader.all("html")[0]["lang"] == "en"
    levels = [int(tag[1]) for tag, _, _ in reader.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(now <= before + 1 for before, now in itertools.pairwise(levels))
    captioned = [within for tag, _, within in reader.tags if tag == "caption"]
    assert len(captioned) == len([one for one in reader.all("table") if one.get("class") != "facts"])
    assert all(attrs.get("scope") in ("row", "col") for attrs in reader.all("th"))
    named = {attrs["for"] for attrs in reader.all("label")}
    assert {attrs["id"] for attrs in reader.all("input", "textarea")} == named
    assert all(attrs.get("alt") for attrs in reader.all("img"))
    for tag, attrs, within in reader.tags:
        if tag == "svg":
            assert attrs.get("aria-hidden") == "true" or "figure" in within
        if attrs.get("role") in ("img", "region"):
            assert attrs["aria-label"]


def test_names_are_shown_as_they_are_written(shown):
    assert NASTY in "".join(Reader(shown[2]).text)
    assert not [tag for tag, _, within in Reader(shown[2]).tags if tag == "b" and within[-1:] == ("bdi",)]


def test_the_verdict_and_the_limits_stand_before_the_numbers(shown):
    _, numbers, text = shown
    found = "".join(Reader(text).text)
    places = [found.index(BADGES[numbers["verdict"]["outcome"]])]
    places += [text.index(f'<h2 id="{anchor}"') for anchor in SECTIONS if f'<h2 id="{anchor}"' in text]
    assert places[1:] == sorted(places[1:])
    assert list(SECTIONS)[:2] == ["verdict", "limits"]
    assert list(SECTIONS)[-1] == "sign-off"
    for limit in numbers["limits"]:
        assert limit in found


def test_an_afterthought_is_loud():
    facts = {"requirements": {"flips": "<=0.5"}}
    for stated, is_loud in (("before", False), ("afterwards", True)):
        text = page(record(n=50, explained=False, latency=False, costs=False, **facts, stated=stated))
        assert ('<p class="loud">Requirements stated afterwards' in text) == is_loud


def test_a_thousand_classes_are_ten_rows():
    one = record(n=1500, classes=1000, groups=False, explained=False, latency=False, costs=False, change=0.05)
    numbers = summary(one)
    text = page(one, numbers)
    assert len(numbers["classes"]) > 700
    body = text[text.index('aria-label="Table of classes"') : text.index('<h2 id="flips"')]
    assert body.count("<tr") == 1 + MOST
    lost = {row["name"]: row["loss"]["value"] for row in numbers["classes"]}
    shown = [lost[name] for name in re.findall(r'<th scope="row"><bdi>(\d+)</bdi>', body)]
    assert shown == sorted(lost.values(), reverse=True)[:MOST]


def test_a_failed_sanity_check_is_loud():
    one = record(n=60, requirements={"retention": ">=0.1"})
    assert summary(one)["verdict"]["outcome"] == "passed"
    one.explained[0].arguments["sanity"] = {"passed": False, "text": "Random weights give the same maps."}
    assert "Sanity check failed: this explainer cannot support the verdict." in page(one)
    assert summary(one)["verdict"]["outcome"] == "inconclusive"


def test_pictures_are_part_of_the_page_as_long_as_there_is_room():
    png = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(900_000)).decode()
    pictures = [{"title": f"picture {i}", "alt": 'seven "threes"', "png": png} for i in range(6)]
    text = page(record(n=40, explained=False, latency=False, costs=False, pictures=pictures))
    assert text.count("data:image/png") == 3
    assert text.count("It would make the page too large") == 3
    assert len(text) < 5_000_000


def test_rules_are_given_evidence_and_nothing_complies():
    text = page(record(n=40, explained=False, latency=False, costs=False))
    assert "complian" not in text.lower()
    for rule in ("Annex IV, 2", "Annex IV, 3", "Annex IV, 6", "Article 13", "Article 15", "Article 86", "SR 26-2"):
        assert rule in text
    assert "1002.9" in text


def luminance(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_letters_stand_out_in_light_and_dark():
    text = page(record(n=20, explained=False, latency=False, costs=False))
    themes = [
        dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    ]
    assert len(themes) == 2
    for theme in themes:
        for letters in ("ink", "muted", "link", "passed", "failed", "inconclusive", "first", "second", "null"):
            for paper in ("paper", "soft", "tint"):
                dark, light = sorted((luminance(theme[letters]), luminance(theme[paper])))
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (letters, paper)


def test_both_axes_are_read_together():
    one = record(faithful=True, requirements={})
    numbers, found = summary(one), "".join(Reader(page(one)).text)
    rows = numbers["explainers"][0]["faithful"]["networks"]
    assert [row["name"] for row in rows] == [network.name for network in one.networks]
    assert "11 steps and 3 random orders" in found
    assert numbers["explainers"][0]["faithful"]["reading"] in found
    assert "Neither axis says whether predictions are right" in found
    assert "was not measured" not in found
    assert page(one).count('"Scatter plot of how faithful each network') == 1


def test_marks_at_one_place_have_their_letters_beside_each_other():
    numbers = {"value": 0.5, "low": 0.4, "high": 0.6}
    points = [{"letter": one, "is_reference": one == "A", "x": {"value": 1.0}, "y": numbers} for one in "ABC"]
    drawn = both_axes(points, "retention", "faithfulness", "one")
    places = [float(re.search(rf'<text [^>]* x="([^"]*)"[^>]*>{one}</text>', drawn)[1]) for one in "ABC"]
    assert sorted(places) == places
    assert min(b - a for a, b in itertools.pairwise(places)) > 8
