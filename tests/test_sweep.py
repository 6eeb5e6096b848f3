"""Sweeps: against the same function point by point, on one device and on many, broken off and resumed."""

import errno
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray

import kernelode as ko
from kernelode._sweep import store
from kernelode._sweep.grid import grid_of
from kernelode._sweep.run import Program, chunk_size, examine
from kernelode._sweep.sweep import _sampled

from .helpers import kill_after, pair_kernel, resnet, start_python

ROOT = pathlib.Path(__file__).resolve().parent.parent
NETWORK = resnet(ko.LeakyReLU(0.1), 3)
PIPES: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
KERNEL = pair_kernel(0.5, 0.4, 0.2)
SCALES, VARIANCES = np.linspace(0.1, 1.0, 5), np.linspace(0.5, 2.0, 3)
AXES = {"residual_scale": SCALES, "weight_variance": VARIANCES}


def respond(network):
    return ko.response(network, KERNEL)


def quick(network):
    """Something that compiles at once."""
    return network.residual_scale * 10 + network.weight_variance


compilations = []


def note(*event, **details) -> None:
    if "backend_compile" in event[0] and "_round" in str(details.get("fun_name")):
        compilations.append(details)


jax.monitoring.register_event_duration_secs_listener(note)


def test_is_the_function_at_every_point():
    found = ko.sweep(respond, NETWORK, AXES, chunk=4, dims={"diagonal": ("input",)})
    assert found["diagonal"].dims == ("residual_scale", "weight_variance", "input")
    assert found["off_diagonal"].shape == (5, 3, 2, 2)
    assert np.array_equal(found["residual_scale"], SCALES)
    for i, rho in enumerate(SCALES):
        for j, variance in enumerate(VARIANCES):
            leaves = lambda n: (n.residual_scale, n.weight_variance)
            network = eqx.tree_at(leaves, NETWORK, (jnp.asarray(rho), jnp.asarray(variance)))
            expected = respond(network)
            for name in ("diagonal", "off_diagonal", "mixed"):
                np.testing.assert_allclose(found[name][i, j], getattr(expected, name), rtol=1e-12)


