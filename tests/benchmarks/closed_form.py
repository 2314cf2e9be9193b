"""How fast the closed-form erasers are at full size, beside the plain way, in one run on one machine.

    python tests/benchmarks/closed_form.py --names artists.csv

Builds a pipeline of the shape of SD 1.4 with random weights (tokenizer, text encoder, UNet), runs the suite
``bench_closed_form.py`` by pytest-benchmark and writes closed_form.md, .csv and .json, and the speed table of results/README.md. The whole run takes about half
an hour on two cores, nearly all of it in the plain ways. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))
TABLES = TESTS.parent / "results" / "tables" / "benchmarks"


class Plugin:
    """Hands the session to the suite, and says after each job how far the run is."""

    def __init__(self, session, out=sys.stderr) -> None:
        self.session, self.out, self.start, self.done = session, out, time.perf_counter(), 0

    def pytest_collection_finish(self, session) -> None:
        self.count = len(session.items)

    def pytest_runtest_logreport(self, report) -> None:
        if report.when == "teardown":
            self.done += 1
        if report.when == "call" and report.passed:
            seconds = time.perf_counter() - self.start
            name = report.nodeid.split("::")[-1]
            print(f"{seconds:7.0f} s  {self.done + 1}/{self.count}  {name}", file=self.out, flush=True)


def options() -> argparse.Namespace:
    """The command line."""
    from benchmarks import IDS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", type=Path, help="CSV file with a column artist; default: made-up names of two words")
    parser.add_argument("--out", type=Path, help="folder of the tables; default: results/tables/benchmarks")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default 2)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of what does not take minutes (default 3)")
    parser.add_argument("--only", nargs="+", choices=IDS, metavar="CASE", help=f"some cases only, of {', '.join(IDS)}")
    parser.add_argument("--ours-only", action="store_true", help="leave out the plain ways")
    parser.add_argument("--double", action="store_true", help="everything in float64, to see that both ways agree")
    parser.add_argument("--quick", action="store_true", help="a small pipeline and short lists: a trial of the suite")
    chosen = parser.parse_args()
    if chosen.out is None:
        if chosen.quick or chosen.only or chosen.ours_only or chosen.double:
            parser.error("a partial or trial run does not overwrite the published tables: give --out FOLDER")
        chosen.out = TABLES
    return chosen


def main() -> int:
    """Run and write; returns pytest's exit status."""
    chosen = options()
    for library in ("OMP", "MKL", "OPENBLAS"):  # read when torch, numpy and scipy are first imported
        os.environ[f"{library}_NUM_THREADS"] = str(chosen.threads)
    import pytest
    import torch

    from benchmarks.cases import cases, made_up_names, names_needed, read_names
    from benchmarks.full_size import editing_pipeline, small_editing_pipeline
    from benchmarks.measure import Session
    from benchmarks.report import about_machine, put_into, readme_block, rows, write

    torch.set_num_threads(chosen.threads)
    machine = about_machine()
    divisor = 20 if chosen.quick else 1
    needed = names_needed(divisor)
    try:
        names = read_names(chosen.names) if chosen.names else made_up_names(needed)
    except (OSError, ValueError) as error:
        return _refuse(str(error))
    if len(names) < needed:
        return _refuse(f"{chosen.names}: {len(names)} distinct names, the cases take {needed}")

    print("building the pipeline", file=sys.stderr, flush=True)
    pipe = small_editing_pipeline() if chosen.quick else editing_pipeline()
    if chosen.double:
        pipe.text_encoder.double(), pipe.unet.double()
    made = cases(names, divisor)
    session = Session(
        pipe,
        {id: case for id, case in made.items() if not chosen.only or id in chosen.only},
        rounds=chosen.rounds,
        dtype=torch.float64 if chosen.double else torch.float32,
        plain=not chosen.ours_only,
    )
    plugin = Plugin(session)
    plugin_name = "benchmark session"
    arguments = [
        str(TESTS / "benchmarks" / "bench_closed_form.py"), "--rootdir", str(TESTS.parent), "-o", "addopts=",
        "-o", "python_files=bench_*.py", "--import-mode=importlib", "--benchmark-only", "-q", "--no-header",
        "--benchmark-columns=min,median,rounds", "--benchmark-group-by=group", "-p", "no:cacheprovider",
    ]  # fmt: skip
    start = time.perf_counter()
    status = pytest.main(arguments, plugins=[_Named(plugin_name, plugin)])
    about = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "minutes": (time.perf_counter() - start) / 60,
        "trial": chosen.quick,
        "numbers": "float64" if chosen.double else "float32",
        "names": "from a file" if chosen.names else "made up",
        "threads": torch.get_num_threads(),
        **machine,
    }
    for path in write(chosen.out, list(made.values()), session, about):
        print(path.name, "written to", chosen.out)
    if chosen.out == TABLES and status == 0:
        block = readme_block(rows(list(made.values()), session.records), about)
        if put_into(TESTS.parent / "results" / "README.md", block):
            print("results/README.md: speed table replaced")
    return int(status)


class _Named:
    """Registers the plugin under a name by which the suite finds it."""

    def __init__(self, name: str, plugin: Plugin) -> None:
        self.name, self.plugin = name, plugin

    def pytest_configure(self, config) -> None:
        config.pluginmanager.register(self.plugin, self.name)


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
