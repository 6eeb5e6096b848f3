from .grid import Axis as Axis
from .sweep import sweep as sweep