@pytest.mark.parametrize("chunk", [1, 4, 15, 100, None])
def test_chunks_do_not_matter(chunk):
    seen = []
    found = ko.sweep(quick, NETWORK, AXES, chunk=chunk, progress=seen.append)["value"]
    assert np.array_equal(found, SCALES[:, None] * 10 + VARIANCES)
    size = 15 if chunk is None else chunk
    assert seen == [min(15, n * size) for n in range(-(-15 // size) + 1)]


def test_compiles_once():
    function = lambda network: ko.propagate(network, KERNEL).mean_kernel[-1]
    del compilations[:]
    ko.sweep(function, NETWORK, AXES, chunk=2)
    assert len(compilations) == 1
    # Eight chunks of other values, another network.
    other = resnet(ko.LeakyReLU(0.4), 3, sb2=0.3)
    ko.sweep(function, other, {"residual_scale": 2 * SCALES, "weight_variance": 2 * VARIANCES}, chunk=2)
    assert len(compilations) == 1
    ko.sweep(function, NETWORK, AXES, chunk=3)
    assert len(compilations) == 2


def test_any_leaf_of_any_pytree():
    kernels = jnp.stack([KERNEL, 2 * KERNEL])
    names = np.array(["once", "twice"])
    axes = {
        "data": ko.Axis(kernels, lambda target: target["kernel"], names),
        "slope": ko.Axis([0.0, 0.5, 1.0], lambda target: target["network"].activation.negative_slope),
        # Two leaves with the same value: the variances of read-in and blocks.
        "variance": ko.Axis(
            [1.0, 3.0],
            lambda t: (t["network"].weight_variance, t["network"].output_weight_variance),
        ),
    }

    def function(target):
        network = target["network"]
        return ko.propagate(network, target["kernel"]).mean_kernel[-1], network.output_weight_variance

    found = ko.sweep(function, {"network": NETWORK, "kernel": KERNEL}, axes)
    assert found["0"].shape == (2, 3, 2, 2, 2) and list(found["data"].values) == ["once", "twice"]
    assert np.array_equal(found["1"][1, 2], [1.0, 3.0])
    # A homogeneous network: the bias apart, twice the kernel is twice the output.
    no_bias = eqx.tree_at(lambda n: n.bias_variance, NETWORK, jnp.asarray(0.0))
    found = ko.sweep(function, {"network": no_bias, "kernel": KERNEL}, axes)
    np.testing.assert_allclose(found["0"].sel(data="twice"), 2 * found["0"].sel(data="once"), rtol=1e-12)
    # At slope one the network is linear: K^L = (1 + rho^2 C_W)^L K^0.
    linear = 2.0 * KERNEL * (1 + 0.2**2 * 3.0) ** 3
    np.testing.assert_allclose(found["0"].sel(data="twice", slope=1.0, variance=3.0), linear, rtol=1e-12)


def test_what_is_not_finite_is_counted():
    function = lambda network: ko.optimal_residual_scale(network, KERNEL, pairs=False)
    found = ko.sweep(function, resnet(ko.Erf(), 3), {"bias_variance": [0.05, 0.3]})
    status = found["diagonal_status"].values
    assert found["diagonal_value"].attrs["not_finite"] == np.sum(np.isnan(found["diagonal_value"]))
    assert status.dtype == np.int32 and len(np.unique(status)) >= 1
    assert ko.sweep(quick, NETWORK, AXES)["value"].attrs["not_finite"] == 0


def test_dtype_follows_the_values():
    axes = {"residual_scale": SCALES.astype(np.float32), "weight_variance": VARIANCES.astype(np.float32)}
    kernel = KERNEL.astype(jnp.float32)
    found = ko.sweep(lambda net: ko.response(net, kernel).diagonal, NETWORK, axes)["value"]
    assert found.dtype == np.float32 and found["residual_scale"].dtype == np.float32
    exact = ko.sweep(respond, NETWORK, AXES)["diagonal"]
    np.testing.assert_allclose(found, exact, rtol=3e-6)


def test_file_has_everything(tmp_path):
    returned = ko.sweep(respond, NETWORK, AXES, folder=tmp_path / "new" / "folder")
    with xarray.open_dataset(tmp_path / "new" / "folder" / "sweep.nc") as kept:
        xarray.testing.assert_identical(kept.load(), returned)
    configuration = json.loads(returned.attrs["configuration"])
    assert configuration["target"]["type"] == "ResNet"
    assert configuration["target"]["fields"]["depth"] == 3
    assert configuration["versions"]["jax"] == jax.__version__
    assert configuration["axes"]["weight_variance"]["shape"] == [3]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_and_resumed(number, tmp_path):
    whole = ko.sweep(respond, NETWORK, AXES, chunk=2)

    def stop(done):
        if done >= 6:
            signal.raise_signal(number)

    with pytest.raises(KeyboardInterrupt):
        ko.sweep(respond, NETWORK, AXES, chunk=2, folder=tmp_path, progress=stop)
    assert not (tmp_path / "sweep.nc").exists()
    seen = []
    # In other chunks than before.
    resumed = ko.sweep(respond, NETWORK, AXES, chunk=4, folder=tmp_path, progress=seen.append)
    assert seen == [6, 10, 14, 15]
    xarray.testing.assert_allclose(resumed, whole, rtol=1e-14)
    # Again: nothing is left to do.
    ko.sweep(respond, NETWORK, AXES, folder=tmp_path, progress=seen.append)
    assert seen == [6, 10, 14, 15, 15]


def test_a_folder_holds_one_sweep(tmp_path):
    here = tmp_path / "sweep"
    ko.sweep(quick, NETWORK, AXES, folder=here)
    again = lambda function, network, axes: ko.sweep(function, network, axes, folder=here)
    with pytest.raises(ValueError, match="another sweep, which differs in: axes"):
        again(quick, NETWORK, AXES | {"weight_variance": VARIANCES + 1})
    with pytest.raises(ValueError, match="another sweep, which differs in: target"):
        again(quick, resnet(ko.LeakyReLU(0.1), 4), AXES)
    # What is swept has no value of its own.
    again(quick, eqx.tree_at(lambda n: n.weight_variance, NETWORK, jnp.asarray(7.0)), AXES)
    with pytest.raises(ValueError, match="another sweep, which differs in: function, results"):
        again(respond, NETWORK, AXES)
    # A function of the same name, and one that uses other numbers: known by their values alone.
    for factor in (1 + 1e-6, np.nan):
        changed = lambda network, factor=factor: quick(network) * factor
        changed.__qualname__ = quick.__qualname__
        with pytest.raises(ValueError, match="results of another function.* Name another folder"):
            again(changed, NETWORK, AXES)
    (file,) = here.glob("points-*.npz")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match="not a part of this sweep"):
        again(quick, NETWORK, AXES)
    (here / "sweep.json").write_text("no JSON")
    with pytest.raises(ValueError, match="cannot be read"):
        again(quick, NETWORK, AXES)
    with pytest.raises(ValueError, match="not empty and holds no sweep"):
        ko.sweep(quick, NETWORK, AXES, folder=tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        ko.sweep(quick, NETWORK, AXES, folder=file)


def without_code(folder: pathlib.Path) -> None:
    """As earlier versions wrote it, or where there is no telling."""
    file = folder / "sweep.json"
    configuration = json.loads(file.read_text())
    del configuration["code"]
    file.write_text(json.dumps(configuration))


def test_the_code_of_a_function_belongs_to_the_folder(tmp_path):
    """An edit that the values at no point show; functions within the target; and none where it moves."""
    factor = [1.0]

    def scaled(network):
        return quick(network) * factor[0]

    ko.sweep(scaled, NETWORK, AXES, folder=tmp_path / "a")
    ko.sweep(scaled, NETWORK, AXES, folder=tmp_path / "a")
    edited = lambda network: quick(network) * factor[0] + 0
    edited.__qualname__ = scaled.__qualname__
    with pytest.raises(ValueError, match="another function of the same name: its code"):
        ko.sweep(edited, NETWORK, AXES, folder=tmp_path / "a")
    without_code(tmp_path / "a")
    ko.sweep(edited, NETWORK, AXES, folder=tmp_path / "a")
    double = lambda network: 2 * quick(network)
    double.__qualname__ = scaled.__qualname__
    with pytest.raises(ValueError, match="at points computed again they differ"):
        ko.sweep(double, NETWORK, AXES, folder=tmp_path / "a")

    mine, other = (ko.Elementwise(fn) for fn in (lambda x: jnp.tanh(x), lambda x: jnp.sin(x)))
    ko.sweep(quick, resnet(mine, 3), AXES, folder=tmp_path / "b")
    with pytest.raises(ValueError, match="another function of the same name"):
        ko.sweep(quick, resnet(other, 3), AXES, folder=tmp_path / "b")

    traced = []

    def counting(network):
        traced.append(len(traced))
        return quick(network)

    ko.sweep(counting, NETWORK, AXES, folder=tmp_path / "c")
    assert traced
    ko.sweep(counting, NETWORK, AXES, folder=tmp_path / "c")


@pytest.mark.parametrize("edge", [0.1, 1.0])
def test_a_difference_at_one_end_is_found(edge, tmp_path):
    """In folders without a fingerprint: the first and the last points are among those computed again."""
    axes = {"residual_scale": np.linspace(0.1, 1.0, 5000)}
    ko.sweep(quick, NETWORK, axes, folder=tmp_path, chunk=100)
    changed = lambda network: quick(network) + jnp.where(network.residual_scale == edge, 1.0, 0.0)
    changed.__qualname__ = quick.__qualname__
    without_code(tmp_path)
    with pytest.raises(ValueError, match="at points computed again they differ"):
        ko.sweep(changed, NETWORK, axes, folder=tmp_path, chunk=100)


def test_points_computed_again_are_from_everywhere():
    known = np.arange(1000) * 3
    for chunk, count in ((1, 16), (50, 100), (5000, 1000)):
        chosen = _sampled(known, chunk)
        assert len(chosen) == count == len(np.unique(chosen)) and np.all(np.isin(chosen, known))
        assert chosen[0] == 0 and chosen[-1] == 2997 and np.all(np.diff(chosen) > 0)
        assert np.array_equal(chosen, _sampled(known, chunk))
    # Not one chunk next to the other.
    assert np.max(np.diff(_sampled(known, 50))) < 400
    for few in range(4):
        assert len(_sampled(known[:few], 1)) == min(few, 2)


def test_what_vanishes_but_for_rounding_is_no_difference(tmp_path):
    function = lambda network: jnp.stack([quick(network), jnp.sin(network.residual_scale * 0 + np.pi)])
    ko.sweep(function, NETWORK, AXES, folder=tmp_path)
    (file,) = tmp_path.glob("points-*.npz")
    with np.load(file) as arrays:
        points, values = arrays["points"], arrays["result_0"]
    values[:, 1] *= -1.5
    np.savez(file, points=points, result_0=values)
    ko.sweep(function, NETWORK, AXES, folder=tmp_path)
    assert list(tmp_path.glob("points-*.npz")) == [file]  # nothing was computed again


DAMAGED_POINTS: dict[str, dict[str, Any]] = {
    "other shape": {"result_0": np.zeros((15, 2))},
    "one for all": {"result_0": np.zeros(1)},
    "other type": {"result_0": np.zeros(15, np.float32)},
    "no result": {"result_0": None},
    "no points": {"points": None},
    "points beyond": {"points": np.arange(15) + 1},
    "points before": {"points": np.arange(15) - 1},
    "a mask": {"points": np.ones(15, bool)},
}


@pytest.mark.parametrize("name", DAMAGED_POINTS)
def test_damaged_points_are_refused_in_a_sentence(name, tmp_path):
    ko.sweep(quick, NETWORK, AXES, folder=tmp_path)
    (file,) = tmp_path.glob("points-*.npz")
    with np.load(file) as arrays:
        changed = dict(arrays) | DAMAGED_POINTS[name]
    np.savez(file, **{key: value for key, value in changed.items() if value is not None})
    with pytest.raises(ValueError, match="not a part of this sweep, or it is damaged") as refused:
        ko.sweep(quick, NETWORK, AXES, folder=tmp_path)
    assert "\n" not in str(refused.value)
    file.unlink()
    ko.sweep(quick, NETWORK, AXES, folder=tmp_path)


def test_a_crash_in_the_first_write_leaves_a_folder_to_go_on_with(tmp_path):
    (tmp_path / ".sweep.json.123.part").write_text('{"half')
    ko.sweep(quick, NETWORK, AXES, folder=tmp_path)
    (tmp_path / ".points-abc.npz.123.part").write_bytes(b"PK")
    ko.sweep(quick, NETWORK, AXES, folder=tmp_path)
    assert (tmp_path / "sweep.nc").exists() and len(list(tmp_path.glob("points-*.npz"))) == 1


def test_folders_that_cannot_be(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "new").symlink_to(tmp_path / "not yet there")
    for name in ("link", "new"):
        ko.sweep(quick, NETWORK, AXES, folder=tmp_path / name)
        assert (tmp_path / name).is_symlink() and (tmp_path / name / "sweep.nc").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="`folder`.* cannot be made, read or written: Not a directory"):
        ko.sweep(quick, NETWORK, AXES, folder=tmp_path / "file" / "below")


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    ko.sweep(quick, NETWORK, AXES, folder=tmp_path)
    for file in (*tmp_path.glob("points-*"), tmp_path / "sweep.nc"):
        file.unlink()

    def full(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        patched.setattr(store, "_SECONDS", 0.0)
        with pytest.warns(UserWarning, match="could not be written .No space left"):
            found = ko.sweep(quick, NETWORK, AXES, chunk=5, folder=tmp_path)
    assert np.array_equal(found["value"], SCALES[:, None] * 10 + VARIANCES)
    assert [file.name for file in tmp_path.iterdir()] == ["sweep.json"]


def test_an_error_at_a_point_keeps_the_others(tmp_path):
    # The last kernel overflows, for which `response` raises.
    kernels = jnp.stack([KERNEL, 2 * KERNEL, 1e305 * KERNEL])
    axes = {"kernel": ko.Axis(kernels, lambda target: target[1])}
    network = resnet(ko.Linear(), 3, rho=1000.0)
    function = lambda target: ko.propagate(target[0], target[1]).mean_kernel[-1]
    seen = []
    with pytest.raises(Exception, match="overflowed"):
        ko.sweep(function, (network, KERNEL), axes, chunk=1, folder=tmp_path, progress=seen.append)
    with pytest.raises(Exception, match="overflowed"):
        ko.sweep(function, (network, KERNEL), axes, chunk=1, folder=tmp_path, progress=seen.append)
    # One chunk is under way while another is handed out.
    assert seen[-1] >= 1


@pytest.mark.parametrize(
    "axes, message",
    [
        ({}, "must map names to values"),
        ({"rho": [0.1]}, "'rho'.* names none of the arrays of ResNet: residual_scale, "),
        ({"depth": [3, 4]}, "'depth'.* names none of the arrays"),
        ({"residual_scale": []}, "must be a list of values"),
        ({"residual_scale": 0.3}, "must be a list of values"),
        ({"residual_scale": [0.1, np.inf]}, "must be finite"),
        ({"residual_scale": [[0.1, 0.2]]}, r"an entry of shape \(\)"),
        ({"weight_variance": [1.0, -1.0]}, "`weight_variance` must not be negative"),
        ({"depth": ko.Axis([3.0], lambda n: n.depth)}, "static"),
        ({"none": ko.Axis([3.0], lambda n: ())}, "must pick arrays"),
        ({"k": ko.Axis([1.0, 2.0], lambda n: n.bias_variance, labels=["one"])}, "one label a point"),
        ({"value": ko.Axis([1.0], lambda n: n.bias_variance)}, "name of a result: value"),
    ],
)
def test_axes_that_are_none(axes, message):
    with pytest.raises(ValueError, match=message):
        ko.sweep(quick, NETWORK, axes)


def test_other_bad_arguments(monkeypatch):
    with pytest.raises(TypeError, match="must be a real number"):
        ko.sweep(quick, NETWORK, {"residual_scale": ["large"]})
    with pytest.raises(ValueError, match="tuple.* it has none"):
        ko.sweep(lambda target: quick(target[0]), (NETWORK, KERNEL), {"residual_scale": [0.1]})
    with pytest.raises(TypeError, match="must return an array"):
        ko.sweep(lambda network: "large", NETWORK, AXES)
    with pytest.raises(ValueError, match="`chunk` must be at least 1"):
        ko.sweep(quick, NETWORK, AXES, chunk=0)
    for dims in ({"other": ()}, {"value": ("input",)}):
        with pytest.raises(ValueError, match="`dims"):
            ko.sweep(quick, NETWORK, AXES, dims=dims)
    with pytest.raises(TypeError, match="outside of `jit`"):
        jax.jit(lambda scales: ko.sweep(quick, NETWORK, {"residual_scale": scales}))(jnp.ones(3))
    with pytest.raises(ValueError, match="need about .* GB"):
        enormous = np.linspace(0.1, 1, 10**5)
        ko.sweep(quick, NETWORK, {name: enormous for name in (*AXES, "bias_variance")})
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match=r"kernelode\[xarray\]"):
        ko.sweep(quick, NETWORK, AXES)


def test_memory_bounds_the_chunks():
    """Large kernels in small chunks, small ones in large."""
    sizes = []
    for inputs in (2, 100):
        kernel = jnp.eye(inputs)
        function = lambda network, kernel=kernel: ko.propagate(network, kernel).mean_kernel[-1]
        grid, _ = grid_of(NETWORK, AXES)
        result, largest = examine(Program(function, NETWORK, grid))
        sizes.append(chunk_size(largest, result.size * 8, 10**6))
    assert sizes[1] <= sizes[0] / 40
    assert sizes[1] * 100**2 * 8 <= 2**22


SCRIPT = """
import sys
import jax, numpy as np
import kernelode as ko
from kernelode._sweep import store

store._SECONDS = 0.0  # after every chunk
jax.config.update("jax_enable_x64", True)
network = ko.ResNet(ko.LeakyReLU(0.1), 3)
function = lambda net: ko.propagate(net, np.array([[0.5, 0.2], [0.2, 0.4]])).mean_kernel[-1]
axes = {"residual_scale": np.linspace(0.1, 1, 80), "weight_variance": np.linspace(0.5, 2, 50)}
show = lambda done: print(done, flush=True)
ko.sweep(function, network, axes, chunk=10, folder=sys.argv[1], progress=show)
print(jax.device_count())
"""


def test_killed_then_resumed_on_eight_devices(tmp_path):
    kill_after(start_python(SCRIPT, tmp_path / "killed"), 200)
    resumed = start_python(SCRIPT, tmp_path / "killed", devices=8)
    output, errors = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, errors
    lines = [int(line) for line in output.split()]
    assert 190 <= lines[0] < 4000 and lines[-2:] == [4000, 8]

    network = ko.ResNet(ko.LeakyReLU(0.1), 3)
    function = lambda net: ko.propagate(net, pair_kernel(0.5, 0.4, 0.2)).mean_kernel[-1]
    axes = {"residual_scale": np.linspace(0.1, 1, 80), "weight_variance": np.linspace(0.5, 2, 50)}
    with xarray.open_dataset(tmp_path / "killed" / "sweep.nc") as found:
        here = ko.sweep(function, network, axes)["value"]
        np.testing.assert_allclose(found["value"], here, rtol=1e-14)


def test_two_processes(tmp_path):
    """The example, as two processes that find each other by `jax.distributed`, then as one."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    script = [sys.executable, str(ROOT / "examples" / "distributed_sweep.py")]
    script += ["--folder", str(tmp_path), "--points", "9", "--coordinator", f"localhost:{port}"]
    started = [
        subprocess.Popen([*script, "--processes", "2", "--process", str(i)], cwd=ROOT, **PIPES)
        for i in range(2)
    ]
    outputs = [process.communicate(timeout=300) for process in started]
    assert all(process.returncode == 0 for process in started), outputs
    assert "2 processes, 2 devices, 81 points" in outputs[0][0]
    # A share each: 81 points in two halves.
    shares = sorted(len(np.load(file)["points"]) for file in tmp_path.glob("points-*.npz"))
    assert shares == [40, 41]
    kernel = jnp.array([[0.05]])
    here = ko.sweep(
        lambda net: ko.response(net, kernel).diagonal[0],
        ko.ResNet(ko.Erf(), 50, bias_variance=0.05),
        {"residual_scale": np.geomspace(0.02, 1.0, 9), "weight_variance": np.linspace(0.8, 2.0, 9)},
    )
    with xarray.open_dataset(tmp_path / "sweep.nc") as kept:
        np.testing.assert_allclose(kept["value"], here["value"], rtol=1e-13)
