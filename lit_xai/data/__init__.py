"""Data sets as LightningDataModules: small images kept in memory as bytes and read in whole batches."""

from lit_xai.data.cifar10 import CIFAR10 as CIFAR10
from lit_xai.data.digits import Digits as Digits
from lit_xai.data.fashion_mnist import FashionMNIST as FashionMNIST
from lit_xai.data.files import ImageFilesDataModule as ImageFilesDataModule
from lit_xai.data.images import ImageDataModule as ImageDataModule
from lit_xai.data.mnist import MNIST as MNIST
from lit_xai.data.tensor_images import TensorImages as TensorImages
