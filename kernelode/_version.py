"""The version, which `pyproject.toml` says."""

from importlib.metadata import version

__version__: str = version("kernelode")
