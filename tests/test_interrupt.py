"""Signals, and files that are written while they come: in processes of their own, as users have them."""

import os
import pathlib
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import xarray

from kernelode._support import files as _files, interrupt as _interrupt
from kernelode._support.interrupt import in_turn, signals_held, sigterm_as_interrupt
from kernelode.ensemble import Ensemble

from .helpers import start_python

ROOT = pathlib.Path(__file__).resolve().parent.parent


def end(process: subprocess.Popen, count: int, *signals: int) -> tuple[str, str]:
    """Send signals to a process when it says that it is so far; what it says then."""
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= count:
            break
    for number in signals:
        process.send_signal(number)
    return process.communicate(timeout=120)


ENSEMBLE = """
import sys
import jax.random as jr, numpy as np
import kernelode as ko

network = ko.ResNet(ko.Tanh(), 4, residual_scale=0.5, weight_variance=1.5)
kernel = np.array([[1.0, 0.3], [0.3, 0.8]], np.float32)
found = ko.ensemble.sample(network, kernel, width=8, key=jr.key(3), batch=50, samples=10**7,
                           checkpoint=sys.argv[1], progress=lambda done: print(done, flush=True))
print("goes on", found.ended, found.samples)
"""

SWEEP = """
import sys
import numpy as np
import kernelode as ko

network = ko.ResNet(ko.LeakyReLU(0.1), 3)
function = lambda net: ko.propagate(net, np.array([[0.5, 0.2], [0.2, 0.4]])).mean_kernel[-1]
axes = {"residual_scale": np.linspace(0.1, 1, 1000), "weight_variance": np.linspace(0.5, 2, 100)}
ko.sweep(function, network, axes, chunk=int(sys.argv[2]), folder=sys.argv[1],
         progress=lambda done: print(done, flush=True))
"""


@pytest.mark.slow
def test_sigterm_ends_an_ensemble_as_ctrl_c_does(tmp_path):
    """Twice, as batch systems send it, and through a link, whose target is replaced."""
    (tmp_path / "disk").mkdir()
    link, target = tmp_path / "run.npz", tmp_path / "disk" / "target.npz"
    link.symlink_to(target)
    process = start_python(ENSEMBLE, link)
    out, errors = end(process, 2000, signal.SIGTERM, signal.SIGTERM)
    assert process.returncode == 0, errors
    assert "networks are returned" in errors
    last = [line for line in out.splitlines() if line.startswith("goes on interrupted")]
    kept = Ensemble.load(target)
    assert kept.samples >= 2000 and last == [f"goes on interrupted {kept.samples}"]
    assert link.is_symlink() and [p.name for p in target.parent.iterdir()] == ["target.npz"]


@pytest.mark.slow
def test_a_run_that_is_ended_at_once_is_kept_too(tmp_path):
    """Too few for an estimate: it raises, but the checkpoint has them."""
    process = start_python(ENSEMBLE.replace("50", "5000"), tmp_path / "run.npz")
    _, errors = end(process, 5000, signal.SIGTERM)
    assert process.returncode != 0 and "KeyboardInterrupt" in errors
    assert 5000 <= Ensemble.load(tmp_path / "run.npz").samples < 40_000


