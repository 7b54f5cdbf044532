import pytest

from lit_xai.data import TextFile


def write(folder, content, name="mine.csv"):
    (folder / name).write_text(content, encoding="utf-8")
    return folder / name


@pytest.fixture
def path(tmp_path):
    return write(tmp_path, "id,review,stars\n" + '1,"a good film, really",good\n2,a bad film,bad\n' * 20)


def file_of(path, **options):
    return TextFile(path, text="review", label="stars", **{"vocab_size": 60, **options})


def test_columns_are_texts_and_classes(path):
    data = file_of(path)
    data.setup()
    assert data.class_names == ["bad", "good"]
    assert data.num_classes == 2
    assert (len(data.train_dataset), len(data.val_dataset), len(data.test_dataset)) == (29, 3, 8)
    row = data.train_dataset[0]
    words = [data.token_names[i] for i in row["input_ids"]]
    assert ("good" in words) == (int(row["labels"]) == 1)


def test_a_test_file_of_its_own(path, tmp_path):
    other = write(tmp_path, "review,stars\na bad good film,good\n", "test.csv")
    data = file_of(path, test_path=other)
    data.setup()
    assert (len(data.train_dataset), len(data.val_dataset), len(data.test_dataset)) == (36, 4, 1)


def test_groups_of_a_column(tmp_path):
    lines = "".join(f"text {i},{i % 2},author{i // 4}\n" for i in range(40))
    data = TextFile(write(tmp_path, "text,label,author\n" + lines), group="author", vocab_size=60)
    texts = data.read()
    train, val, test = data.split(texts)
    parts = [{texts.groups[i] for i in part.tolist()} for part in (train, val, test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 10


@pytest.mark.parametrize(
    ("content", "options", "match"),
    [
        ("text,label\na,b\n", {"text": "txt"}, "text expected one of text, label, but got 'txt'. Did you mean 'text'"),
        ("text,label\na,b\n", {"label": "class"}, "label expected one of text, label, but got 'class'"),
        ("text,label\na,b\n,c\n", {}, "texts expected words in every text, but line 3 of .* is empty"),
        ("text,label\na,b\nc,\n", {}, "Column 'label' expected one of b, but got '' in line 3 of"),
        ("text,label\na,b\nc,b\n", {}, "Column 'label' expected two or more classes, but got"),
        (
            "text,label\na,b\nc,d\n",
            {"class_names": ["b", "e"]},
            "expected one of b, e, but got 'd' in line 3",
        ),
        ("text,label\n", {}, "has no values"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_sentence(content, options, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        TextFile(write(tmp_path, content), **{"vocab_size": 60, **options}).setup("fit")


def test_a_label_of_the_test_that_training_has_not(path, tmp_path):
    other = write(tmp_path, "review,stars\nfine,fine\n", "test.csv")
    with pytest.raises(ValueError, match="Column 'stars' expected one of bad, good, but got 'fine' in line 2 of"):
        file_of(path, test_path=other).setup("fit")


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no CSV file"):
        TextFile(tmp_path / "none.csv").setup("fit")
