import inspect
import itertools
import shutil
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import yaml
from lightning.pytorch.cli import LightningArgumentParser

import lit_xai.callbacks
import lit_xai.cli.parser
import lit_xai.data
import lit_xai.models

IMPORTS = {
    "broken_syntax.py": "def f(:\n",
    "broken_import.py": "1 / 0\n",
    "other_package.py": "import pytorch_lightning as pl\nclass Net(pl.LightningModule): ...\n",
}

CLASSIFIER = {"class_path": "Classifier", "init_args": {"num_classes": 10, "network": {"class_path": "MLP"}}}


def classifier(**init_args):
    return {"model": {**CLASSIFIER, "init_args": {**CLASSIFIER["init_args"], **init_args}}}


def callback(**spec):
    return {"trainer": {"callbacks+": [spec]}}


def failing(code, fit, capsys, *options):
    assert fit(*options) == code
    said = capsys.readouterr().err
    (sentence,) = [line for line in said.splitlines() if "error" in line]
    assert said.splitlines()[-1] == sentence
    return sentence.removeprefix("lit-xai: error: ")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--trainer.max_epcohs=3"], "there is no option '--trainer.max_epcohs'. Did you mean '--trainer.max_epochs'"),
        # An abbreviation, which argparse would take for the option.
        (["--trainer.max_epoch", "3"], "there is no option '--trainer.max_epoch'. Did you mean '--trainer.max_epochs'"),
        (["--trainer.max_epochs=three"], "trainer.max_epochs: expected int or null, but got 'three'."),
        (["--trainer.precision=16-mixd"], "but got '16-mixd'. Did you mean '16-mixed'"),
        (["surplus"], "there is no option 'surplus'."),
        (["--trainer.devices"], "argument --trainer.devices/--trainer.devices+: expected one argument"),
        (["--model.widht=3"], "model: Net takes no 'widht'. Did you mean 'width'?"),
        (["--model.width=wide"], "model.width: expected int, but got 'wide'."),
        (
            ["--model=Clasifier"],
            "model: expected the import path of a class or null, but got 'Clasifier'. Did you mean 'Classifier'",
        ),
        (["--model=own_module.Nett"], "model: module 'own_module' has no attribute 'Nett'. Did you mean 'Net'?"),
        (["--model=own_modul.Net"], "model: No module named 'own_modul'. Did you mean 'own_module'?"),
        (
            ["--model=Classifier", "--model.network=MLPP"],
            "model.network: expected the import path of a class, but got 'ML",
        ),
        (["--model=own_module.NoModule"], "model: own_module.NoModule is not a LightningModule."),
        (["--model=other_package.Net"], "It is one of pytorch_lightning: import lightning.pytorch instead."),
        (
            ["--optimizer=Adm"],
            "optimizer: expected the import path of a class or null, but got 'Adm'. Did you mean 'Adam'",
        ),
        (
            ["--optimizer=torch.optim.Adm"],
            "optimizer: module 'torch.optim' has no attribute 'Adm'. Did you mean 'Adam'",
        ),
        (["--optimizer=SGD", "--optimizer.lr=big"], "optimizer.lr: expected float or the import path of a class, but"),
        (["--optimizer=SGD", "--optimizer.rate=1"], "optimizer: SGD takes no 'rate'. It takes lr,"),
        (["--optimizer=SGD", "--lr_scheduler=StepLR"], "lr_scheduler: StepLR needs step_size."),
        (["--lr_scheduler=ConstantLR"], "--lr_scheduler needs --optimizer"),
        (["--trainer.logger=false", "--trainer.logger.save_dir=x"], "name a class before its 'save_dir'."),
        (
            ["--trainer.callbacks+=EarlyStoping"],
            "trainer.callbacks: expected the import path of a class or null, but got 'EarlyStoping'. Did you mean",
        ),
        (["--config=diggits"], "there is no config 'diggits': no such file in this folder, and no such name. Did"),
        (["--init_from=a.ckpt", "--ckpt_path=b.ckpt"], "--init_from starts afresh and --ckpt_path resumes: give one"),
        (["--init_from=none.ckpt"], "there is no file 'none.ckpt'."),
        (["--ckpt_path=none.ckpt"], "there is no file 'none.ckpt'."),
        (["--ckpt_path=own_module.py"], "'own_module.py' is damaged, or no checkpoint of a Lightning Trainer."),
    ],
)
def test_a_mistake_on_the_command_line_is_one_sentence(options, sentence, folder, fit, capsys):
    for name, text in IMPORTS.items():
        (folder / name).write_text(text)
    assert sentence in failing(2, fit, capsys, *options)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"trainer": {"max_epcohs": 3}}, "no option '--trainer.max_epcohs'. Did you mean '--trainer.max_epochs'"),
        ({"trainr": {"max_epochs": 3}}, "no option '--trainr.max_epochs'. Did you mean '--trainer.max_epochs'"),
        (callback(class_path="EarlyStopping"), "trainer.callbacks: EarlyStopping needs monitor."),
        (
            callback(class_path="lightning.pytorch.callbacks.EarlyStoping"),
            "trainer.callbacks: module 'lightning.pytorch.callbacks' has no attribute 'EarlyStoping'. Did you mean",
        ),
        (
            callback(class_path="AttributionMonitor", init_args={"metod": "Occlusion"}),
            "trainer.callbacks: AttributionMonitor takes no 'metod'. Did you mean 'method'",
        ),
        (callback(class_path="own_module.NoModule"), "trainer.callbacks: own_module.NoModule is not a Callback."),
        (classifier(task="multiclas"), "model.task: expected 'multiclass' or 'binary' or 'multilabel', but got"),
        (
            classifier(network={"class_path": "MLP", "init_args": {"hiden": [3]}}),
            "model.network: MLP takes no 'hiden'. Did you mean 'hidden'?",
        ),
        (
            classifier(network={"class_path": "MLP", "init_args": {"hidden": [3, "x"]}}),
            "model.network.hidden: expected int, but got 'x'.",
        ),
        (
            classifier(optimizer={"class_path": "torch.optim.SGD", "init_args": {"momentun": 1}}),
            "model.optimizer: SGD takes no 'momentun'. Did you mean 'momentum'?",
        ),
        (
            classifier(metrics={"f1": {"class_path": "torchmetrics.F1Score", "init_args": {"num_clases": 10}}}),
            "model.metrics: F1Score takes no 'num_clases'. Did you mean 'num_classes'",
        ),
        (
            classifier(metrics={"f1": {"class_path": "torchmetrics.F1Scor"}}),
            "model.metrics: module 'torchmetrics' has no attribute 'F1Scor'. Did you mean 'F1Score'",
        ),
        ({"model": 3}, "model: expected subclass of LightningModule or null, but got '3'."),
        ({"ckpt_path": "none.ckpt"}, "there is no file 'none.ckpt'."),
        ("trainer:\n  max_epochs: [1\n", "in config 'mine.yaml': no valid YAML: while parsing a flow"),
        ("- a\n- b\n", "in config 'mine.yaml': expected names and their values, but got a list."),
    ],
)
def test_a_mistake_in_a_config_is_one_sentence(config, sentence, folder, fit, capsys):
    (folder / "mine.yaml").write_text(config if isinstance(config, str) else yaml.safe_dump(config))
    assert sentence in failing(2, fit, capsys, "--config=mine.yaml")


