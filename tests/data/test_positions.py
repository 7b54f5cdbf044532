import pytest
from torch import nn

from lit_xai.data.positions import most_ids, most_positions

SMALL = {"vocab_size": 60, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("Bert", {"max_position_embeddings": 40}, 40),
        ("Roberta", {"max_position_embeddings": 42}, 40),
        ("DistilBert", {"max_position_embeddings": 40, "dim": 8, "n_heads": 2, "n_layers": 1, "hidden_dim": 8}, 40),
        ("GPT2", {"n_positions": 40, "n_embd": 8, "n_layer": 1, "n_head": 2}, 40),
    ],
)
def test_networks_of_hugging_face_say_their_positions(name, options, expected):
    import torch
    import transformers

    own = {"vocab_size": 60} if name in ("DistilBert", "GPT2") else SMALL
    config = getattr(transformers, f"{name}Config")(**own, **options, pad_token_id=1)
    network = getattr(transformers, f"{name}ForSequenceClassification")(config).eval()
    assert most_positions(network) == expected
    assert most_ids(network) == 60
    # The witness: so many tokens go through, and one more does not.
    with torch.no_grad():
        network(torch.full((1, expected), 5))
        with pytest.raises((IndexError, RuntimeError)):
            network(torch.full((1, expected + 1), 5))


def test_networks_without_tables_have_none():
    assert most_positions(nn.Linear(2, 2)) is None
    assert most_ids(nn.Linear(2, 2)) is None
