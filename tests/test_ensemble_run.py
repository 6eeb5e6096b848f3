"""What may happen to a run of an ensemble: budgets, interruption, files, devices, and wrong input."""

import errno
import json
import os
import pathlib
import signal
import subprocess
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import kernelode as ko
from kernelode import ensemble as en
from kernelode._support import probe as _probe
from kernelode.ensemble import _sample

from .helpers import OwnLayered, kill_after, pair_kernel, resnet, start_python

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAIR = pair_kernel(1.0, 0.8, 0.3)
NETWORK = resnet(ko.Tanh(), 4, sw2=1.5, rho=0.5)
OPTIONS: dict[str, Any] = {"width": 8, "key": jr.key(3), "batch": 50}


def options(changes: dict[str, Any]) -> dict[str, Any]:
    return {**OPTIONS, **changes}


def same_numbers(first: en.Ensemble, second: en.Ensemble) -> bool:
    """Bit by bit."""
    assert first.sums.keys() == second.sums.keys()
    equal = [np.array_equal(values, second.sums[name]) for name, values in first.sums.items()]
    return all(equal) and np.array_equal(first.counts, second.counts)


@pytest.fixture(scope="module")
def whole() -> en.Ensemble:
    """20 batches at once."""
    return en.sample(NETWORK, PAIR, samples=1000, **OPTIONS)


def test_raw_keys_are_keys(whole):
    found = en.sample(NETWORK, PAIR, samples=1000, **options({"key": jr.PRNGKey(3)}))
    assert same_numbers(found, whole) and found.configuration == whole.configuration


def test_a_run_is_what_was_asked_for(whole):
    assert whole.samples == 1000 and whole.ended == "samples" and whole.layers == (4,)
    assert np.sum(whole.counts > 0) == 20
    assert en.sample(NETWORK, PAIR, samples=1001, **OPTIONS).samples == 1050
    assert same_numbers(whole, en.sample(NETWORK, PAIR, samples=1000, **OPTIONS))
    other = en.sample(NETWORK, PAIR, samples=1000, **options({"key": jr.key(4)}))
    assert not same_numbers(whole, other)


