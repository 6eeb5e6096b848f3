"""Progress on stderr, for whatever may take more than two seconds."""

import contextlib
import datetime
from collections.abc import Callable, Iterator

#: Called with the number so far.
Report = Callable[[int], None]


class Progress:
    """Bars on a terminal, silence where stderr is a file or a pipe; gone when the work is done.

    **Raises** `ImportError` without rich.
    """

    def __init__(self):
        try:
            import rich.console
            import rich.progress
        except ImportError as error:
            raise ImportError("A progress bar needs rich: `pip install rich`.") from error
        console = rich.console.Console(stderr=True)
        self._bars = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.TaskProgressColumn(),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TextColumn("{task.fields[pace]}"),
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
        task = self._bars.add_task(description, total=total, pace="")
        try:
            yield lambda: self._bars.advance(task)
        finally:
            self._bars.remove_task(task)

    @contextlib.contextmanager
    def count(self, description: str, total: int | None) -> Iterator[Report]:
        """A bar with the number so far, the rate and the time left. Yields a function to call with the
        number so far."""
        task = self._bars.add_task(description, total=total, pace="")

        def show(done: int) -> None:
            known = next(known for known in self._bars.tasks if known.id == task)
            pace = f"{done:,}"
            if known.speed is not None:
                pace += f", {known.speed:,.0f}/s"
            if known.time_remaining is not None:
                pace += f", {datetime.timedelta(seconds=round(known.time_remaining))} left"
            self._bars.update(task, completed=done, pace=pace)

        try:
            yield show
        finally:
            self._bars.remove_task(task)


@contextlib.contextmanager
def reporting(progress: bool | Report, what: str, total: int | None) -> Iterator[Report]:
    """A function to call with the number of `what` so far: the user's own, a bar's, or none."""
    if callable(progress):
        yield progress
    elif not progress:
        yield lambda done: None
    else:
        with Progress() as bars, bars.count(what, total) as show:
            yield show
