"""An ensemble of random networks: its configuration and its measurements."""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import numpy as np

from .._architecture import AbstractArchitecture
from .._architecture.describe import restore
from .._support.probe import same_probe
from ._archive import read_ensemble, write_ensemble
from ._elements import Elements, elements_of
from ._estimates import Estimates
from ._measured import Measured

#: Entries that may differ between two runs that are merged.
OF_THE_RUN = ("key", "versions")


class Ensemble(eqx.Module):
    """The measurements of a run of random networks.

    `estimates` has all of them, each a `Measured` with `.value` and `.standard_error`; the commonest are
    here too. `raw` and `controlled` are the same by one kind of estimator.

    - `configuration`: all that determines the run, as plain data, with the versions of libraries.
    - `ts`: depth t = sum of rho_l^2 of the layers measured (layer numbers for an MLP).
    - `ended`: by what: `samples`, `precision`, `time` or `interrupted`.
    - `counts`, `sums`: networks and sums by bin; what `merge` adds.
    - `reference_tangent`: Theta of infinite width, if tangent kernels were measured.
    - `probe`: the activation's values at fixed points, by which it is known: its name is not enough. None
        in files of earlier versions, of which the reference, E[sigma sigma] at every layer, is compared.
    """

    configuration: dict[str, Any]
    ts: np.ndarray
    reference_kernel: np.ndarray
    reference_moment: np.ndarray
    counts: np.ndarray
    sums: dict[str, np.ndarray]
    ended: str
    probe: np.ndarray | None = None
    reference_tangent: np.ndarray | None = None

    @property
    def width(self) -> int:
        """n."""
        return self.configuration["width"]

    @property
    def samples(self) -> int:
        """How many networks were drawn."""
        return int(np.sum(self.counts))

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that were measured."""
        return tuple(self.configuration["layers"])

    @property
    def network(self) -> AbstractArchitecture:
        """The network, rebuilt from its description."""
        return restore(self.configuration["network"])

    @property
    def kernel(self) -> np.ndarray:
        """K^0, (N, N)."""
        return np.array(self.configuration["kernel"])

    @property
    def elements(self) -> Elements:
        """How the elements of kernels are stored."""
        return elements_of(self.configuration["inputs"], pairs=self.configuration["pairs"])

    @property
    def raw(self) -> Estimates:
        """Estimates from the networks alone."""
        return self._estimates(False)

    @property
    def controlled(self) -> Estimates:
        """Estimates relative to the reference chains on the same normals: the same means, smaller errors.

        **Raises** `ValueError` if there were none.
        """
        if not self.configuration["controlled"]:
            raise ValueError("There are no control variates: pass `control=True` to `sample`.")
        return self._estimates(True)

    @property
    def estimates(self) -> Estimates:
        """All estimates: the controlled ones if there are any, else the raw ones."""
        return self._estimates(self.configuration["controlled"])

    @property
    def mean_kernel(self) -> Measured:
        """E[G], (layers, N, N)."""
        return self.estimates.mean_kernel

    @property
    def mean_correction(self) -> Measured:
        """n (E[G] - K0), (layers, N, N): K1 up to order 1/n."""
        return self.estimates.mean_correction

    @property
    def kernel_covariance(self) -> Measured:
        """n Cov(G, G), V4 up to order 1/n: (layers, N, N, N, N), or (layers, N, N, 3, 3) with `pairs`."""
        return self.estimates.kernel_covariance

    def variance_ratio(self, name: str) -> np.ndarray:
        """How many times more networks the raw estimate of that name needs for the same error, by
        entry; infinite where the controlled one is exact."""
        raw = getattr(self.raw, name).standard_error ** 2
        controlled = getattr(self.controlled, name).standard_error ** 2
        exact = controlled == 0
        ratio = raw / np.where(exact, 1, controlled)
        return np.where(exact, np.where(raw == 0, 1.0, np.inf), ratio)

    def merge(self, other: "Ensemble") -> "Ensemble":
        """Both runs as one. Sums add, so that the order does not matter but for rounding.

        **Raises** `ValueError` if the two are not of the same networks at the same width, measured alike,
        or have the same key: then they are the same samples.
        """
        mine, theirs = self.configuration, other.configuration
        if differing := differences(self, other, OF_THE_RUN):
            raise ValueError(f"The ensembles differ in {differing}: they cannot be merged.")
        keys = [*_keys(mine), *_keys(theirs)]
        if len(keys) > len({json.dumps(key) for key in keys}):
            raise ValueError("The ensembles were drawn with the same key: they are the same networks.")
        return Ensemble(
            configuration=mine | {"key": keys},
            ts=self.ts,
            reference_kernel=self.reference_kernel,
            reference_moment=self.reference_moment,
            counts=self.counts + other.counts,
            sums={name: values + other.sums[name] for name, values in self.sums.items()},
            ended=self.ended,
            probe=self.probe,
            reference_tangent=self.reference_tangent,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a .npz file, with the configuration and the versions inside: all or nothing, since the
        file is complete before it takes the place of an older one.

        **Raises** `OSError` if it cannot be written; an older file is then as it was.
        """
        write_ensemble(self, pathlib.Path(path))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Ensemble":
        """The ensemble in a file that `save` or a checkpoint wrote.

        **Raises** `ValueError`, in a sentence, if the file is something else or damaged, `OSError` if it
        cannot be opened.
        """
        return cls(**read_ensemble(pathlib.Path(path)))

    def to_xarray(self) -> Any:
        """All estimates and their standard errors as an `xarray.Dataset` (needs xarray), with the
        configuration among its attributes: `.to_netcdf` and `.to_zarr` write it."""
        import xarray

        shapes = {1: ("a",), 2: ("a", "b"), 4: ("a", "b", "c", "d"), 6: ("a", "b", "p", "q", "r", "s")}
        variables = {}
        for name in self.estimates.names:
            measured = getattr(self.estimates, name)
            inner = shapes[measured.value.ndim - 1]
            if len(inner) == 4 and (self.elements.pairs or name.startswith("tangent")):
                inner = ("a", "b", "i", "j")
            dims = ("layer", *inner)
            variables[name] = (dims, measured.value)
            variables[f"{name}_error"] = (dims, measured.standard_error)
        coordinates = {"layer": list(self.layers), "t": ("layer", self.ts)}
        attributes = {"configuration": json.dumps(self.configuration), "samples": self.samples}
        return xarray.Dataset(variables, coordinates, attributes)

    def _estimates(self, controlled: bool) -> Estimates:
        return Estimates(
            controlled=controlled,
            width=self.width,
            elements=self.elements,
            kernel=self.reference_kernel,
            moment=self.reference_moment,
            tangent=self.reference_tangent,
            output_weight_variance=self.configuration["output_weight_variance"],
            sums=self.sums,
            counts=self.counts,
        )


def differences(mine: Ensemble, theirs: Ensemble, free: Sequence[str]) -> str:
    """The names of the entries in which two ensembles differ, except those `free` to differ.

    What has the same name may be another function: the activation is compared by its values, and what it
    makes of the kernel with it, layer by layer.
    """
    first, second = mine.configuration, theirs.configuration
    found = [k for k in first if k not in free and first[k] != second.get(k)]
    if not found:
        if not same_probe(mine.probe, theirs.probe):
            found.append("the activation, a function of the same name but of other values")
        elif not all(
            _near(getattr(mine, name), getattr(theirs, name))
            for name in ("ts", "reference_kernel", "reference_moment", "reference_tangent")
            if getattr(mine, name) is not None
        ):
            found.append(
                "the mean kernel of their layers, so that functions of the same name must differ"
            )
    return ", ".join(found)


def _near(first: np.ndarray, second: np.ndarray) -> bool:
    """But for the rounding of another machine, and for a rule of integration of another version."""
    size = float(np.max(np.abs(first), initial=0.0))
    return first.shape == second.shape and np.allclose(first, second, rtol=1e-6, atol=1e-9 * size)


def _keys(configuration: dict) -> list:
    key = configuration["key"]
    return key if isinstance(key, list) else [key]
