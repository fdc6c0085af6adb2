"""A study from start to end: `simllm sweep`, and `simllm.Study` in Python."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ...errors import SimllmError
from .axes import columns
from .journal import FILE_NAME as JOURNAL
from .journal import Journal
from .local_workers import LocalWorkers, num_cores
from .orders import Answer, Order, Workers
from .points import Point, expand
from .ray_workers import RayWorkers
from .results_table import FILE_NAME as RESULTS
from .results_table import ResultsFile
from .study_file import load_study, parse_study
from .study_result import StudyResult
from .study_spec import StudySpec
from .tally import OnProgress, Tally

_FILES = (JOURNAL, RESULTS, "intervals.csv", "differences.csv")


class Study:
    """A scenario, axes and seeds: run it, stop it, run it on.

    >>> study = Study({"scenario": "01-first-run", "axes": [{"path": "pools.0.replicas", "values": [1, 2]}]})
    >>> study.run("out").intervals()
    """

    def __init__(self, spec: StudySpec | Mapping[str, Any], base_dir: str | Path = ".") -> None:
        """Takes a study as plain data. base_dir: the folder that its paths are relative to.

        Raises: ScenarioError with every problem at once.
        """
        self.spec = spec if isinstance(spec, StudySpec) else parse_study(spec)
        self._folder = Path(base_dir)

    @classmethod
    def load(cls, source: str | Path, overrides: Sequence[str] = ()) -> Study:
        """Reads a study's file, or a shipped one by name; overrides are fields of its scenario.

        Raises: ScenarioError with every problem at once.
        """
        return cls(*load_study(source, overrides))

    def points(self, *, allow_python: bool = False) -> list[Point]:
        """Returns the points, seeds changing fastest. Raises: ScenarioError if none makes a scenario."""
        return expand(self.spec, self._folder, allow_python=allow_python)

    def run(
        self,
        directory: str | Path | None = None,
        *,
        jobs: int | None = None,
        ray: str | None = None,
        allow_python: bool = False,
        retry_failed: bool = False,
        on_progress: OnProgress | None = None,
    ) -> StudyResult:
        """Runs the points that have no result yet and returns those of all.

        directory: keeps journal and results; points that it has are not run again (failed ones are with
        `retry_failed`). Without one nothing is kept. jobs: processes, by default one per core. ray: address
        of a Ray cluster to run on instead. on_progress(num_done, num_failed, num_points) is called before
        the first point and after each.
        Raises: SimllmError if nothing can be run; a point that fails is a row with its error.
        """
        points = self.points(allow_python=allow_python)
        with ExitStack() as stack:
            folder = Path(directory or stack.enter_context(TemporaryDirectory()))
            check_study_folder(folder)
            folder.mkdir(parents=True, exist_ok=True)
            journal = stack.enter_context(Journal(folder / JOURNAL))
            results = stack.enter_context(ResultsFile(folder / RESULTS, self.spec, points, journal.answers))
            orders = _orders(points, journal.answers, retry_failed=retry_failed)
            tally = Tally(points, journal.answers, on_progress)
            for answer in _answers(orders, jobs, ray, stack):
                journal.add(answer)
                results.refresh()
                tally.add(answer)
            return StudyResult(results.table(), columns(self.spec.axes), len(points))


def _orders(points: Sequence[Point], answers: dict[str, Answer], *, retry_failed: bool) -> list[Order]:
    """Returns what is left to run, each digest once, and forgets the answers that are to be tried again."""
    orders: dict[str, Order] = {}
    for point in points:
        known = answers.get(point.digest)
        if known is not None and known.row is None and retry_failed:
            del answers[point.digest]
            known = None
        if known is None and point.payload is not None:
            orders[point.digest] = Order(point.digest, point.payload)
    return list(orders.values())


def _answers(
    orders: Sequence[Order], jobs: int | None, ray: str | None, stack: ExitStack
) -> Iterator[Answer]:
    if not orders:
        return
    workers: Workers = RayWorkers(ray) if ray else LocalWorkers(min(jobs or num_cores(), len(orders)))
    yield from stack.enter_context(workers).answers(orders)


def check_study_folder(directory: Path) -> None:
    """Checks that a study may be kept there; worth doing before anything runs.

    Raises: SimllmError if `directory` is no folder or holds anything but the files of a study.
    """
    if directory.exists() and not directory.is_dir():
        raise SimllmError(f"{directory}: is a file; the results need a folder")
    entries = directory.iterdir() if directory.exists() else ()
    # Hidden files may be the half-written ones of a sweep that was killed.
    foreign = sorted(one.name for one in entries if one.name not in _FILES and not one.name.startswith("."))
    if foreign:
        what = f"holds {foreign[0]!r}, which no sweep wrote; choose a new or an empty folder"
        raise SimllmError(f"{directory}: {what}")
