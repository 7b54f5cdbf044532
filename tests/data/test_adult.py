import pytest

from lit_xai.data import Adult

parquet = pytest.importorskip("pyarrow.parquet")
import pyarrow  # noqa: E402 - where it is installed

NUMBERS = ("age", "fnlwgt", "educational-num", "capital-gain", "capital-loss", "hours-per-week")
TEXTS = ("workclass", "education", "marital-status", "occupation", "relationship", "race", "gender", "native-country")


@pytest.fixture
def folder(tmp_path):
    columns = {name: list(range(40)) for name in NUMBERS} | {
        name: [f"{name} {i % 3}" for i in range(40)] for name in TEXTS
    }
    table = pyarrow.table(columns | {"income": ["<=50K", ">50K"] * 20})
    (tmp_path / "adult").mkdir()
    parquet.write_table(table, tmp_path / "adult" / "adult.parquet.brotli", compression="brotli")
    return tmp_path


def test_its_columns(folder):
    data = Adult(folder)
    data.prepare_data()
    data.setup()
    kept = [name for name in (*NUMBERS, *TEXTS) if name not in ("fnlwgt", "educational-num")]
    assert list(dict.fromkeys(data.feature_groups)) == kept
    assert data.train_dataset.inputs.shape == (29, 4 + 8 * 3)
    assert data.num_classes == 2


def test_a_missing_file_is_named_with_its_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Adult misses adult\.parquet\.brotli in the folder '.*adult'"):
        Adult(tmp_path).prepare_data()


def test_a_damaged_file_is_named(folder):
    (folder / "adult" / "adult.parquet.brotli").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=r"adult\.parquet\.brotli' cannot be read"):
        Adult(folder).setup()
