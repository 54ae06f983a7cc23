"""The worker on a server: `python -m engine.servers.there RUN_DIR`.

There a run's folder has a workspace of its own in it, laid down when it was submitted, so that nothing that changes
here while it waits or trains reaches it:

    home/version.json              project and number that it has where it was submitted
    home/datasets/NAME/            the data set's lists; its images lie in data/ of the server's folder
    home/weights/                  what it starts from
    home/cache                     → cache of the server's folder, shared by all runs
    home/projects/PROJECT/V_n      → the run's folder itself, where a worker expects it
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path

HOME, ABOUT = "home", "version.json"


def settle(run_dir: Path) -> Path:
    """Make the links; the run directory as a worker wants it, within its workspace. Several processes may do so at once."""
    home = run_dir / HOME
    told = json.loads((home / ABOUT).read_bytes())
    place = home / "projects" / str(told["project"]) / str(told["version"])
    cache = run_dir.parent.parent / "cache"
    for folder in (cache, place.parent):
        folder.mkdir(parents=True, exist_ok=True)
    for link, target in ((home / "cache", cache), (place, run_dir)):
        with suppress(FileExistsError):
            link.symlink_to(os.path.relpath(target, link.parent), target_is_directory=True)
    return place


def main(argv: list[str]) -> int:
    """As `python -m engine`, for the run in this folder."""
    from engine import worker

    return worker.main([str(settle(Path(argv[0]).absolute()))])


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # as `python -m engine` does, for the same reason
