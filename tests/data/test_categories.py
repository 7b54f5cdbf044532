import numpy as np
import pytest
import torch
from sklearn.preprocessing import OneHotEncoder

from lit_xai.data import Table, TableDataModule
from lit_xai.data.categories import UNKNOWN, category_codes, find_categories, one_hot

JOBS = ["nurse", "cook", "nurse", "pilot"]


def test_one_hot_is_scikit_learns():
    known = find_categories(JOBS)
    codes = category_codes("job", JOBS, known)
    found = one_hot(torch.tensor(codes).double()[:, None], ["job"], {"job": known})
    expected = OneHotEncoder(sparse_output=False).fit(np.array(JOBS)[:, None])
    np.testing.assert_array_equal(found.values, expected.transform(np.array(JOBS)[:, None]))
    assert found.names == [name.replace("x0_", "job=") for name in expected.get_feature_names_out()]


def test_the_order_of_categories_is_that_of_words_or_of_numbers():
    assert find_categories(["b", "a", "10", "9"]) == ["10", "9", "a", "b"]
    assert find_categories(["100", "-2", "9"]) == ["-2", "9", "100"]
    assert find_categories(["1", "01"]) == find_categories(["01", "1"])


def test_an_unknown_category_is_refused_or_has_its_own_column():
    with pytest.raises(ValueError, match=r"job expected one of 1 categories, but got 'cook'. It is the value of row 1"):
        category_codes("job", JOBS, ["nurse"])
    assert category_codes("job", JOBS, ["nurse", UNKNOWN]) == [0, 1, 0, 1]


@pytest.mark.parametrize("normalize", [True, False])
def test_columns_of_a_category_are_behind_one_name_and_are_not_scaled(normalize):
    rng = np.random.default_rng(0)
    jobs = rng.choice(JOBS[1:], 200)
    age = rng.normal(40, 10, 200)
    table = Table.from_columns({"age": age, "job": jobs}, rng.choice(["no", "yes"], 200))
    data = TableDataModule.from_table(table, normalize=normalize)
    data.setup()
    assert data.feature_names == ["age", "job=cook", "job=nurse", "job=pilot"]
    assert data.feature_groups == ["age", "job", "job", "job"]
    assert data.categories == {"job": ["cook", "nurse", "pilot"]}
    assert data.class_names == ["no", "yes"]
    assert data.std[1:] == (1.0, 1.0, 1.0)
    raw = data.train_dataset.inputs * torch.tensor(data.std) + torch.tensor(data.mean)
    rows = data.split(200)[0]
    np.testing.assert_allclose(raw[:, 0], age[rows], rtol=1e-5)
    np.testing.assert_allclose(raw[:, 1:], jobs[rows][:, None] == np.array(["cook", "nurse", "pilot"]), atol=1e-6)
    if normalize:  # zero is the average row
        np.testing.assert_allclose(data.train_dataset.inputs.mean(0), 0, atol=1e-5)


def test_a_table_without_categories_has_no_groups():
    data = TableDataModule.from_table(Table(np.random.rand(20, 2), np.arange(20) % 2, ["a", "b"]))
    data.setup()
    assert (data.feature_names, data.feature_groups) == (["a", "b"], None)


def test_numbers_may_be_categories_and_categories_may_be_more_than_occur():
    table = Table.from_columns({"zip": [10115, 80331]}, [0.5, 1.5], categories={"zip": [80331, 10115, 20095]})
    assert table.features.tolist() == [[1.0], [0.0]]
    assert table.class_names is None


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"job": ["nurse", None]}, "job expected a category in every row, but got None. Fill in or drop row 1 first"),
        ({"job": ["nurse", float("nan")]}, "job expected a category in every row, but got nan"),
        ({"age": [1.0, np.nan]}, "finite numbers, but got NaN or infinity in 1 columns, first in column 0"),
    ],
)
def test_refuses_missing_values(columns, message):
    with pytest.raises(ValueError, match=message):
        Table.from_columns(columns, [0, 1])


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ({"color": ["red"]}, r"categories expected names of features \(job\), but got 'color'"),
        ({"job": ["a", "b"]}, r"categories expected indices from 0 to 1 in the column of 'job', but got 2.0"),
    ],
)
def test_refuses_codes_that_are_no_indices(categories, message):
    with pytest.raises(ValueError, match=message):
        Table([[0], [2]], [0, 1], ["job"], categories=categories)


def test_text_in_features_leads_to_from_columns():
    with pytest.raises(ValueError, match=r"go through Table\.from_columns\(\)"):
        Table([["red"]], [0])


def test_figures_of_inputs_show_features_and_those_of_a_layer_do_not(make_trainer, tmp_path):
    from lit_xai import AttributionMonitor
    from lit_xai.models import MLP, Classifier

    rng = np.random.default_rng(0)
    columns = {"age": rng.normal(40, 10, 90), "job": rng.choice(JOBS[1:], 90)}
    data = TableDataModule.from_table(Table.from_columns(columns, rng.choice(["no", "yes"], 90)))
    monitors = [
        AttributionMonitor(on_error="raise"),
        AttributionMonitor("LayerActivation", layer="network.layers.1", on_error="raise"),
    ]
    trainer = make_trainer(callbacks=monitors, default_root_dir=tmp_path)
    trainer.fit(Classifier(MLP(4, [6], 2), num_classes=2), datamodule=data)
    assert len(list(tmp_path.rglob("figure.png"))) == 2
