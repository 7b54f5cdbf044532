import contextlib
import io
import random
import time
from collections.abc import Iterator
from functools import wraps
from itertools import islice
from pathlib import Path

import pytest
import yaml
from damage import damaged_bytes
from lightning.pytorch import Trainer

from lit_xai.cli import main
from lit_xai.cli.config_files import DEEPEST, LARGEST, MOST, check_config
from lit_xai.cli.configs import find_config, known_configs

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 36))
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 60))

REFUSED = {
    b"model: \xe9\n": "expected text in UTF-8, but got the byte 0xe9 in line 1: save it as UTF-8.",
    "trainer: {}\n".encode("utf-16"): "expected text in UTF-8, but got the byte 0xff in line 1",
    "trainer: {}\n".encode("utf-16-le"): "no valid YAML: ",
    bytes(range(256)): "expected text in UTF-8",
    b"trainer:\n  max_epochs: 2\0\n": "no valid YAML: ",
    b"": "expected names and their values, but it is empty.",
    b"# nothing\n": "expected names and their values, but it is empty.",
    b"- a\n- b\n": "expected names and their values, but got a list.",
    b"hello\n": "expected names and their values, but got a str.",
    b"a: 1\n---\nb: 2\n": "expected one document, but line 2 begins another.",
    b"a: " + b"[" * 100_000: f"at most {DEEPEST} lists and mappings in each other, but line 1 has more.",
    b"a: " + b"{a: " * 3000 + b"}" * 3000: f"at most {DEEPEST} lists and mappings",
    b"".join(b" " * i + b"a:\n" for i in range(1000)): f"at most {DEEPEST} lists and mappings",
    CHAIN.encode(): f"at most {DEEPEST} lists and mappings in each other, but line 40 has more.",
    BOMB.encode(): f"at most {MOST:,} values, but there are more from line ",
    b"a: " + b"x" * LARGEST: f"at most {LARGEST:,} bytes, but got {LARGEST + 3:,}.",
    b"a: &a [*a]\n": "line 1 refers to *a, which is not given before.",
    b"a: *b\n": "line 1 refers to *b, which is not given before.",
    b"a: 1\nb: 2\na: 3\n": "line 3 gives 'a' a second time in one mapping: leave one out.",
    b"a:\n- {b: 1, c: 2, b: 3}\n": "line 2 gives 'b' a second time",
    b"trainer:\n\tmax_epochs: 2\n": "no valid YAML: ",
    b"1: 2\n": "expected names of options, but got 1.",
    b"on: 2\n": "expected names of options, but got True.",
    b"? [a, b]\n: 3\n": "no valid YAML: ",
    b"a: " + b"9" * 5000: "no valid YAML: Exceeds the limit",
    b"a: 2020-13-45\n": "no valid YAML: month must be in 1..12.",
    b"a: !!python/object/apply:os.system ['echo hi']\n": "no valid YAML: could not determine a constructor",
    b"a:\n  <<: 3\n": "no valid YAML: ",
    b"trainer: [1]\n": "trainer: expected names and their values, but got a list.",
}


@pytest.mark.parametrize("content", REFUSED, ids=lambda content: repr(content[:20]))
def test_what_no_configuration_can_be_is_refused_at_once(content, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"^[^\n]+$") as refusal:
        check_config(file)
    assert REFUSED[content] in str(refusal.value)
    assert len(str(refusal.value)) < 300
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbftrainer: {max_epochs: 2}\n",  # the mark that editors on Windows write
        "# déjà vu\ntrainer:\n  max_epochs: 2\n".encode(),
        b"x: &x {a: 1}\ny: {<<: *x, b: 2}\nz: [*x, *x]\n",
        b"trainer: {max_epochs: 1_000, gradient_clip_val: .nan}\n",
        b"a: {1: x, 2: y}\n",
        b"trainer: null\n",
    ],
)
def test_what_yaml_allows_and_means_something_passes(content, tmp_path):
    (tmp_path / "mine.yaml").write_bytes(content)
    check_config(tmp_path / "mine.yaml")


@pytest.mark.parametrize("name", known_configs())
def test_shipped_configurations_pass(name):
    check_config(find_config(name))


def test_an_aliased_value_counts_as_often_as_it_is_used(tmp_path):
    # A witness that builds the value: the largest bomb that passes, and the smallest that does not.
    def entries(value):
        children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
        return 1 + sum(map(entries, children))

    file = tmp_path / "mine.yaml"
    for lines in range(9, 15):
        file.write_text("\n".join(BOMB.splitlines()[:lines]))
        if entries(yaml.safe_load(file.read_text())) + lines <= MOST:  # names count as well
            check_config(file)
        else:
            with pytest.raises(ValueError, match="values"):
                check_config(file)


