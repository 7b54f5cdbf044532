"""Options of a whole configuration by dotted names."""

import copy

import pytest

from lit_xai.study.options import set_option

CONFIG = {
    "init_from": None,
    "model": {
        "class_path": "lit_xai.models.Classifier",
        "init_args": {"network": {"class_path": "lit_xai.models.MLP", "init_args": {"width": 4}}, "optimizer": None},
        "dict_kwargs": {"extra": 1},
    },
    "trainer": {
        "callbacks": [
            {"class_path": "lit_xai.callbacks.StructuredPruning", "init_args": {"target_macs": 0.5, "seed": 0}},
            {"class_path": "lit_xai.callbacks.KnowledgeDistillation", "init_args": {"alpha": 0.5}},
        ]
    },
}


def found(config, *path):
    for key in path:
        config = config[key]
    return config


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("init_from", ("init_from",)),
        ("model.network", ("model", "init_args", "network")),
        ("model.network.width", ("model", "init_args", "network", "init_args", "width")),
        ("model.extra", ("model", "dict_kwargs", "extra")),
        ("trainer.callbacks", ("trainer", "callbacks")),
        ("trainer.callbacks.StructuredPruning.seed", ("trainer", "callbacks", 0, "init_args", "seed")),
        # The last one's, as on the command line.
        ("trainer.callbacks.alpha", ("trainer", "callbacks", 1, "init_args", "alpha")),
    ],
)
def test_one_option_is_set_and_nothing_else(name, path):
    config, other = copy.deepcopy(CONFIG), copy.deepcopy(CONFIG)
    set_option(config, name, "new")
    assert found(config, *path) == "new"
    found(other, *path[:-1])[path[-1]] = "new"
    assert config == other


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("model.netwrok.width", "Did you mean 'network'?"),
        ("trainer.callbacks.StructuredPrunning.seed", "Did you mean 'StructuredPruning'"),
        ("trainer.callbacks.target_macs", "which there is not."),
        ("model.optimizer.lr", "which there is not."),
        ("", "which there is not."),
    ],
)
def test_an_option_that_there_is_not(name, hint):
    config = copy.deepcopy(CONFIG)
    with pytest.raises(ValueError, match="which there is not") as error:
        set_option(config, name, 1)
    assert hint in str(error.value)
    assert config == CONFIG
