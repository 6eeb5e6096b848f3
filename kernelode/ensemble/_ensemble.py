"""An ensemble of random networks: what was run, and what it measured."""

import json
import os
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import numpy as np

from .._architecture import AbstractArchitecture
from .._checks import instance
from .._describe import restore
from .._files import write_whole
from ._elements import Elements, elements_of
from ._estimates import Estimates
from ._measured import Measured, combine

_FORMAT = 1
#: Of two runs of the same networks these may differ: what they are merged from.
_OF_THE_RUN = ("key", "versions")


class Ensemble(eqx.Module):
    """What a run of random networks measured.

    `estimates` has all of them, each a `Measured` with `.value` and `.standard_error`; the commonest are
    here too. `raw` and `controlled` are the same by one kind of estimator.

    - `configuration`: all that determines the run, as plain data, with the versions of libraries.
    - `ts`: depth t = sum of rho_l^2 of the layers measured (layer numbers for an MLP).
    - `ended`: by what: `samples`, `precision`, `time` or `interrupted`.
    - `counts`, `sums`: networks and sums by bin; what `merge` adds.
    """

    configuration: dict[str, Any]
    ts: np.ndarray
    reference_kernel: np.ndarray
    reference_moment: np.ndarray
    counts: np.ndarray
    sums: dict[str, np.ndarray]
    ended: str

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
        if differing := differences(mine, theirs, _OF_THE_RUN):
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
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a .npz file, with the configuration and the versions inside: all or nothing, since the
        file is complete before it takes the place of an older one.

        **Raises** `OSError` if it cannot be written; an older file is then as it was.
        """
        arrays = {
            "configuration": np.array(json.dumps(self.configuration)),
            "format": np.array(_FORMAT),
            "ended": np.array(self.ended),
            "ts": self.ts,
            "reference_kernel": self.reference_kernel,
            "reference_moment": self.reference_moment,
            "counts": self.counts,
            **{f"sums_{name}": values for name, values in self.sums.items()},
        }
        write_whole(pathlib.Path(path), lambda file: np.savez(file, **arrays))  # pyright: ignore

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Ensemble":
        """The ensemble in a file that `save` or a checkpoint wrote.

        **Raises** `ValueError` if the file is something else, `OSError` if it cannot be read.
        """
        try:
            with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as file:
                arrays = dict(file)
            if int(arrays["format"]) != _FORMAT:
                raise ValueError(f"{path} has format {arrays['format']}, not {_FORMAT}.")
            return cls(
                configuration=json.loads(str(arrays["configuration"])),
                ts=arrays["ts"],
                reference_kernel=arrays["reference_kernel"],
                reference_moment=arrays["reference_moment"],
                counts=arrays["counts"],
                sums={k.removeprefix("sums_"): v for k, v in arrays.items() if k.startswith("sums_")},
                ended=str(arrays["ended"]),
            )
        except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is not a file of an ensemble: {error}") from error

    def to_xarray(self) -> Any:
        """All estimates and their standard errors as an `xarray.Dataset` (needs xarray), with the
        configuration among its attributes: `.to_netcdf` and `.to_zarr` write it."""
        import xarray

        shapes = {1: ("a",), 2: ("a", "b"), 4: ("a", "b", "c", "d")}
        variables = {}
        for name in self.estimates.names:
            measured = getattr(self.estimates, name)
            pairs = "covariance" in name and self.elements.pairs
            inner = ("a", "b", "i", "j") if pairs else shapes[measured.value.ndim - 1]
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
            output_weight_variance=self.configuration["output_weight_variance"],
            sums=self.sums,
            counts=self.counts,
        )


class Extrapolation(eqx.Module):
    """n to infinity from two widths, [n_2 f(n_2) - n_1 f(n_1)] / (n_2 - n_1), right to order 1/n^2."""

    first: Ensemble
    second: Ensemble

    @property
    def mean_correction(self) -> Measured:
        """K1, (layers, N, N)."""
        return self._limit("mean_correction")

    @property
    def kernel_covariance(self) -> Measured:
        """V4, of the shape of `Ensemble.kernel_covariance`."""
        return self._limit("kernel_covariance")

    @property
    def sigma_covariance(self) -> Measured:
        """lim n Cov(G, G_sigma)."""
        return self._limit("sigma_covariance")

    @property
    def ts(self) -> np.ndarray:
        """Depths of the layers measured."""
        return self.first.ts

    @property
    def elements(self) -> Elements:
        """How the elements of kernels are stored."""
        return self.first.elements

    def _limit(self, name: str) -> Measured:
        n1, n2 = self.first.width, self.second.width
        values = getattr(self.first.estimates, name), getattr(self.second.estimates, name)
        return combine(*values, -n1 / (n2 - n1), n2 / (n2 - n1))


def extrapolate(first: Ensemble, second: Ensemble) -> Extrapolation:
    """The limit of large width from ensembles of two widths, with its standard error.

    **Raises** `ValueError` if the two differ in anything but width, samples and key, or not in width.
    """
    for name, ensemble in (("first", first), ("second", second)):
        instance(name, ensemble, Ensemble, "an `Ensemble`, such as `sample` returns")
    free = (*_OF_THE_RUN, "width", "widths", "neurons", "batch")
    if differing := differences(first.configuration, second.configuration, free):
        raise ValueError(f"The ensembles differ in {differing}: there is no common limit.")
    if first.width == second.width:
        raise ValueError(f"Two different widths are needed, both are {first.width}.")
    return Extrapolation(first, second)


def differences(mine: dict, theirs: dict, free: Sequence[str]) -> str:
    """The names of what two configurations differ in, but for those that are `free` to differ."""
    return ", ".join(k for k in mine if k not in free and mine[k] != theirs.get(k))


def _keys(configuration: dict) -> list:
    key = configuration["key"]
    return key if isinstance(key, list) else [key]