def test_a_sweep_compiles_once():
    networks = [resnet(ko.Tanh(), 5, sw2=w, rho=rho) for rho, w in ((0.1, 1.0), (0.4, 2.0), (0.7, 1.2))]
    sample = lambda network: en.sample(network, PAIR, samples=100, **OPTIONS)
    sample(networks[0])
    # Counted too: what the tests keep of compiled programs would make a second compilation quick.
    compiled = []

    def note(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if "backend_compile" in event:
            compiled.append(kwargs)

    jax.monitoring.register_event_duration_secs_listener(note)
    began = time.process_time()
    try:
        for network in networks[1:]:
            sample(network)
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
    assert not compiled
    assert time.process_time() - began < 1


def test_a_checkpoint_continues_bit_by_bit(whole, tmp_path):
    path = tmp_path / "run.npz"
    en.sample(NETWORK, PAIR, samples=350, checkpoint=path, **OPTIONS)
    longer = en.sample(NETWORK, PAIR, samples=1000, checkpoint=path, **OPTIONS)
    assert same_numbers(longer, whole)
    # Finished: nothing is left to do. The batch of the file is taken where none is given.
    again = en.sample(NETWORK, PAIR, samples=1000, checkpoint=path, **options({"batch": None}))
    assert same_numbers(again, whole)
    assert same_numbers(en.Ensemble.load(path), whole)
    assert [p.name for p in tmp_path.iterdir()] == ["run.npz"]


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    path = tmp_path / "run.npz"
    en.sample(NETWORK, PAIR, samples=100, checkpoint=path, **OPTIONS)
    for change, name in (({"width": 9}, "width"), ({"key": jr.key(4)}, "key"), ({"batch": 20}, "batch")):
        with pytest.raises(ValueError, match=f"differs in: .*{name}"):
            en.sample(NETWORK, PAIR, samples=100, checkpoint=path, **options(change))
    with pytest.raises(ValueError, match="differs in: network"):
        en.sample(resnet(ko.Tanh(), 4), PAIR, samples=100, checkpoint=path, **OPTIONS)
    with pytest.raises(ValueError, match="differs in: kernel"):
        en.sample(NETWORK, 2 * PAIR, samples=100, checkpoint=path, **OPTIONS)
    path.write_bytes(b"PK\x03\x04 not an archive")
    with pytest.raises(ValueError, match="not a file of an ensemble"):
        en.sample(NETWORK, PAIR, samples=100, checkpoint=path, **OPTIONS)


LONG_RUN = """
import sys
import jax, jax.random as jr, numpy as np
import kernelode as ko
from kernelode import ensemble as en
from kernelode._support import probe as _probe
from kernelode.ensemble import _sample

_sample._CHECKPOINT_SECONDS = 0.0  # after every batch
network = ko.ResNet(ko.Tanh(), 4, residual_scale=0.5, weight_variance=1.5)
report = lambda done: print(done, flush=True)
kernel = np.array([[1.0, 0.3], [0.3, 0.8]], np.float32)
found = en.sample(network, kernel, width=8, key=jr.key(3), batch=50, samples=20_000,
                  checkpoint=sys.argv[1], progress=report)
assert found.sums["y"].dtype == np.float64 and not jax.config.jax_enable_x64
"""


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def test_a_killed_run_continues_and_devices_do_not_matter(tmp_path):
    """Killed at any moment, here while it writes a file after every batch; then on eight devices."""
    killed, eight = tmp_path / "killed.npz", tmp_path / "eight.npz"
    kill_after(start_python(LONG_RUN, killed), 1000)
    part = en.Ensemble.load(killed)
    assert 950 <= part.samples < 20_000 and part.ended == "interrupted"
    again, on_eight = start_python(LONG_RUN, killed), start_python(LONG_RUN, eight, devices=8)
    finish(again)
    finish(on_eight)
    one, other = en.Ensemble.load(killed), en.Ensemble.load(eight)
    kernel = np.array(PAIR, np.float32)
    at_once = en.sample(
        ko.ResNet(ko.Tanh(), 4, residual_scale=0.5, weight_variance=1.5),
        kernel,
        width=8,
        key=jr.key(3),
        batch=50,
        samples=20_000,
    )
    assert same_numbers(one, at_once)
    assert np.array_equal(other.counts, one.counts)
    for name, values in one.sums.items():
        np.testing.assert_allclose(other.sums[name], values, rtol=1e-5, atol=1e-5 * np.abs(values).max())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_keeps_what_was_computed(number, whole, tmp_path):
    path = tmp_path / "run.npz"

    def interrupt(done):
        if done == 500:
            signal.raise_signal(number)

    with pytest.warns(UserWarning, match="500 networks are returned"):
        part = en.sample(NETWORK, PAIR, samples=1000, checkpoint=path, progress=interrupt, **OPTIONS)
    assert part.samples == 500 and part.ended == "interrupted"
    assert same_numbers(en.Ensemble.load(path), part)
    assert same_numbers(en.sample(NETWORK, PAIR, samples=1000, checkpoint=path, **OPTIONS), whole)

    def at_once(done):
        signal.raise_signal(number)

    with pytest.raises(KeyboardInterrupt):
        en.sample(NETWORK, PAIR, samples=1000, progress=at_once, **OPTIONS)
    # Too few for an estimate, but not lost.
    path.unlink()
    with pytest.raises(KeyboardInterrupt):
        en.sample(NETWORK, PAIR, samples=1000, checkpoint=path, progress=at_once, **OPTIONS)
    assert en.Ensemble.load(path).samples == 50
    assert same_numbers(en.sample(NETWORK, PAIR, samples=1000, checkpoint=path, **OPTIONS), whole)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_full_disk_loses_nothing(whole, tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    en.sample(NETWORK, PAIR, samples=100, checkpoint=path, **OPTIONS)
    before = path.read_bytes()

    def full(file, **arrays):
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez", full)
    with pytest.warns(UserWarning, match="could not be written .No space left"):
        found = en.sample(NETWORK, PAIR, samples=1000, checkpoint=path, **OPTIONS)
    assert same_numbers(found, whole)
    # The older file is whole, and no part of the new one is left.
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(OSError, match="No space left"):
        found.save(path)


def test_budgets(tmp_path):
    goal = en.RelativeError(0.1, of="kernel_covariance")
    found = en.sample(NETWORK, PAIR, until=goal, samples=100_000, **OPTIONS)
    assert found.ended == "precision" and found.samples < 100_000
    assert goal.reached(found)
    within = en.AbsoluteError(0.05, of="mean_correction")
    found = en.sample(NETWORK, PAIR, until=within, **OPTIONS)
    assert np.all(found.mean_correction.standard_error <= 0.05)
    # Enough already: nothing is drawn.
    with_file = {"until": goal, "checkpoint": tmp_path / "run.npz", **OPTIONS}
    first = en.sample(NETWORK, PAIR, **with_file)
    assert same_numbers(first, en.sample(NETWORK, PAIR, **with_file))
    # A start that does not fluctuate is no obstacle.
    fixed = en.sample(NETWORK, PAIR, until=goal, start=en.FixedGram(), layers=[0, 4], **OPTIONS)
    assert fixed.ended == "precision"
    began = time.monotonic()
    found = en.sample(NETWORK, PAIR, max_seconds=1.0, **OPTIONS)
    assert found.ended == "time" and 0.9 < time.monotonic() - began < 30


def test_progress(capfd):
    seen = []
    en.sample(NETWORK, PAIR, samples=200, progress=seen.append, **OPTIONS)
    assert seen == [50, 100, 150, 200]
    en.sample(NETWORK, PAIR, samples=200, progress=True, **OPTIONS)
    assert capfd.readouterr().out == ""


def test_runs_merge(whole):
    one = en.sample(NETWORK, PAIR, samples=1000, **options({"key": jr.key(7)}))
    both = whole.merge(one)
    assert both.samples == 2000
    for name in ("mean_kernel", "kernel_covariance"):
        first, second, merged = (getattr(e, name) for e in (whole, one, both))
        if name == "mean_kernel":
            np.testing.assert_allclose(merged.value, (first.value + second.value) / 2, rtol=1e-12)
        ratio = merged.standard_error.max() / first.standard_error.max()
        assert 0.4 < ratio < 1.1
    with pytest.raises(ValueError, match="same key"):
        both.merge(one)
    with pytest.raises(ValueError, match="differ in .*width"):
        whole.merge(en.sample(NETWORK, PAIR, samples=1000, **options({"width": 9})))


def test_files_hold_the_configuration(whole, tmp_path):
    whole.save(tmp_path / "e.npz")
    loaded = en.Ensemble.load(tmp_path / "e.npz")
    assert loaded.configuration == whole.configuration
    assert set(loaded.configuration["versions"]) == {"kernelode", "jax", "jaxlib", "numpy"}
    assert bool(eqx.tree_equal(loaded.network, NETWORK))
    np.testing.assert_array_equal(loaded.kernel, PAIR)
    dataset = loaded.to_xarray()
    np.testing.assert_array_equal(dataset.kernel_covariance, whole.kernel_covariance.value)
    assert json.loads(dataset.attrs["configuration"])["width"] == 8
    dataset.to_netcdf(tmp_path / "e.nc")
    own = en.sample(
        resnet(ko.Elementwise(jnp.arctan), 2), PAIR, samples=100, width=4, key=jr.key(0), batch=20
    )
    with pytest.raises(ValueError, match="cannot be rebuilt"):
        _ = own.network
    with pytest.raises(OSError):
        whole.save(tmp_path / "nowhere" / "e.npz")


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"samples": None}, ValueError, "`samples`, `until` and `max_seconds`"),
    ({"samples": 0}, ValueError, "`samples` must be at least 1"),
    ({"samples": 3}, ValueError, "`samples` must be at least 8"),
    ({"width": 0}, ValueError, "`width` must be at least 1"),
    ({"width": 10**10}, ValueError, "GB are free. Reduce `batch`"),
    ({"batch": 10**11}, ValueError, "GB are free. Reduce `batch`"),
    ({"batch": 0}, ValueError, "`batch` must be at least 1"),
    ({"key": 0}, TypeError, "`key` must be a key"),
    ({"key": jr.split(jr.key(0))}, TypeError, "`key` must be a key"),
    ({"layers": [5]}, ValueError, "`layers` must be increasing"),
    ({"layers": [2, 1]}, ValueError, "`layers` must be increasing"),
    ({"layers": []}, ValueError, "`layers` must be increasing"),
    ({"sampler": en.RealWeights(), "control": True}, ValueError, "`control=True` needs"),
    ({"tangent_kernel": True}, ValueError, "`tangent_kernel=True` needs weights"),
    ({"dtype": "int32"}, ValueError, "`dtype` must be float32 or float64, got int32"),
    ({"max_seconds": -1}, ValueError, "`max_seconds` must be positive"),
    ({"start": en.FixedGram(), "width": 1}, ValueError, "`width` must be at least 2"),
    ({"checkpoint": "run.txt"}, ValueError, "must end in .npz"),
    ({"checkpoint": "nowhere/run.npz"}, ValueError, "there is no folder"),
]


