"""`python -m gpugrad.testing coverage`: which public functions have which derivatives."""

from __future__ import annotations

import argparse
import sys

import gpugrad as gg

from .coverage import as_markdown, coverage, problems

_TEXT = """# Which functions have which derivatives

Every public function, as `python -m gpugrad.testing coverage` found it: it runs the rows of the
table of operations (`gpugrad/testing/table/`) and checks the derivatives against numerical ones.
"yes" under "vjp" and "jvp": both are right, also against each other; under "second order": their
derivatives are too; under "complex": the same for complex arguments. Empty: there is none to check,
and the note says why. "needs cuSOLVER", "needs cuFFT": an emulated device lacks that library.

"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m gpugrad.testing", description=__doc__)
    commands = parser.add_subparsers(required=True)
    commands.add_parser("coverage", help="check every public function and print a table")
    parser.parse_args()
    entries = list(coverage(list({d.kind: d for d in reversed(gg.devices())}.values())))
    print(_TEXT + as_markdown(entries), end="")
    found = problems(entries)
    print(*found, sep="\n", file=sys.stderr)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
