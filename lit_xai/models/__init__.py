"""Networks, which are plain ``nn.Module``, and the LightningModules that train any network."""

from lit_xai.models.additive import NeuralAdditiveModel, shape_functions
from lit_xai.models.classifier import Classifier
from lit_xai.models.conv1d import ConvNet1d
from lit_xai.models.deep_average import DeepAverage
from lit_xai.models.factorization import MatrixFactorization
from lit_xai.models.linear import LinearModel
from lit_xai.models.matrix_decay import MatrixDecay
from lit_xai.models.mlp import MLP
from lit_xai.models.optim import CosineAnnealing
from lit_xai.models.regressor import Regressor
from lit_xai.models.resnet import ResNet
from lit_xai.models.spelled_embedding import SpelledEmbedding
from lit_xai.models.text_transformer import TextTransformer
from lit_xai.models.translator import Translator
from lit_xai.models.two_tower import TwoTower
from lit_xai.models.vision_transformer import VisionTransformer
from lit_xai.network.keras import KerasNetwork

__all__ = [
    "MLP",
    "Classifier",
    "ConvNet1d",
    "CosineAnnealing",
    "DeepAverage",
    "KerasNetwork",
    "LinearModel",
    "MatrixDecay",
    "MatrixFactorization",
    "NeuralAdditiveModel",
    "Regressor",
    "ResNet",
    "SpelledEmbedding",
    "TextTransformer",
    "Translator",
    "TwoTower",
    "VisionTransformer",
    "shape_functions",
]
