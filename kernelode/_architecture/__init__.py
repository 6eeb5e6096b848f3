from .base import (
    AbstractArchitecture as AbstractArchitecture,
    AbstractResidualNetwork as AbstractResidualNetwork,
)
from .mlp import MLP as MLP
from .resnet import ResNet as ResNet
