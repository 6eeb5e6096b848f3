"""Refusing what does not fit into memory, before anything is allocated."""

import os
import pathlib
import re
from typing import Any

import jax
import jax.core

#: Less than this is not looked into: asking the system takes longer than a small calculation. No machine
#: that JAX runs on has less to spare.
_ALWAYS_THERE = 2**26


class TooLarge(ValueError):
    """A calculation that does not fit into memory."""


def check_memory(needed: float | int, what: str, remedy: str, like: jax.Array | None = None) -> None:
    """**Raises** `ValueError` if `needed` bytes are more than there is free on the device where `like`
    is, by default the first; for CPUs, on the host."""
    if needed <= _ALWAYS_THERE:
        return
    free = _free_beside(like)
    if free is not None and needed > free:
        raise TooLarge(
            f"{what} need about {needed / 1e9:.3g} GB, but {free / 1e9:.3g} GB are free. {remedy}"
        )


def _free_beside(array: jax.Array | None) -> float | None:
    """Free bytes on the device of an array; of a traced one, where it would be."""
    if array is None or isinstance(array, jax.core.Tracer):
        return available_bytes(jax.config.jax_default_device)  # pyright: ignore
    devices = array.devices()
    # Arrays spread over several devices may be held by all of them together.
    return available_bytes(*devices) if len(devices) == 1 else None


def available_bytes(device: Any = None) -> float | None:
    """Free memory of a device, by default of the first; of the host for CPUs. None where it cannot be
    told."""
    if not isinstance(device, jax.Device):  # the default may also be the name of a platform
        device = jax.local_devices()[0]
    statistics = device.memory_stats()
    if statistics and "bytes_limit" in statistics:
        return float(statistics["bytes_limit"] - statistics.get("bytes_in_use", 0))
    limits = [_free_on_host(), _free_in_group(), _free_to_process()]
    return min((float(limit) for limit in limits if limit is not None), default=None)


def _free_on_host() -> int | None:
    """Bytes that programs can have without swapping: files that Linux keeps in memory give way."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _text("/proc/meminfo"), re.M)
    if found:
        return 1024 * int(found[1])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def _free_in_group() -> int | None:
    """Bytes that the limits of a container or a batch system leave: of the control group of this process
    and of all those around it, in version 2 or 1."""
    found = []
    for line in _text("/proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if not controllers:
            root, names = "/sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = "/sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        place = pathlib.PurePosixPath(group)
        # In a container the groups outside are named, but not there.
        found += [_left(f"{root}{one}", *names) for one in (place, *place.parents)]
    return min((left for left in found if left is not None), default=None)


def _left(folder: str, limit: str, used: str, files: str) -> int | None:
    """The limit of a group less what is used, but for files, which give way."""
    allowed, taken = (_text(f"{folder}/{name}").strip() for name in (limit, used))
    if not (allowed.isdigit() and taken.isdigit()):
        return None
    cached = re.search(rf"^{files} (\d+)", _text(f"{folder}/memory.stat"), re.M)
    return int(allowed) - int(taken) + (int(cached[1]) if cached else 0)


def _free_to_process() -> int | None:
    """Bytes that `ulimit -v` leaves."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    pages = _text("/proc/self/statm").split()
    if limit == resource.RLIM_INFINITY or not pages:
        return None
    return limit - int(pages[0]) * os.sysconf("SC_PAGE_SIZE")


def _text(path: str) -> str:
    try:
        return pathlib.Path(path).read_text()
    except (OSError, ValueError):
        return ""