def test_the_command_names_the_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_bytes(b"model: \xe9\n")
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config=mine.yaml"])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("lit-xai: error: in config 'mine.yaml': expected text in UTF-8")


def test_two_callbacks_of_one_kind_are_one_sentence(folder, fit, capsys):
    spec = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"monitor": "val/loss"}}
    Path("mine.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": [spec]}}))
    assert fit("--config=mine.yaml", "--config=mine.yaml") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("lit-xai: error: two callbacks are ModelCheckpoint with the same settings")


# --- damage -------------------------------------------------------------------------------------------------------

STRANGE = (
    *(
        "null",
        "true",
        "-1",
        "0",
        "1e400",
        ".nan",
        "9" * 500,
        "9" * 5000,
        "''",
        "x",
        "[]",
        "{}",
        "[1, x]",
        "{a: 1}",
        "~",
    ),
    *("!!python/name:os.system", "!!binary aGk=", "!!set {a}", "2020-01-01", "2020-13-01", "1:2:3", "*a", "&a [*a]"),
    *(
        "'\\0'",
        '"\\x00"',
        '"\\uD800"',
        "é" * 300,
        "<<: 3",
        "${HOME}",
        "\t",
        "- - - x",
        "{" * 60,
        "lit_xai",
        "os.system",
    ),
    *(
        "lit_xai.models.MLP",
        "{class_path: 3}",
        "{class_path: os.system}",
        "{class_path: lit_xai.models.MLP, init_args: 3}",
    ),
)


def damaged_configs(seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield shipped configurations with bytes, lines, values or levels changed."""
    rng = random.Random(seed)
    while True:
        name = rng.choice(known_configs())
        raw = Path(find_config(name)).read_bytes()
        how = rng.choice([_bytes, _line, _line, _value, _value, _value, _level])
        yield f"{name}: {how.__name__}", how(raw, rng)


def _bytes(raw: bytes, rng: random.Random) -> bytes:
    return next(damaged_bytes(raw, rng.randrange(10**6)))[1]


def _line(raw: bytes, rng: random.Random) -> bytes:
    lines = raw.splitlines(keepends=True)
    first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
    change = rng.choice(["drop", "repeat", "swap", "indent", "outdent", "tab", "cut"])
    if change == "swap":
        lines[first], lines[second] = lines[second], lines[first]
    else:
        line = lines[first]
        lines[first : first + 1] = {
            "drop": [],
            "repeat": [line, line],
            "indent": [b" " * rng.randrange(1, 5) + line],
            "outdent": [line[2:]],
            "tab": [b"\t" + line],
            "cut": [line[: len(line) // 2] + b"\n"],
        }[change]
    return b"".join(lines)


def _value(raw: bytes, rng: random.Random) -> bytes:
    lines = raw.splitlines()
    places = [i for i, line in enumerate(lines) if b":" in line and not line.startswith(b"#")]
    i = rng.choice(places)
    lines[i] = lines[i].partition(b":")[0] + b": " + rng.choice(STRANGE).encode()
    return b"\n".join(lines) + b"\n"


def _level(raw: bytes, rng: random.Random) -> bytes:
    value = yaml.safe_load(raw)
    for _ in range(rng.choice([1, 2, 50])):
        value = rng.choice([lambda v: {"trainer": v}, lambda v: {"model": v}, lambda v: [v], lambda v: {3: v}])(value)
    return yaml.safe_dump(value).encode()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("first", "n"), [(0, 10), *(pytest.param(30 * i, 30, marks=pytest.mark.slow) for i in range(1, 11))]
)
def test_a_damaged_configuration_is_one_sentence_or_starts(first, n, folder, monkeypatch):
    monkeypatch.setattr(Trainer, "fit", wraps(Trainer.fit)(lambda *_, **__: None))
    wrong = []
    for label, content in islice(damaged_configs(first), n):
        Path("mine.yaml").write_bytes(content)
        start, error = time.process_time(), io.StringIO()
        with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
            try:
                code = main(
                    ["fit", "--config=base", "--config=digits", "--config=mine.yaml", "--trainer.accelerator=cpu"]
                )
            except SystemExit as end:
                code = end.code
            except BaseException as raised:
                code = repr(raised)[:200]
        last = (error.getvalue().splitlines() or [""])[-1]
        if not (code == 0 or (code in (1, 2) and last.startswith("lit-xai: error: "))):
            wrong.append((label, code, last, content))
        if time.process_time() - start > 10:
            wrong.append((label, "slow", last, content))
    assert wrong == []
