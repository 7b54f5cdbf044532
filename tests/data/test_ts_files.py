import numpy as np
import pytest

from lit_xai.data.ts_files import read_ts

HEADER = "# about it\n@problemName Tones\n@timeStamps false\n@classLabel true low high\n@data\n"


@pytest.fixture
def read(tmp_path):
    def read(text):
        path = tmp_path / "tones.ts"
        path.write_text(text)
        return read_ts(path)

    return read


def test_values_are_those_of_the_text(read):
    rng = np.random.default_rng(0)
    series = [rng.normal(size=(3, length)) for length in (4, 1, 9)]
    lines = [":".join(",".join(repr(float(v)) for v in row) for row in one) for one in series]
    found = read(HEADER + "".join(f"{line}:{name}\n" for line, name in zip(lines, ("low", "high", "low"), strict=True)))
    assert found.labels.tolist() == [0, 1, 0]
    assert found.class_names == ["low", "high"]
    for one, expected in zip(found.series, series, strict=True):
        assert np.array_equal(one, expected)


def test_one_channel_blank_lines_and_any_case_of_the_header(read):
    found = read("@CLASSLABEL TRUE a b\n\n@Data\n1.5,2e3:b\n\n")
    assert (found.series[0].tolist(), found.labels.tolist()) == ([[1.5, 2000.0]], [1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            HEADER + "1,2:3,4:low\n1,2:3:low\n",
            r"line 7, expected channels of one length and a class, but got .*\[1, 2\]",
        ),
        (HEADER + "low\n", r"line 6, expected channels of one length and a class, but got lengths \[\]"),
        (
            HEADER + "1,?:low\n",
            r"line 6, expected numbers separated by commas.*fill in or drop missing values \('\?'\)",
        ),
        (HEADER + "1,2:middle\n", "expected the classes of its header, low, high, but got 'middle'"),
        (HEADER, "expected a line '@data' and cases below it, but got none"),
        ("", "expected a line '@data' and cases below it, but got none"),
        ("1,2:low\n", r"line 1, expected a header line such as '@data', but got '1,2:low'"),
        ("@classLabel false\n@data\n1,2\n", "expected classes in its header"),
        ("@data\n1,2\n", "expected classes in its header"),
        ("@timeStamps true\n@classLabel true a\n@data\n", "expected series without time stamps"),
    ],
)
def test_what_is_no_such_file_is_one_sentence(read, text, message):
    with pytest.raises(ValueError, match=message):
        read(text)
