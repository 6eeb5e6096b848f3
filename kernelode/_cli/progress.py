"""Progress on stderr, for whatever may take more than two seconds."""

import contextlib
import datetime
from collections.abc import Callable, Iterator

import rich.console
import rich.progress
import rich.text


class _RateColumn(rich.progress.ProgressColumn):
    """Of what is counted: how many, how many a second, and the time left."""

    def render(self, task: rich.progress.Task) -> rich.text.Text:
        if not task.fields.get("counted") or task.speed is None:
            return rich.text.Text()
        left = task.time_remaining
        ending = "" if left is None else f", {datetime.timedelta(seconds=round(left))} left"
        return rich.text.Text(f"{task.completed:,.0f}, {task.speed:,.0f}/s{ending}")


class Progress:
    """Bars on a terminal, silence where stderr is a file or a pipe; gone when the work is done."""

    def __init__(self):
        console = rich.console.Console(stderr=True)
        self._bars = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.TaskProgressColumn(),
            rich.progress.TimeElapsedColumn(),
            _RateColumn(),
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

    @contextlib.contextmanager
    def count(self, description: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """A bar with the rate and the time left. Yields a function to call with the number so far."""
        task = self._bars.add_task(description, total=total, counted=True)
        try:
            yield lambda done: self._bars.update(task, completed=done)
        finally:
            self._bars.remove_task(task)
