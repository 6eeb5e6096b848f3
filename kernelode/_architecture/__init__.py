from .base import (
    AbstractArchitecture as AbstractArchitecture,
    AbstractResidualNetwork as AbstractResidualNetwork,
)
from .layered import check_layered as check_layered
from .mlp import MLP as MLP
from .resnet import ResNet as ResNet
