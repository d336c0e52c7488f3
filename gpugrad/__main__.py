"""`python -m gpugrad`: what there is on this machine, checks of it, and measurements."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .command import bench, check, info


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m gpugrad",
        description="Without a command: versions, devices, and what is missing.",
    )
    parser.set_defaults(run=info.run)
    commands = parser.add_subparsers(metavar="COMMAND")
    for module in (check, bench):
        lines = (module.__doc__ or "").splitlines()
        module.add_arguments(
            commands.add_parser(module.NAME, help=lines[0], description="\n".join(lines))
        )
    args = parser.parse_args(argv)
    args.argv = sys.argv[1:] if argv is None else argv
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
