"""The closure of a finite-width function that is given none: the best answer known for its network."""

from .._architecture import AbstractArchitecture, AbstractResidualNetwork
from .base import AbstractPairable
from .g_only import GOnly
from .wick_tower import WickTower

#: Of networks with a stream, whose layers remember each other: exact at order 1/n as the order grows.
STREAM = WickTower(order=16)
#: Of one input alone, which is cheap enough for more orders.
SINGLE_INPUT = WickTower(order=32)
#: Of feed-forward networks, which have no memory: the recursion on the kernel alone is exact there, and
#: cheaper than the tower.
FEED_FORWARD = GOnly()


def default_closure(network: AbstractArchitecture) -> AbstractPairable:
    """The default of everything at finite width that closes on pairs of inputs."""
    return STREAM if isinstance(network, AbstractResidualNetwork) else FEED_FORWARD