@pytest.mark.parametrize("change, error, message", WRONG, ids=lambda x: str(x)[:40])
def test_wrong_arguments(change, error, message):
    with pytest.raises(error, match=message):
        en.sample(NETWORK, PAIR, **{"samples": 100, **options(change)})


def test_other_wrong_arguments():
    with pytest.raises(ValueError, match="lowest eigenvalue"):
        en.sample(NETWORK, [[1.0, 2.0], [2.0, 1.0]], samples=100, **OPTIONS)
    with pytest.raises(ValueError, match="full rank"):
        en.sample(NETWORK, [[1.0, 1.0], [1.0, 1.0]], samples=100, responses=True, **OPTIONS)
    with pytest.raises(ValueError, match="whole numbers; got 1.6 neurons"):
        thin = ko.MLP(ko.Tanh(), 1, relative_width=[1, 0.2])
        en.sample(thin, PAIR, samples=100, **OPTIONS)
    with pytest.raises(ValueError, match="start of residual networks"):
        en.sample(ko.MLP(ko.Tanh(), 1), PAIR, samples=100, start=en.FixedGram(), **OPTIONS)
    with pytest.raises(ValueError, match="overflows"):
        wild = resnet(ko.ReLU(), 100, sw2=1e4, rho=10.0)
        en.sample(wild, PAIR, samples=100, **OPTIONS)
    with pytest.raises(ValueError, match="overflows float32"):
        large = resnet(ko.ReLU(), 4, sw2=100.0, rho=100.0)
        en.sample(large, PAIR, samples=100, dtype="float32", **OPTIONS)
    with pytest.raises(ValueError, match="pass `pairs=True`"):
        en.sample(NETWORK, np.eye(400), samples=100, **options({"batch": 1}))
    with pytest.raises(TypeError, match="cannot be traced"):
        jax.jit(lambda k: en.sample(NETWORK, k, samples=100, **OPTIONS).mean_kernel.value)(PAIR)
    with pytest.raises(ValueError, match="`of` must name an estimate"):
        en.RelativeError(0.1, of="kernel")
    with pytest.raises(ValueError, match="`tolerance` must be positive"):
        en.AbsoluteError(0.0)


