import pytest
import torch
import transformers

from lit_xai.models.hugging_face import sequence_classifier


@pytest.fixture
def folder(tmp_path):
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=30, num_labels=3, **sizes)
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path)
    return tmp_path


def test_a_folder_is_read_as_it_was_written(folder):
    ids = torch.tensor([[3, 4, 5]])
    again = transformers.BertForSequenceClassification.from_pretrained(folder).eval()
    torch.testing.assert_close(sequence_classifier(str(folder)).eval()(ids).logits, again(ids).logits)


def test_another_number_of_classes_is_a_new_last_layer(folder):
    assert sequence_classifier(str(folder), num_classes=5)(torch.tensor([[3]])).logits.shape == (1, 5)


def test_a_folder_without_a_network_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="folder expected that of a network, as save_pretrained writes it, but got"):
        sequence_classifier(str(tmp_path))


def test_it_can_be_named_on_the_command_line(folder):
    from jsonargparse import ArgumentParser
    from torch import nn

    parser = ArgumentParser()
    parser.add_argument("--network", type=nn.Module)
    path = "lit_xai.models.hugging_face.sequence_classifier"
    given = parser.parse_args([f"--network={path}", f"--network.folder={folder}"])
    assert parser.instantiate_classes(given).network.config.num_labels == 3
