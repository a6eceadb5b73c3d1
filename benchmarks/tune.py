"""Print the table of bars of tuning: `make bench-tune`."""

import sys

from benchmarks.__main__ import main
from benchmarks.bars import TUNE_BARS

if __name__ == "__main__":
    # its processes pin themselves: some have two cores
    sys.exit(main(TUNE_BARS, prog="python -m benchmarks.tune", pin=False))