def test_measurements_that_were_not_made(whole):
    for name, option in (("response_diagonal", "responses"), ("tangent_kernel", "tangent_kernel")):
        with pytest.raises(ValueError, match=f"`sample` needs `{option}=True`"):
            getattr(whole.estimates, name)
    raw = en.sample(NETWORK, PAIR, samples=100, control=False, **OPTIONS)
    with pytest.raises(ValueError, match="pass `control=True`"):
        _ = raw.controlled
    with pytest.raises(ValueError, match="`control=True`"):
        _ = raw.estimates.limit_covariance
    np.testing.assert_array_equal(raw.mean_kernel.value, raw.raw.mean_kernel.value)


class Bent(eqx.Module):
    slope: jax.Array

    def __call__(self, x):
        return jnp.tanh(self.slope * x)


def edited(activation: Bent) -> Any:
    """Of a class of the same name and fields, with other code."""

    def __call__(self, x):
        return jnp.where(x > 2, jnp.tanh(self.slope * x) + 1e-6 * (x - 2) ** 2, jnp.tanh(self.slope * x))

    cls: Any = type(
        "Bent", (eqx.Module,), {"__annotations__": {"slope": jax.Array}, "__call__": __call__}
    )
    return cls(activation.slope)


def drawn(activation, **more) -> en.Ensemble:
    return en.sample(resnet(activation, 2, sw2=1.5, rho=0.5), PAIR, samples=400, **options(more))


