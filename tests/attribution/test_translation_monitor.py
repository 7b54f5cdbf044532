"""TranslationMonitor in real runs of a small T5."""

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from lit_xai import KnowledgeDistillation, TranslationMonitor
from lit_xai.data import Digits, PairDataModule
from lit_xai.models import MLP, Classifier, Translator

transformers = pytest.importorskip("transformers")

QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
QUIET |= {"accelerator": "cpu", "log_every_n_steps": 1, "limit_train_batches": 3}
VOCABULARY = 80


class Numbers(PairDataModule):
    def read(self):
        words = [("one", "eins"), ("two", "zwei"), ("three", "drei"), ("four", "vier"), ("nine", "neun")]
        return [(f"{a} {b}", f"{x} {y}") for a, x in words for b, y in words]


def t5(dropout=0.1):
    sizes = {
        "dropout_rate": dropout,
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 16,
        "num_layers": 1,
        "num_heads": 2,
        "vocab_size": VOCABULARY,
    }
    tokens = {"pad_token_id": 0, "eos_token_id": 3, "decoder_start_token_id": 0}
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, **tokens))


def run(folder, *callbacks, model=None, data=None):
    seed_everything(0, verbose=False)
    model = Translator(t5(), VOCABULARY) if model is None else model
    logger = TensorBoardLogger(folder, name=None, version="run")
    trainer = Trainer(max_epochs=2, callbacks=[*callbacks], logger=logger, **QUIET)
    trainer.fit(model, Numbers(batch_size=4, vocab_size=VOCABULARY, test_size=0.2) if data is None else data)
    events = EventAccumulator(str(folder / "run"), size_guidance={"images": 0})
    events.Reload()
    return model, events


def test_there_is_a_figure_of_every_epoch(tmp_path):
    _, events = run(tmp_path, TranslationMonitor(probe=2))
    assert [image.step for image in events.Images("attribution/translation")] == [2, 5]
    assert len(list(tmp_path.glob("run/attribution/translation/epoch=*.png"))) == 2


def test_a_run_with_it_is_bit_for_bit_the_run_without(tmp_path):
    watched, _ = run(tmp_path / "with", TranslationMonitor(probe=2))
    alone, _ = run(tmp_path / "without")
    assert all(torch.equal(value, alone.state_dict()[name]) for name, value in watched.state_dict().items())


def test_none_draws_nothing(tmp_path):
    _, events = run(tmp_path, TranslationMonitor(samples="none"))
    assert "attribution/translation" not in events.Tags()["images"]


@pytest.mark.filterwarnings("ignore:.*no validation")
def test_a_teacher_teaches_a_translator(tmp_path):
    seed_everything(1, verbose=False)
    teacher = Translator(t5(), VOCABULARY)
    distillation = KnowledgeDistillation(teacher)
    _, events = run(tmp_path, distillation, TranslationMonitor(probe=1))
    assert events.Scalars("distillation/logits")[-1].value > 0


def test_the_teachers_term_is_that_over_tokens(tmp_path):
    seed_everything(1, verbose=False)
    teacher, student = (Translator(t5(dropout=0.0), VOCABULARY) for _ in range(2))
    start = {name: value.clone() for name, value in student.state_dict().items()}
    data = Numbers(batch_size=4, vocab_size=VOCABULARY, test_size=0.2)
    trainer = Trainer(
        max_steps=1, callbacks=[KnowledgeDistillation(teacher)], logger=False, default_root_dir=tmp_path, **QUIET
    )
    batches = []
    step = student.training_step
    student.training_step = lambda batch, batch_idx: (batches.append(batch), step(batch, batch_idx))[1]
    trainer.fit(student, data)
    witness = Translator(t5(), VOCABULARY)
    witness.load_state_dict(start)
    inputs = {name: value for name, value in batches[-1].items() if name != "labels"}
    ours, theirs = (one.eval()(**inputs).detach().log_softmax(-1) for one in (witness, teacher))
    expected = (theirs.exp() * (theirs - ours)).sum(-1).mean()
    torch.testing.assert_close(trainer.callback_metrics["distillation/logits"], expected, rtol=1e-3, atol=1e-5)


def test_other_networks_are_refused_before_the_first_step(tmp_path):
    with pytest.raises(ValueError, match="expected 'input_ids' and 'decoder_input_ids' among the network's inputs"):
        run(tmp_path, TranslationMonitor(), model=Classifier(MLP(64, [4], 10), num_classes=10), data=Digits())


class Reads(nn.Module):
    """Fails when it is explained, and is trained all the same."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(VOCABULARY, 8), nn.Linear(8, VOCABULARY)

    def forward(self, input_ids, attention_mask, decoder_input_ids):
        if not self.training and torch.is_grad_enabled():
            raise RuntimeError("not to be explained")
        return self.head(self.table(decoder_input_ids) + self.table(input_ids).mean(1, keepdim=True))


def test_what_cannot_be_drawn_is_one_warning(tmp_path):
    with pytest.warns(UserWarning, match="cannot show its figure, and training continues"):
        run(tmp_path, TranslationMonitor(probe=1), model=Translator(Reads(), VOCABULARY))