@pytest.mark.slow
def test_sigterm_ends_a_sweep_as_ctrl_c_does(tmp_path):
    process = start_python(SWEEP, tmp_path, 10)
    end(process, 500, signal.SIGTERM, signal.SIGTERM)
    assert process.returncode != 0
    points = [np.load(file)["points"] for file in tmp_path.glob("points-*.npz")]
    assert 500 <= len(np.unique(np.concatenate(points))) < 100_000
    process = start_python(SWEEP, tmp_path, 50_000)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert int(out.split()[0]) >= 500
    with xarray.open_dataset(tmp_path / "sweep.nc") as kept:
        assert np.all(np.isfinite(kept["value"]))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_ends_with_130(number, tmp_path):
    pytest.importorskip("typer")
    np.savez(tmp_path / "k.npz", kernel=np.array([[1.0, 0.3], [0.3, 0.8]]))
    code = """
import sys
from kernelode._cli.main import main
from kernelode.ensemble import _sample
_sample._CHECKPOINT_SECONDS, save, number = 0.0, _sample._write, [0]

def write(*arguments):
    save(*arguments)
    number[0] += 1
    print(number[0], flush=True)

_sample._write = write
sys.exit(main(["ensemble", "--data", "k.npz", "--depth", "4", "--width", "8", "--networks", "10000000",
               "--input-scale", "raw", "--output", "run.npz"]))
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, errors = end(process, 12, number)
    assert process.returncode == 130, errors
    assert errors == "" and "ended by: interrupted" in " ".join(out.split())
    assert f"{Ensemble.load(tmp_path / 'run.npz').samples:,} networks" in out


def test_the_handler_is_restored_and_others_are_left_alone():
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    with pytest.raises(KeyboardInterrupt):
        with sigterm_as_interrupt():
            with sigterm_as_interrupt():
                pass
            # The second of two that come together is the same request.
            try:
                signal.raise_signal(signal.SIGTERM)
            except KeyboardInterrupt:
                signal.raise_signal(signal.SIGTERM)
                raise
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    seen = []
    own = lambda number, frame: seen.append(number)
    before = signal.signal(signal.SIGTERM, own)
    try:
        with sigterm_as_interrupt():
            signal.raise_signal(signal.SIGTERM)
        assert seen == [signal.SIGTERM] and signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


def test_other_threads_get_no_handlers():
    found = []

    def run():
        with sigterm_as_interrupt(), signals_held():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [signal.SIG_DFL]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_write_that_was_begun_is_finished(number, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"half of it")
        signal.raise_signal(number)
        file.write(b" and the other")

    with pytest.raises(KeyboardInterrupt), sigterm_as_interrupt():
        _files.write_whole(path, write)
    assert path.read_bytes() == b"half of it and the other"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]

    def twice(file):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        _files.write_whole(path, twice)
    assert path.read_bytes() == b"half of it and the other"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_links_are_followed(tmp_path):
    (tmp_path / "disk").mkdir()
    for name in ("old", "new"):
        (tmp_path / name).symlink_to(tmp_path / "disk" / name)
    (tmp_path / "disk" / "old").write_bytes(b"old")
    (tmp_path / "chain").symlink_to("new")  # to a link, to nothing as yet
    for name in ("old", "chain"):
        _files.write_whole(tmp_path / name, lambda file: file.write(b"written"))
        assert (tmp_path / name).is_symlink() and (tmp_path / name).read_bytes() == b"written"
    assert sorted(p.name for p in (tmp_path / "disk").iterdir()) == ["new", "old"]


class Slow:
    """An array that is computed when it has been asked about so many times."""

    def __init__(self, asked: int):
        self.left = asked

    def is_ready(self) -> bool:
        self.left -= 1
        return self.left < 0

    def block_until_ready(self):
        return self


@pytest.mark.parametrize("asked", [0, 3])
def test_nothing_computed_is_lost_to_the_launch_of_what_follows(asked, monkeypatch):
    def launch(start):
        if start == 2:
            raise KeyboardInterrupt
        return Slow(asked if start else 0)

    seen = []
    with pytest.raises(KeyboardInterrupt):
        for found in in_turn(launch, range(5)):
            seen.append(found)
    assert len(seen) == (2 if asked == 0 else 1)
    # A signal from outside waits for the result of the launch that it comes in, if such take long.
    monkeypatch.setattr(_interrupt, "_FELT", -1.0)
    number = iter([0, 0, signal.SIGTERM, 0, 0])

    def signalled(start):
        if sent := next(number):
            signal.raise_signal(sent)
        return Slow(0)

    seen = []
    with pytest.raises(KeyboardInterrupt), sigterm_as_interrupt():
        for found in in_turn(signalled, range(5)):
            seen.append(found)
    assert len(seen) == 3
    monkeypatch.undo()
    assert len(list(in_turn(lambda start: Slow(asked), range(5)))) == 5
    assert list(in_turn(launch, [])) == []
