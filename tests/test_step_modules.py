"""The modules train, and what a reader said of them can be true."""

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch.utils.data import DataLoader

from tests.step_modules import STEP, STEP_MODULES, StepModule


@pytest.mark.parametrize("case", STEP_MODULES.values(), ids=STEP_MODULES)
def test_answers_are_about_a_module_that_trains(case: StepModule, tmp_path):
    seed_everything(0)
    module, batch = case.make(), case.batch()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    trainer = Trainer(
        max_epochs=1, logger=False, accelerator="cpu", enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, DataLoader([batch], batch_size=None))
    parts = dict(module.named_modules())
    for name in case.networks:
        part = module if name == STEP else parts[name]
        trained = part.state_dict()
        prefix = f"{name}." if name not in ("", STEP) else ""
        assert any(not torch.equal(value, before[prefix + key]) for key, value in trained.items())
    if case.logits is not None:
        # The logits depend on each floating-point input, and on no label that is not an input too.
        inputs, labels = case.inputs(batch), case.labels(batch)
        floats = [one.requires_grad_() for one in inputs if one.is_floating_point()]
        logits = case.logits(module.eval(), batch)
        if floats:
            assert all(gradient.any() for gradient in torch.autograd.grad(logits.sum(), floats))
        assert len({id(one) for one in labels}) == len(labels)
