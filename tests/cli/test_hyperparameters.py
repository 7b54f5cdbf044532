"""Of a checkpoint's hyperparameters a config takes plain values, and classes that it names itself."""

import pytest

from lit_xai.cli.hyperparameters import completed_model

CONFIG = {
    "class_path": "lit_xai.models.Classifier",
    "init_args": {"network": {"class_path": "lit_xai.models.MLP", "init_args": {"hidden": [8]}}, "num_classes": 3},
}
SAVED = {
    "_class_path": "lit_xai.models.Classifier",
    "network": {"class_path": "lit_xai.models.MLP", "init_args": {"hidden": [9, 9]}},
    "num_classes": 4,
}


def test_plain_values_are_taken_and_the_class_is_the_configs():
    # Another path of the same class, as another version of the package writes it.
    saved = {**SAVED, "network": {**SAVED["network"], "class_path": "lit_xai.models.mlp.MLP"}}
    completed = completed_model(CONFIG, saved, "x.ckpt")
    assert completed["class_path"] == "lit_xai.models.Classifier"
    assert completed["dict_kwargs"]["network"]["init_args"] == {"hidden": [9, 9]}
    assert completed["dict_kwargs"]["num_classes"] == 4


@pytest.mark.parametrize(
    ("config", "change", "words"),
    [
        (
            None,
            {},
            "'lit_xai.models.Classifier' for --model, but the config names none: .* with --model lit_xai.models",
        ),
        (CONFIG, {"_class_path": "a.B"}, "'a.B' for --model, but the config names 'lit_xai.models.Classifier'"),
        (
            CONFIG,
            {"network": {"class_path": "a.B"}},
            "'a.B' for --model.network, but the config names 'lit_xai.models.MLP'",
        ),
        # Harmless, but not what the user asked for.
        (CONFIG, {"network": {"class_path": "torch.nn.ReLU"}}, "'torch.nn.ReLU' for --model.network"),
        (CONFIG, {"network": "a.B"}, "'a.B' for --model.network"),
        (CONFIG, {"optimizer": {"class_path": "a.B"}}, "'a.B' for --model.optimizer, but the config names none"),
        (CONFIG, {"batch_to_inputs": "a.b"}, "'a.b' for --model.batch_to_inputs"),
    ],
)
def test_another_class_is_one_sentence_that_says_which_option_names_it(config, change, words):
    with pytest.raises(ValueError, match=f"^'x.ckpt' names {words}"):
        completed_model(config, {**SAVED, **change}, "x.ckpt")


def test_a_function_that_is_an_arguments_default_is_the_one_that_the_file_names():
    import torch.nn.functional as F

    path = "lit_xai.models.Regressor"
    arguments = {"_class_path": path, "loss": "torch.nn.functional.mse_loss"}
    model = {"class_path": path, "init_args": {"loss": F.mse_loss}}
    assert completed_model(model, arguments, "some.ckpt")["dict_kwargs"] == {"loss": "torch.nn.functional.mse_loss"}
    with pytest.raises(ValueError, match=r"names 'torch\.nn\.functional\.l1_loss' for --model\.loss"):
        completed_model(model, arguments | {"loss": "torch.nn.functional.l1_loss"}, "some.ckpt")
