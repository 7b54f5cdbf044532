import pytest
import torch
from torch import nn

from lit_xai.models import VisionTransformer
from lit_xai.models.vision_transformer import Attention, TransformerBlock

SMALL = {"image_size": 8, "patch_size": 4, "in_channels": 1, "dim": 16, "depth": 2, "heads": 4}


def as_torch(block: TransformerBlock, heads: int) -> nn.TransformerEncoderLayer:
    """The same block as torch's own layer, with the same weights."""
    dim, attention = block.fc1.in_features, block.attention
    layer = nn.TransformerEncoderLayer(
        dim, heads, block.fc1.out_features, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    qkv = (attention.query, attention.key, attention.value)
    layer.self_attn.in_proj_weight.data = torch.cat([part.weight.data for part in qkv])
    layer.self_attn.in_proj_bias.data = torch.cat([part.bias.data for part in qkv])
    pairs = [(layer.self_attn.out_proj, attention.out), (layer.linear1, block.fc1), (layer.linear2, block.fc2)]
    for torchs, own in [*pairs, (layer.norm1, block.norm1), (layer.norm2, block.norm2)]:
        torchs.load_state_dict(own.state_dict())
    return layer


@pytest.mark.parametrize("heads", [1, 2, 8])
def test_a_block_computes_what_torchs_encoder_layer_computes(heads):
    torch.manual_seed(0)
    block = TransformerBlock(dim=32, heads=heads, mlp_dim=48)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    tokens = torch.randn(3, 5, 32)
    torch.testing.assert_close(block(tokens), as_torch(block, heads)(tokens), rtol=1e-4, atol=1e-4)


def test_attention_is_unchanged_when_a_silent_channel_of_every_head_is_removed():
    torch.manual_seed(0)
    attention, tokens = Attention(dim=12, heads=3), torch.randn(2, 5, 12)
    gone, kept = [3, 7, 11], [0, 1, 2, 4, 5, 6, 8, 9, 10]
    for layer in (attention.query, attention.value):
        layer.weight.data[gone], layer.bias.data[gone] = 0, 0
    before = attention(tokens)
    for layer in (attention.query, attention.key, attention.value):
        layer.weight.data, layer.bias.data = layer.weight.data[kept], layer.bias.data[kept]
    attention.out.weight.data = attention.out.weight.data[:, kept]
    torch.testing.assert_close(attention(tokens), before)


def test_parameters_by_closed_form():
    dim, mlp, tokens = 16, 64, 4
    block = 4 * (dim * dim + dim) + 2 * 2 * dim + (dim * mlp + mlp) + (mlp * dim + dim)
    expected = (16 * dim + dim) + tokens * dim + 2 * block + 2 * dim + (dim * 10 + 10)
    assert sum(p.numel() for p in VisionTransformer(**SMALL).parameters()) == expected


def test_a_patch_is_read_where_it_lies():
    network = VisionTransformer(**SMALL)
    seen = []
    network.blocks.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    image = torch.zeros(1, 1, 8, 8)
    changed = image.clone()
    changed[..., :4, 4:] = 1  # the upper right of 2 x 2 patches
    network(image), network(changed)
    assert (seen[0] != seen[1]).any(dim=-1).tolist() == [[False, True, False, False]]


def test_position_matters_and_dropout_drops_only_in_training():
    torch.manual_seed(0)
    network = VisionTransformer(**SMALL, dropout=0.5)
    inputs = torch.randn(2, 1, 8, 8)
    assert not torch.equal(network(inputs), network(inputs))
    network.eval()
    assert torch.equal(network(inputs), network(inputs))
    assert not torch.allclose(network(inputs), network(inputs.roll(4, dims=-1)), atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patch_size": 3}, "patch_size expected a divisor of image_size=8, but got 3"),
        ({"heads": 3}, "heads expected a divisor of dim=16, but got 3"),
        ({"depth": 0}, "depth expected a positive integer, but got 0"),
        ({"mlp_ratio": 0.0}, "mlp_dim expected a positive integer, but got 0"),
        ({"dropout": -1}, r"dropout expected a number in \[0, 1\)"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        VisionTransformer(**SMALL | arguments)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((2, 1, 16, 16), "set image_size to the size of"), ((2, 3, 8, 8), "set in_channels to that of")],
)
def test_another_image_is_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        VisionTransformer(**SMALL)(torch.zeros(shape))
