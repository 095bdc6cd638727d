"""`python -m runtime`: the command line, its imports too without a look for garbage."""

import gc
import sys

gc.disable()  # a tenth of the time of a short answer, which makes next to none; a run enables it

from runtime.cli import main  # noqa: E402  # what it says holds for this import

if __name__ == "__main__":
    sys.exit(main())
