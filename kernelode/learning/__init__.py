"""Learning with the kernels of wide networks: functions of arrays, which know no network."""

from ._posterior import Posterior as Posterior, posterior as posterior
