"""Every benchmark, one after the other."""

import subprocess
import sys

for name in ("app", "loop", "effdet", "classify", "start", "datasets", "servers"):
    print(f"── {name}", flush=True)
    subprocess.run([sys.executable, "-m", f"tests.bench.{name}"], check=True)
