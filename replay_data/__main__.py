"""`python -m replay_data [DIR]`: write the generated day again; its rules are left alone."""

from __future__ import annotations

import argparse
from pathlib import Path

from engine.simulate import SEED, generate, write_day
from replay_data import DAY


def main() -> None:
    """Generate the day and say what was written."""
    parser = argparse.ArgumentParser(prog="python -m replay_data", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=DAY, metavar="DIR")
    parser.add_argument("--seed", type=int, default=SEED, help="another seed, another day")
    options = parser.parse_args()
    day = generate(options.seed)
    write_day(options.folder, day)
    print(
        f"{options.folder}: {day.readings.num_rows:,} readings of {len(day.city.sensors):,} "
        f"sensors, {len(day.city.sources):,} sources, {len(day.truth):,} rows of truth"
    )


if __name__ == "__main__":
    main()