def test_without_a_model_the_error_tells_how_to_give_one(lit_xai, capsys):
    assert lit_xai("fit") == 2
    assert "--model is missing: give it here, or in a file named with --config." in capsys.readouterr().err


@pytest.mark.parametrize(("module", "error"), [("broken_import", ZeroDivisionError), ("broken_syntax", SyntaxError)])
def test_an_error_inside_the_users_module_keeps_its_traceback(module, error, folder, fit):
    (folder / f"{module}.py").write_text(IMPORTS[f"{module}.py"])
    with pytest.raises(error):
        fit(f"--model={module}.Net")


def test_configs_are_found_in_the_folder_of_the_same_name(folder, fit, capsys):
    (folder / "configs").mkdir()
    (folder / "configs" / "mine.yaml").write_text("trainer: {max_epochs: 7}")
    shutil.copy(folder / "configs" / "mine.yaml", folder / "direct.yaml")
    for config in ("mine", "mine.yaml", "direct.yaml"):
        assert fit("--config", config, "--print_config") == 0
        assert "max_epochs: 7" in capsys.readouterr().out


def names_or_objects():
    """Every argument of the library that takes a string or an object of some class."""
    rooms = (lit_xai.callbacks, lit_xai.models, lit_xai.data)
    classes = {c for room in rooms for c in vars(room).values() if inspect.isclass(c) and "lit_xai" in c.__module__}
    for cls in sorted(classes, key=lambda c: c.__name__):
        for name, hint in get_type_hints(cls.__init__).items():
            if str in get_args(hint) and any(is_class(leaf) for leaf in leaves(hint)):
                yield pytest.param(cls, name, id=f"{cls.__name__}.{name}")


