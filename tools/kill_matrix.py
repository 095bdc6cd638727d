"""Kills everybody at every moment, in the real command line, and holds what comes of it.

    tools/kill_matrix.py                      # all cells; goes on where it was
    tools/kill_matrix.py short                # the named set that bin/test runs
    tools/kill_matrix.py 'write.*' '*.SIGSTOP.*' --again
    tools/kill_matrix.py --table RELIABILITY.md

The cells, moments and expectations are in tools/kill_cells.py.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # `python tools/kill_matrix.py`

import click
import msgspec

from tools.hop_report import circumstances
from tools.kill_cells import PLAIN, Cell, all_cells, chosen
from tools.kill_judge import Reference, Result, judge
from tools.kill_run import Place, make_clip, run_cell
from tools.kill_table import ResultFile, digest_of_sources, figures, markdown, put_table, summary


class Matrix:
    """Runs cells, and keeps their results."""

    def __init__(self, file: ResultFile, folder: Path, sources: str, *, keep: bool) -> None:
        """Make the clip.

        Args:
            file: gets the results.
            folder: short; of the cells.
            sources: digest of the code.
            keep: the folders of cells that failed.
        """
        self._file, self._folder, self._sources, self._keep = file, folder, sources, keep
        self._clip = folder / "in.mp4"
        make_clip(self._clip)

    def run(self, cells: Sequence[Cell], *, jobs: int) -> None:
        """Run those that have no result; the undisturbed run first, whatever is asked for."""
        missing = [cell for cell in cells if cell.name not in self._file.results]
        if self._reference() is None:
            self._one(PLAIN)
        others = [cell for cell in missing if not cell.is_plain]
        pool = ThreadPoolExecutor(jobs)
        try:
            for _ in pool.map(self._one, others):
                pass
        finally:  # interrupted: the cells at hand end by themselves, in seconds
            pool.shutdown(cancel_futures=True)

    def _reference(self) -> Reference | None:
        plain = self._file.results.get(PLAIN.name)
        return plain.reference if plain else None

    def _one(self, cell: Cell) -> None:
        began = time.monotonic()
        place = Place(Path(tempfile.mkdtemp(dir=self._folder)))
        ran = run_cell(cell, place, self._clip)
        reference = None if cell.is_plain else self._reference()
        result = judge(cell, place, ran, reference, self._sources)
        stamp = datetime.now(UTC).isoformat(timespec="seconds")
        result = msgspec.structs.replace(result, at=stamp)
        self._file.add(result)
        click.echo(f"{cell.name:32} {time.monotonic() - began:5.1f} s  {figures(result)}", err=True)
        for problem in result.problems:
            click.echo(f"    {problem}", err=True)
        if result.problems and self._keep:
            click.echo(f"    kept: {place.folder}", err=True)
        else:
            shutil.rmtree(place.folder)


@click.command()
@click.argument("patterns", nargs=-1)
@click.option("--results", default="runs/kill_matrix.jsonl", show_default=True, type=Path)
@click.option("--again", is_flag=True, help="Forget earlier results of these cells.")
@click.option("--jobs", default=2, show_default=True, help="Cells that run at a time.")
@click.option("--list", "is_list", is_flag=True, help="Print the cells and run nothing.")
@click.option("--json", "is_json", is_flag=True, help="Print the results as JSON.")
@click.option("--table", type=Path, help="Put the table of all results into this file.")
@click.option("--keep", is_flag=True, help="Keep the folders of cells that fail.")
def main(
    patterns: tuple[str, ...],
    results: Path,
    again: bool,
    jobs: int,
    is_list: bool,
    is_json: bool,
    table: Path | None,
    keep: bool,
) -> None:
    """Run the cells that match PATTERNS (globs, or a named set: short); by default all."""
    try:
        cells = chosen(patterns)
    except LookupError as error:
        raise click.UsageError(str(error.args[0])) from error
    if is_list:
        click.echo("\n".join(cell.name for cell in cells))
        return
    sources = digest_of_sources()
    results.parent.mkdir(parents=True, exist_ok=True)
    file = ResultFile(results, sources)
    if again:
        for cell in cells:
            file.results.pop(cell.name, None)
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="km-"))  # short, as paths of sockets are
    try:
        Matrix(file, folder, sources, keep=keep).run(cells, jobs=jobs)
    finally:
        if not keep:
            shutil.rmtree(folder)
    click.echo(f"took {time.monotonic() - began:.0f} s", err=True)
    found = {cell.name: file.results[cell.name] for cell in cells if cell.name in file.results}
    if is_json:
        click.echo(msgspec.json.format(msgspec.json.encode(list(found.values())), indent=2))
    else:
        click.echo(summary(found.values()))
    if table:
        every = {cell.name for cell in all_cells()}
        known = {name: one for name, one in file.results.items() if name in every}
        put_table(table, markdown(all_cells(), known, _said(known)))
    raise SystemExit(any(result.problems for result in found.values()))


def _said(results: Mapping[str, Result]) -> list[str]:
    """Return what stands above the table: where and when the results come from."""
    facts = circumstances()
    hardware, versions = facts["hardware"], facts["versions"]
    assert isinstance(hardware, dict)
    assert isinstance(versions, dict)
    days = sorted({one.at[:10] for one in results.values()})
    minutes = sum(one.wall_s for one in results.values()) / 60
    return [
        f"{summary(results.values())} ({hardware['cores']} cores of {hardware['cpu']}, "
        f"Python {versions['python']}, torch {versions.get('torch')}, "
        f"{' to '.join(dict.fromkeys((days[0], days[-1])))}; the cells took {minutes:.0f} minutes, "
        f"added up).",
    ]


if __name__ == "__main__":
    main()
