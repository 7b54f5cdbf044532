"""How integer tokens are explained where no method is named: at the embedding that they enter, and one by one."""

from dataclasses import replace

from torch import nn

from lit_xai.attribution.tokens import METHOD, embedding_instead
from lit_xai.network.arguments import Inputs
from lit_xai.network.calling import OutputSpec
from lit_xai.retention.explainer import Explainer


def explainers_of_tokens(
    network: nn.Module, inputs: Inputs, second: Explainer | None, output: OutputSpec = None
) -> tuple[Explainer, Explainer | None] | None:
    """Return what explains integer tokens, compared with the token for padding; ``None`` where there are none.

    Args:
        network: that is explained.
        inputs: what it is called with.
        second: that explains it too; Occlusion takes away tokens.
        output: where the logits are.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Embedding(9, 4, padding_idx=1), nn.Flatten(), nn.Linear(12, 2))
        >>> first, second = explainers_of_tokens(network, torch.tensor([[1, 2, 3]]), Explainer("Occlusion"))
        >>> first.name, first.baselines, second.baselines
        ('LayerIntegratedGradients-0', 1, 1)
    """
    found = embedding_instead(network, inputs, output=output)
    if found is None:
        return None
    if second is not None and second.method == "Occlusion" and second.baselines is None:
        second = replace(second, baselines=found.padding)
    return Explainer(METHOD, layer=found.layer, baselines=found.padding), second