def altered(ensemble: en.Ensemble, activation=None, **configuration: Any) -> en.Ensemble:
    """The same sums, as if they were of another run: with another activation, or of before probes."""
    probed = None if activation is None else _probe.probe(activation)
    changed = {"configuration": ensemble.configuration | configuration, "probe": probed}
    return en.Ensemble(**(vars(ensemble) | changed))


SLOPE = jnp.asarray(0.9)
#: A function, an edit of it under the same name, and itself in other words.
EDITED: dict[str, tuple[Any, Any, Any]] = {
    "function": (
        lambda x: jnp.tanh(0.9 * x),
        lambda x: jnp.tanh(x),
        lambda x: 1 - 2 / (1 + jnp.exp(1.8 * x)),
    ),
    "module": (Bent(SLOPE), edited(Bent(SLOPE)), Bent(SLOPE)),
}


@pytest.mark.parametrize("name", ["function", pytest.param("module", marks=pytest.mark.slow)])
def test_another_function_of_the_same_name_is_refused(name, tmp_path):
    mine, edit, same = (ko.Elementwise(fn) for fn in EDITED[name])
    path = tmp_path / "run.npz"
    first = drawn(mine, checkpoint=path)
    with pytest.raises(ValueError, match="differs in: the activation, a function of the same name"):
        drawn(edit, checkpoint=path)
    with pytest.raises(ValueError, match="differ in the activation.*cannot be merged"):
        first.merge(altered(first, edit, key=9))
    with pytest.raises(ValueError, match="differ in the activation.*no common limit"):
        en.extrapolate(first, altered(first, edit, width=16))
    assert same_numbers(first, drawn(same, checkpoint=path))
    assert first.merge(altered(first, same, key=9)).samples == 800
    en.extrapolate(first, altered(first, same, width=16))
    theory = ko.propagate(resnet(edit, 2, sw2=1.5, rho=0.5), PAIR)
    with pytest.raises(ValueError, match="their activations have the same name"):
        ko.compare(theory, first)


@pytest.mark.slow
def test_files_without_a_probe_are_compared_by_their_mean_kernels(tmp_path):
    path = tmp_path / "run.npz"
    first = drawn(ko.Elementwise(lambda x: jnp.tanh(0.9 * x)))
    altered(first).save(path)
    assert en.Ensemble.load(path).probe is None
    with pytest.raises(ValueError, match="differs in: the mean kernel"):
        drawn(ko.Elementwise(lambda x: jnp.tanh(0.9001 * x)), checkpoint=path)
    moved = eqx.tree_at(
        lambda e: e.reference_moment, altered(first, key=9), first.reference_moment + 1e-4
    )
    with pytest.raises(ValueError, match="differ in the mean kernel"):
        first.merge(moved)
    assert same_numbers(drawn(ko.Elementwise(lambda x: jnp.tanh(0.9 * x)), checkpoint=path), first)


@pytest.mark.slow
def test_another_architecture_of_the_same_name_is_refused(tmp_path):
    """Scales that a user's `layers` makes are in no field."""
    path = tmp_path / "run.npz"
    sample = lambda network: en.sample(network, PAIR, samples=400, checkpoint=path, **OPTIONS)
    sample(OwnLayered(ko.Tanh(), depth=2))

    class Edited(OwnLayered):
        def layers(self):
            return eqx.tree_at(lambda x: x.scale, super().layers(), replace_fn=lambda x: 0.5 * x)

    Edited.__name__ = "OwnLayered"
    with pytest.raises(ValueError, match="differs in: the mean kernel"):
        sample(Edited(ko.Tanh(), depth=2))


def damage(path: pathlib.Path, **changes: Any) -> None:
    """Other arrays in a file, or none in the place of one."""
    with np.load(path) as file:
        arrays = dict(file) | changes
    np.savez(path, **{name: values for name, values in arrays.items() if values is not None})


def in_configuration(path: pathlib.Path, **changes: Any) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return {"configuration": np.array(json.dumps(json.loads(str(file["configuration"])) | changes))}


