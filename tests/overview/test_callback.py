"""A module that is inspected before it is trained."""

import pytest
import torch
from step_modules import STEP_MODULES
from witness import digest, module_state

import lit_xai
from lit_xai.overview.callback import inspect

SECTIONS = (
    *("step", "network", "StructuredPruning", "QuantizationAwareTraining", "KnowledgeDistillation"),
    *("AttributionMonitor", "ModelExport", "cost"),
)


@pytest.mark.parametrize("name", ["unusual_keys", "chained", "mixed_table", "labels_in_the_call"])
def test_every_callback_says_what_it_would_do(name):
    case = STEP_MODULES[name]
    torch.manual_seed(0)
    module = case.make()
    before = digest(module_state(module))
    found = lit_xai.inspect(module, case.batch())
    assert digest(module_state(module)) == before
    assert module._trainer is None
    assert tuple(found.lines) == SECTIONS
    assert found.lines["step"].startswith("the network is ")
    assert "can lose channels" in found.lines["StructuredPruning"]
    assert "compute in integers" in found.lines["QuantizationAwareTraining"]
    assert str(found).count("\n") == len(SECTIONS) - 1


def test_tokens_are_explained_at_their_embedding():
    found = inspect(STEP_MODULES["masked_tags"].make(), STEP_MODULES["masked_tags"].batch())
    assert found.lines["AttributionMonitor"].startswith("LayerIntegratedGradients of input [7, 8] at the embedding '0'")
    assert "can lose channels" in found.lines["StructuredPruning"]


def test_a_step_without_a_network_is_refused():
    with pytest.raises(ValueError, match="which do not continue from each other"):
        inspect(STEP_MODULES["ensemble"].make(), STEP_MODULES["ensemble"].batch())