def leaves(hint):
    return itertools.chain(*map(leaves, get_args(hint))) if get_args(hint) else [hint]


def is_class(leaf):
    return inspect.isclass(leaf) and leaf.__module__ not in (
        "builtins",
        "pathlib",
        "collections.abc",
        "types",
        "typing",
    )


@pytest.mark.parametrize("user", [LightningArgumentParser, "lit-xai"])
@pytest.mark.parametrize(("cls", "argument"), list(names_or_objects()))
@pytest.mark.parametrize("name", ["a", "a.ckpt"])
def test_a_string_is_never_read_as_a_configuration(cls, argument, name, user, folder):
    """A file of that name is somebody else's, and may name any class."""
    (folder / "marking.py").write_text("import torch\nclass Net(torch.nn.Flatten): ...\n")
    (folder / name).write_text("class_path: marking.Net\n")
    parser = (LightningArgumentParser if user is LightningArgumentParser else lit_xai.cli.parser.Parser)()
    sys.path.insert(0, str(folder))
    parser.add_class_arguments(cls, "x", sub_configs=True)
    needed = {
        "KnowledgeDistillation": {"teacher": "ema"},
        "Classifier": {"network": "torch.nn.Flatten", "num_classes": 2},
        "Regressor": {"network": "torch.nn.Flatten"},
        "Translator": {"network": "torch.nn.Flatten", "vocab_size": 9},
    }
    given = {**needed.get(cls.__name__, {}), argument: name}
    assert parser.parse_args([f"--x.{key}={value}" for key, value in given.items()]).x[argument] == name
    assert "marking" not in sys.modules


def test_there_are_arguments_that_take_a_string_or_an_object():
    found = {f"{one.values[0].__name__}.{one.values[1]}" for one in names_or_objects()}
    assert {"KnowledgeDistillation.teacher", "AttributionMonitor.kind", "AttributionMonitor.metrics"} <= found


def test_an_object_is_saved_as_its_class():
    """jsonargparse writes a value as the first type of a union that takes it, and a path takes the text of anything."""
    unions = {one.id: get_args(get_type_hints(one.values[0].__init__)[one.values[1]]) for one in names_or_objects()}
    with_paths = {name: types for name, types in unions.items() if Path in types}
    assert "KnowledgeDistillation.teacher" in with_paths
    for name, types in with_paths.items():
        objects = [i for i, one in enumerate(types) if any(map(is_class, leaves(one)))]
        assert max(objects) < min(types.index(str), types.index(Path)), name
