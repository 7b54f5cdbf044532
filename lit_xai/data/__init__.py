"""Datasets as LightningDataModules: images, tables, series and ratings kept in memory and read in whole batches."""

from lit_xai.data.adult import Adult as Adult
from lit_xai.data.breast_cancer import BreastCancer as BreastCancer
from lit_xai.data.cifar10 import CIFAR10 as CIFAR10
from lit_xai.data.diabetes import Diabetes as Diabetes
from lit_xai.data.digits import Digits as Digits
from lit_xai.data.fashion_mnist import FashionMNIST as FashionMNIST
from lit_xai.data.files import ImageFilesDataModule as ImageFilesDataModule
from lit_xai.data.images import ImageDataModule as ImageDataModule
from lit_xai.data.in_memory import InMemoryDataModule as InMemoryDataModule
from lit_xai.data.japanese_vowels import JapaneseVowels as JapaneseVowels
from lit_xai.data.mnist import MNIST as MNIST
from lit_xai.data.movielens import MovieLens as MovieLens
from lit_xai.data.ratings import Ratings as Ratings
from lit_xai.data.ratings import RatingsDataModule as RatingsDataModule
from lit_xai.data.reviews import Reviews as Reviews
from lit_xai.data.series import Series as Series
from lit_xai.data.series import SeriesDataModule as SeriesDataModule
from lit_xai.data.table import Table as Table
from lit_xai.data.table import TableDataModule as TableDataModule
from lit_xai.data.table_file import TableFile as TableFile
from lit_xai.data.tensor_images import TensorImages as TensorImages
from lit_xai.data.tensor_rows import TensorRows as TensorRows
from lit_xai.data.text_file import TextFile as TextFile
from lit_xai.data.text_rows import TextRows as TextRows
from lit_xai.data.texts import TextDataModule as TextDataModule
from lit_xai.data.texts import Texts as Texts
