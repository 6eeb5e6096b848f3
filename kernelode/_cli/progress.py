"""Progress on stderr, for whatever may take more than two seconds."""

import contextlib
from collections.abc import Callable, Iterator

import rich.console
import rich.progress


class Progress:
    """Bars on a terminal, silence where stderr is a file or a pipe; gone when the work is done."""

    def __init__(self):
        console = rich.console.Console(stderr=True)
        self._bars = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.TaskProgressColumn(),
            rich.progress.TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> "Progress":
        self._bars.start()
        return self

    def __exit__(self, *exception) -> None:
        self._bars.stop()

    @contextlib.contextmanager
    def stage(self, description: str, total: int | None = None) -> Iterator[Callable[[], None]]:
        """A bar for one stage of the work. Yields a function to call after each of `total` steps;
        without `total` the bar pulses, for what is a single call into compiled code."""
        task = self._bars.add_task(description, total=total)
        try:
            yield lambda: self._bars.advance(task)
        finally:
            self._bars.remove_task(task)
