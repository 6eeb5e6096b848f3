"""Refusing what does not fit into memory, before anything is allocated."""

import os
import pathlib

import jax


def check_memory(needed: float | int, what: str, remedy: str) -> None:
    """**Raises** `ValueError` if `needed` bytes are more than there is free on the device or the host."""
    free = available_bytes()
    if free is not None and needed > free:
        raise ValueError(
            f"{what} need about {needed / 1e9:.3g} GB, but {free / 1e9:.3g} GB are free. {remedy}"
        )


def available_bytes() -> float | None:
    """Free memory of the first device; of the host for CPUs. None where it cannot be told."""
    statistics = jax.local_devices()[0].memory_stats()
    if statistics and "bytes_limit" in statistics:
        return statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)
    limits = []
    try:
        limits.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        group = pathlib.Path("/sys/fs/cgroup")
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            limits.append(int(limit) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        pass
    return float(min(limits)) if limits else None
