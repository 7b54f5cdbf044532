from hashlib import sha256

import pytest

from lit_xai.data import MovieLens

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
ITEM = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"


@pytest.fixture
def written(tmp_path, monkeypatch):
    folder = tmp_path / "ml-100k"
    folder.mkdir()
    ratings = [f"{u}\t{i}\t{1 + (u + i) % 5}\t{100 * u + i}\n" for u in (1, 2, 10) for i in (1, 3, 20, 4)]
    (folder / "ml-100k.inter").write_text(INTER + "".join(ratings))
    movies = (
        "1\tToy Story\t1995\tAnimation Comedy\n3\tSting, The\t1973\tAction\n4\tunknown\tV\t\n20\tAlien\t1979\tHorror\n"
    )
    (folder / "ml-100k.item").write_text(ITEM + movies)
    sums = {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    monkeypatch.setattr(MovieLens, "checksums", sums)
    return tmp_path


def test_reads_its_files(written):
    data = MovieLens(written, test_size=3, val_size=0)
    data.prepare_data()
    data.setup()
    assert (data.num_users, data.num_items, len(data.train_dataset), len(data.test_dataset)) == (3, 4, 9, 3)
    assert data.item_names == ["Toy Story (1995)", "The Sting (1973)", "unknown", "Alien (1979)"]
    assert data.genre_names == ["Action", "Animation", "Comedy", "Horror"]
    assert data.ratings.user_ids == [1, 2, 10]  # as numbers, not as text
    assert data.input_features == {"history": data.item_names, "seen": data.item_names, "genres": data.genre_names}


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"MovieLens misses ml-100k\.inter, .* package recbole holds them"):
        MovieLens(tmp_path).setup("fit")
