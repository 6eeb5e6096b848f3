from .base import (
    AbstractArchitecture as AbstractArchitecture,
    AbstractResidualNetwork as AbstractResidualNetwork,
)
from .layer import Affine as Affine, Layer as Layer
from .layered import AbstractLayered as AbstractLayered, checked_layered as checked_layered
from .mlp import MLP as MLP
from .resnet import ResNet as ResNet
