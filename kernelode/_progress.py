"""A bar with the rate and the time left, for those who ask for one."""

import contextlib
from collections.abc import Callable, Iterator

#: Called with the number so far.
Report = Callable[[int], None]


@contextlib.contextmanager
def reporting(progress: bool | Report, what: str, total: int | None) -> Iterator[Report]:
    """A function to call with the number of `what` so far: the user's own, a bar on stderr, or none."""
    if callable(progress):
        yield progress
        return
    if not progress:
        yield lambda done: None
        return
    try:
        import rich.console
        import rich.progress
    except ImportError as error:
        raise ImportError("`progress=True` needs rich: `pip install rich`.") from error
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn("{task.fields[rate]}"),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    console = rich.console.Console(stderr=True)
    with rich.progress.Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task(what, total=total, rate="")

        def show(done: int) -> None:
            speed = bars.tasks[0].speed
            bars.update(task, completed=done, rate="" if speed is None else f"{speed:,.0f}/s")

        yield show
