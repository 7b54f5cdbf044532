"""A CSV file of one's own: what becomes of its columns, and one sentence for what cannot be read."""

import numpy as np
import pytest
import torch

from lit_xai.data import TableFile
from lit_xai.models import MLP, Classifier

JOBS = ["nurse", "cook", "pilot"]
HEAD = "age,job,zip,income"
ROWS = [f"{20 + i},{JOBS[i % 3]},{10115 + i % 2},{'high' if i % 2 else 'low'}" for i in range(60)]


@pytest.fixture
def write(tmp_path):
    def write(rows=ROWS, head=HEAD, name="mine.csv"):
        (tmp_path / name).write_text("\n".join([head, *rows]) + "\n")
        return tmp_path / name

    return write


def test_a_file_becomes_named_columns(write):
    data = TableFile(write(), target="income", categorical=["zip"])
    data.setup()
    assert data.feature_names == ["age", "job=cook", "job=nurse", "job=pilot", "zip=10115", "zip=10116"]
    assert data.feature_groups == ["age", "job", "job", "job", "zip", "zip"]
    assert data.class_names == ["high", "low"]
    rows = data.split(60)[2]
    ages = data.test_dataset.inputs[:, 0] * data.std[0] + data.mean[0]
    np.testing.assert_allclose(ages, 20 + rows, rtol=1e-5)
    assert data.test_dataset.targets.tolist() == [1 - i % 2 for i in rows.tolist()]


def test_the_test_may_have_a_file_of_its_own(write):
    test = write(["70,pilot,10115,high", "71,cook,10116,low"], name="test.csv")
    data = TableFile(write(), target="income", test_path=test)
    data.setup()
    assert [len(part) for part in (data.train_dataset, data.val_dataset, data.test_dataset)] == [54, 6, 2]
    assert data.test_dataset.targets.tolist() == [0, 1]
    assert data.mean[0] < 50  # of the training rows


def test_an_unknown_category_at_test(write, make_trainer):
    test = write(["70,astronaut,10115,high"], name="test.csv")
    model = Classifier(MLP(5, [4], 2), num_classes=2)
    with pytest.raises(
        ValueError, match=r"'job' expected one of the 3 .* but got 'astronaut' in line 2 of '.*test\.csv'"
    ):
        make_trainer().fit(model, datamodule=TableFile(write(), target="income", test_path=test))
    assert model.global_step == 0
    data = TableFile(write(), target="income", test_path=test, unknown="column")
    data.setup()
    assert data.feature_names[4] == "job=unknown"
    raw = data.test_dataset.inputs + torch.tensor(data.mean)
    assert raw[0, 1:5].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("values", "regression", "names"),
    [
        (["1", "2"], None, ["1", "2"]),
        (["1.5", "2"], None, None),
        (["1", "2"], True, None),
        (["1.5", "2"], False, ["1.5", "2"]),
        ([str(i) for i in range(11)], None, None),
    ],
)
def test_the_task_follows_from_the_target(write, values, regression, names):
    rows = [f"{i},{values[i % len(values)]}" for i in range(44)]
    data = TableFile(write(rows, "x,y"), target="y", regression=regression)
    data.setup("fit")
    assert getattr(data, "class_names", None) == names
    assert data.train_dataset.targets.is_floating_point() == (names is None)


def test_missing_values_are_filled_in_where_asked(write):
    rows = [*ROWS, "?,nurse,10115,high", "30,,10115,low"]
    with pytest.raises(ValueError, match=r"Column 'age' expected a value in every row, but got '\?' in line 62 of"):
        TableFile(write(rows), target="income").setup()
    data = TableFile(write(rows), target="income", missing="fill", train_size=1.0, test_size=0.0, val_size=0)
    data.setup()
    assert "job=missing" in data.feature_names


@pytest.mark.parametrize(
    ("given", "rows", "message"),
    [
        ({"target": "incme"}, ROWS, r"target expected one of age, job, zip, income.* Did you mean 'income'"),
        ({"ignore": ["name"]}, ROWS, "ignore expected one of age"),
        ({"ignore": ["age", "job", "zip"]}, ROWS, "expected columns beside 'income', but got none"),
        (
            {},
            [*ROWS, "1,cook,3,"],
            r"Column 'income' expected a value in every row, since it is the target, .* line 62",
        ),
        ({"regression": True}, ROWS, "Column 'income' expected numbers, but got 'low' in line 2 of .*regression=False"),
        ({"regression": "yes"}, ROWS, "regression expected True or False, but got 'yes'"),
    ],
)
def test_refuses_in_one_sentence(write, given, rows, message):
    with pytest.raises(ValueError, match=message):
        TableFile(write(rows), **{"target": "income"} | given).setup()


def test_its_arguments_are_in_a_checkpoint_that_loads_safely(write, make_trainer, tmp_path):
    data = TableFile(write(), target="income", ignore=("zip",))
    trainer = make_trainer()
    trainer.fit(Classifier(MLP(4, [4], 2), num_classes=2), datamodule=data)
    trainer.save_checkpoint(tmp_path / "some.ckpt")
    again = TableFile.load_from_checkpoint(tmp_path / "some.ckpt", weights_only=True)
    assert (again.path, again.ignore) == (str(tmp_path / "mine.csv"), ["zip"])


def test_it_goes_with_a_logger_that_keeps_the_arguments_of_both(write, make_trainer, tmp_path):
    from lightning.pytorch.loggers import CSVLogger

    trainer = make_trainer(logger=CSVLogger(tmp_path), log_every_n_steps=1)
    trainer.fit(Classifier(MLP(5, [4], 2), num_classes=2), datamodule=TableFile(write(), target="income"))
    assert "mine.csv" in next(tmp_path.rglob("hparams.yaml")).read_text()


def test_a_target_of_one_class_is_refused(write):
    data = TableFile(write([row.replace("high", "low") for row in ROWS]), target="income")
    expected = r"Column 'income' expected two or more classes, since it is the target, but got \['low'\]"
    with pytest.raises(ValueError, match=expected):
        data.setup()


def test_a_class_of_the_test_file_alone_is_refused(write):
    test = write(["70,pilot,10115,middle"], name="test.csv")
    data = TableFile(write(), target="income", test_path=test)
    with pytest.raises(
        ValueError, match=r"'income' expected one of high, low, the .* got 'middle' in line 2 of '.*test"
    ):
        data.setup()


def test_more_classes_than_the_module_has_are_refused_before_the_first_step(write, make_trainer):
    data = TableFile(write([*ROWS, "70,pilot,10115,middle"]), target="income")
    model = Classifier(MLP(5, [4], 2), num_classes=2)
    with pytest.raises(
        ValueError, match="num_classes expected at least 3, the classes of TableFile, but got 2: set it"
    ):
        make_trainer().fit(model, datamodule=data)
    assert model.global_step == 0
