from .base import AbstractClosure as AbstractClosure
from .mean import MeanOnly as MeanOnly