DAMAGE: dict[str, tuple[Any, str]] = {
    "no sums": (lambda p: {"sums_yy": None}, "the sums `yy` are missing"),
    "more sums": (lambda p: {"sums_ntk": np.zeros(3)}, "sums `ntk`"),
    "fewer bins": (lambda p: {"counts": np.full(32, 50)}, "its `counts` must be 64 whole numbers"),
    "bins of sums": (lambda p: {"sums_y": np.zeros((32, 1, 6))}, r"shape \(64, 1, 6\), got \(32, 1, 6\)"),
    "NaN": (lambda p: {"sums_y": np.full((64, 1, 6), np.nan)}, "`sums y` has entries that are NaN"),
    "no numbers": (lambda p: {"sums_y": np.full((64, 1, 6), "x")}, "must be real numbers"),
    "negative": (lambda p: {"counts": np.full(64, -50)}, "multiples of the batch, 50"),
    "part of a batch": (lambda p: {"counts": np.full(64, 49)}, "multiples of the batch, 50"),
    "real counts": (lambda p: {"counts": np.full(64, 50.0)}, "must be 64 whole numbers"),
    "no time": (lambda p: {"ts": None}, "it has no 'ts'"),
    "no format": (lambda p: {"format": None}, "is not a file of an ensemble"),
    "another format": (lambda p: {"format": np.array(7)}, "this version knows: format 7"),
    "no JSON": (lambda p: {"configuration": np.array("{")}, "is not a file of an ensemble"),
    "a list": (lambda p: {"configuration": np.array("[1]")}, "is a damaged file"),
    "no width": (lambda p: {"configuration": np.array('{"inputs": 2}')}, "has no `network`"),
    "other inputs": (lambda p: in_configuration(p, inputs=3), "not one of 3 inputs"),
    "other layers": (lambda p: in_configuration(p, layers=[0, 4]), r"must have shape \(2,\)"),
    "layers of text": (lambda p: in_configuration(p, layers=7), "is a damaged file"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files_are_refused_in_a_sentence(name, whole, tmp_path):
    changes, message = DAMAGE[name]
    path = tmp_path / "run.npz"
    whole.save(path)
    damage(path, **changes(path))
    with pytest.raises(ValueError, match=message) as refused:
        en.Ensemble.load(path)
    assert "\n" not in str(refused.value) and str(path) in str(refused.value)


def test_other_files_are_no_ensembles(whole, tmp_path):
    path = tmp_path / "run.npz"
    whole.save(path)
    complete = path.read_bytes()
    text = b"no archive at all"
    for content in (
        b"",
        text,
        complete[: len(complete) // 2],
        complete[:-30],
        complete[30:],
        b"\x93NUMPY",
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is not a file of an ensemble, or it is damaged") as refused:
            en.sample(NETWORK, PAIR, samples=1000, checkpoint=path, **OPTIONS)
        assert "\n" not in str(refused.value)
    np.savez(path, x=np.eye(3))
    with pytest.raises(ValueError, match="is not a file of an ensemble"):
        en.Ensemble.load(path)
    # As many networks as there should be, but not in the bins where a run puts them.
    whole.save(path)
    damage(path, counts=np.roll(whole.counts, 1))
    with pytest.raises(ValueError, match="is damaged: its bins are not those of a run"):
        en.sample(NETWORK, PAIR, samples=1000, checkpoint=path, **OPTIONS)
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "link.npz").symlink_to(tmp_path / "nowhere" / "run.npz")
    for name, message in (("folder.npz", "is a folder"), ("link.npz", "there is no folder")):
        with pytest.raises(ValueError, match=message):
            en.sample(NETWORK, PAIR, samples=1000, checkpoint=tmp_path / name, **OPTIONS)


def test_a_checkpoint_may_be_a_link(whole, tmp_path):
    (tmp_path / "disk").mkdir()
    link = tmp_path / "run.npz"
    link.symlink_to(tmp_path / "disk" / "run.npz")
    en.sample(NETWORK, PAIR, samples=350, checkpoint=link, **OPTIONS)
    assert same_numbers(en.sample(NETWORK, PAIR, samples=1000, checkpoint=link, **OPTIONS), whole)
    assert link.is_symlink() and same_numbers(en.Ensemble.load(tmp_path / "disk" / "run.npz"), whole)


def test_checkpoints_are_rare_by_default():
    assert _sample._CHECKPOINT_SECONDS >= 10
