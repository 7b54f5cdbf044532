"""Texts that a monitor draws: names of tokens, pages, and nothing of them where they must not be shown."""

import warnings

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from networks import Tokens
from planted import logged_images
from torch.utils.data import DataLoader, TensorDataset

from lit_xai import AttributionMonitor

NAMES = ["[PAD]", *(f"secret{i}" for i in range(1, 11))]


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.network = Tokens()

    def forward(self, input_ids, attention_mask=None):
        return self.network(input_ids)

    def training_step(self, batch, batch_idx):
        logits = self(batch["input_ids"], batch["attention_mask"])
        return torch.nn.functional.cross_entropy(logits, batch["labels"])

    validation_step = training_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Batches(TensorDataset):
    """Batches as collators of Hugging Face make them, in another order."""

    def __getitem__(self, i):
        ids, labels = super().__getitem__(i)
        return {"attention_mask": (ids > 0).long(), "token_type_ids": 0 * ids, "input_ids": ids, "labels": labels}


def fit(folder, **options):
    generator = torch.Generator().manual_seed(0)
    data = Batches(torch.randint(1, 11, (8, 6), generator=generator), torch.arange(8) % 3)
    monitor = AttributionMonitor(name="texts", probe=4, **options)
    logger = TensorBoardLogger(folder, name="", version="")
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "log_every_n_steps": 1}
    trainer = Trainer(max_epochs=1, callbacks=[monitor], logger=logger, enable_checkpointing=False, **quiet)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        trainer.fit(Module(), DataLoader(data, 4), DataLoader(data, 4))
    return folder


def test_the_page_and_the_figure_hold_the_words(tmp_path):
    fit(tmp_path, token_names=NAMES)
    (page,) = tmp_path.rglob("figure.html")
    assert page.with_suffix(".png").exists()
    first = torch.randint(1, 11, (8, 6), generator=torch.Generator().manual_seed(0))[0]
    assert all(f">{NAMES[token]}</span>" in page.read_text() for token in first)
    assert "baseline: token [PAD]" in page.read_text()


@pytest.fixture
def tokenizer(tmp_path):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    (tmp_path / "tokenizer").mkdir()
    vocabulary = {name: i for i, name in enumerate(NAMES)}
    Tokenizer(WordLevel(vocabulary, unk_token="[PAD]")).save(str(tmp_path / "tokenizer/tokenizer.json"))
    return str(tmp_path / "tokenizer")


def test_names_are_read_from_the_folder_of_a_tokenizer(tmp_path, tokenizer):
    fit(tmp_path, token_names=tokenizer)
    (page,) = tmp_path.rglob("figure.html")
    assert "secret" in page.read_text()


def test_a_folder_without_a_tokenizer_is_refused_before_the_first_step(tmp_path):
    with pytest.raises(ValueError, match=r"token_names expected the folder of a tokenizer, but got .*tokenizer\.json"):
        fit(tmp_path, token_names=str(tmp_path))


@pytest.mark.parametrize("shown", ["maps_only", "none"])
def test_nothing_of_texts_is_written_that_must_not_be_shown(shown, tmp_path, tokenizer):
    folder = fit(tmp_path / "run", token_names=tokenizer, samples=shown)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if path.suffix == ".html" or b"secret" in path.read_bytes()]
    (events,) = folder.rglob("events.out*")
    assert bool(logged_images(events)) == (shown == "maps_only")
