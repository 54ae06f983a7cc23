"""`python -m engine RUN_DIR`: the worker."""

import os
import sys

from engine.worker import main

if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # native libraries may crash while they are taken down, after everything that matters is on disk
