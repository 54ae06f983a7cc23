"""What is done on a server itself before a run: an environment is made or looked at, and data there are checked.

    python builder.py look [--import]          what this very Python has; --import also loads it
    python builder.py make SPEC                an environment, as SPEC (JSON) says; see `make`
    python builder.py data LIST FOLDER         whether FOLDER holds the files of LIST: {path: [digest, bytes]}

Stdlib only, Python 3.8 and later; sent with our own code. It tells how it goes on in lines of its standard output that
begin with MARK and go on in JSON; all others are words of the programs that it runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from typing import Any

MARK = "dojang: "
WHOLE = "dojang.json"
NEEDED = {  # module: the distribution that it comes with
    "torch": "torch",
    "torchvision": "torchvision",
    "numpy": "numpy",
    "PIL": "pillow",
    "pydantic": "pydantic",
    "tomli_w": "tomli-w",
    "platformdirs": "platformdirs",
    "psutil": "psutil",
    "ultralytics": "ultralytics",
    "cv2": "opencv-python",
    "effdet": "effdet",
    "timm": "timm",
}
PYTHONS = ("python3.13", "python3.12", "python3.11", "python3", "python")
UV_PLACES = ("~/.local/bin/uv", "~/.cargo/bin/uv")
SAMPLE = 64  # files whose contents are read
GIB = 2.0**30
NETWORK = (
    *("name resolution", "network is unreachable", "could not connect", "connection refused", "dns error"),
    *("error sending request", "failed to fetch", "max retries exceeded", "connection timed out", "no route to host"),
    *("missing dependencies for socks", "proxyerror", "newconnectionerror", "failed to resolve"),
)
FULL = ("no space left", "disk quota exceeded", "os error 28", "os error 122")
LACKING = ("no matching distribution", "no solution found", "could not find a version", "not found in the package")


class Trouble(Exception):
    """What went wrong: code, message, hint."""


def tell(**what: Any) -> None:
    sys.stdout.write(MARK + json.dumps(what) + "\n")
    sys.stdout.flush()


def look(load: bool = False) -> dict[str, Any]:
    """Python's version, that of each distribution, and what is missing or cannot be loaded."""
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec

    versions: dict[str, str] = {}
    missing: list[str] = []
    broken: dict[str, str] = {}
    for module, distribution in NEEDED.items():
        try:
            if find_spec(module) is None:
                missing.append(distribution)
                continue
        except (ImportError, ValueError):
            missing.append(distribution)
            continue
        try:
            versions[distribution] = version(distribution)
        except PackageNotFoundError:
            versions[distribution] = ""
        if load:
            try:
                with contextlib.redirect_stdout(sys.stderr):
                    __import__(module)
            except Exception as e:  # whatever a library does on import
                broken[distribution] = (f"{type(e).__name__}: {e}")[:300]
    found: dict[str, Any] = {"python": list(sys.version_info[:3]), "versions": versions, "missing": missing}
    found["broken"] = broken
    if load and "torch" in versions and "torch" not in broken:
        import torch

        found["cuda"] = bool(torch.cuda.is_available())
        found["cuda_version"] = str(torch.version.cuda or "")
    return found


def make(spec: dict[str, Any]) -> None:
    """Make the environment `target`: whole under its name, or not there.

    first         requirements that are built for `kind`, if it is given, such as cu126: torch and what goes with it
    rest          the other requirements
    wheels        a folder to take everything from, without any network
    least         bytes that must be free before, `inodes` files
    offered       there is a uv to be had for the asking; uv: where it was put
    """
    target = spec["target"]
    if os.path.exists(os.path.join(target, WHOLE)):
        tell(done=True, new=False)
        return
    uv = _uv(spec.get("uv", ""))
    if not uv and spec.get("offered"):
        tell(wants="uv")
        return
    _require_room(os.path.dirname(target), spec["least"], spec["inodes"])
    temp = target + "-new"
    shutil.rmtree(temp, ignore_errors=True)
    shutil.rmtree(target, ignore_errors=True)
    tell(step="an empty environment, with " + ("uv" if uv else "pip"))
    _venv(uv, temp)
    python = os.path.join(temp, "bin", "python")
    kind = spec.get("kind", "")
    if kind and not _knows_kinds(uv):
        tell(step="uv, which knows where torch for each driver is")
        _install("", python, ["uv"], "", "")
        uv = os.path.join(temp, "bin", "uv")
    for requirements, built_for in ((spec["first"], kind), (spec["rest"], "")):
        if requirements:
            tell(step=", ".join(r.split("=")[0].split("<")[0].split(">")[0] for r in requirements))
            _install(uv, python, requirements, built_for, spec.get("wheels", ""))
    if spec.get("verify", True):
        tell(step="trying it out")
        _verify(python)
    with open(os.path.join(temp, WHOLE), "w") as f:
        json.dump({"first": spec["first"], "rest": spec["rest"]}, f)
        f.flush()
        os.fsync(f.fileno())
    os.rename(temp, target)
    tell(done=True, new=True)


def _require_room(folder: str, least: int, inodes: int) -> None:
    free = os.statvfs(folder)
    room = free.f_bavail * free.f_frsize
    if room < least:
        message = (
            f"The environment needs about {least / GIB:.1f} GiB on the server; {folder} has {room / GIB:.1f} GiB free."
        )
        raise Trouble("DISK_FULL", message, "Free some space there, or choose another folder.")
    if free.f_files and free.f_favail < inodes:
        message = f"The environment needs about {inodes} files on the server; its disk takes only {free.f_favail} more."
        raise Trouble("DISK_FULL", message, "Remove files there, or choose another folder.")


def _uv(sent: str) -> str:
    """The server's own, or the one that was sent; none that does not run here."""
    places = [shutil.which("uv") or "", *(os.path.expanduser(p) for p in UV_PLACES), sent]
    return next((p for p in places if p and os.access(p, os.X_OK) and _runs(p)), "")


def _runs(program: str) -> bool:
    try:
        done = subprocess.run(
            [program, "--version"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            timeout=30, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def _venv(uv: str, temp: str) -> None:
    if uv:
        _run([uv, "venv", "--relocatable", "--python", ">=3.11,<3.14", temp])
        return
    for name in PYTHONS:
        python = shutil.which(name)
        if python and _is_new(python):
            _run([python, "-m", "venv", temp])
            return
    raise Trouble(
        "PYTHON_TOO_OLD",
        "The server has neither uv nor a Python from 3.11 on to train with.",
        "Install one of them there, or name a Python of yours that has torch: dojang server add … --python PATH",
    )


def _is_new(python: str) -> bool:
    code = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))"
    done = subprocess.run([python, "-I", "-c", code], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return done.returncode == 0


def _knows_kinds(uv: str) -> bool:
    """Whether this uv can choose what torch is built for: one that is too old cannot, nor can pip."""
    if not uv:
        return False
    words = [uv, "pip", "install", "--help"]
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
    )
    return b"--torch-backend" in done.stdout


def _install(uv: str, python: str, requirements: list[str], kind: str, wheels: str) -> None:
    command = [uv, "pip", "install", "--python", python] if uv else [python, "-m", "pip", "install", "--no-input"]
    if wheels:
        command += ["--no-index", "--find-links", wheels]
    elif kind:
        command += ["--torch-backend", kind]
    _run([*command, *requirements])


def _verify(python: str) -> None:
    done = subprocess.run(
        [python, "-I", os.path.abspath(__file__), "look", "--import"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=False,
    )
    said = [line for line in done.stdout.decode("utf-8", "replace").splitlines() if line.startswith(MARK)]
    found: Any = json.loads(said[-1][len(MARK) :]) if said else {"missing": [], "broken": {"python": "it ended early"}}
    wrong = [f"{name} is missing" for name in found["missing"]]
    wrong += [f"{name}: {why}" for name, why in found["broken"].items()]
    if wrong:
        raise Trouble("ENV_BROKEN", f"The environment was made, but does not work: {'; '.join(wrong)}.", "")


def _run(command: list[str]) -> None:
    """Run it to its end, its words passed on. Raises Trouble that tells causes apart as far as its words do."""
    try:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace"
        )
    except OSError as e:
        raise Trouble("ENV_FAILED", f"{command[0]} cannot be run: {e.strerror}.", "") from e
    last: list[str] = []
    assert child.stdout
    for line in child.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
        last = [*last[-30:], line.strip()]
    if child.wait():
        raise _trouble(command, [line for line in last if line])


def _trouble(command: list[str], last: list[str]) -> Trouble:
    text = " ".join(last).lower()
    tail = " ".join(last[-3:])[-300:]
    if any(words in text for words in FULL):
        return Trouble(
            "DISK_FULL", "The server's disk was full while the environment was made.", "Free some space there."
        )
    if any(words in text for words in NETWORK):
        return Trouble(
            "NO_INTERNET",
            f"The server cannot fetch what training needs: {tail}",
            "Put its wheels into a folder here (pip download), then: dojang server add … --wheels DIR",
        )
    if any(words in text for words in LACKING):
        hint = "See that the folder of wheels holds all of them, for that Python and system."
        return Trouble("WHEEL_MISSING", f"Something that training needs is not to be had there: {tail}", hint)
    if "ensurepip" in text:
        return Trouble("ENV_FAILED", f"Python there cannot make environments: {tail}", "Install python3-venv, or uv.")
    name = os.path.basename(command[0])
    return Trouble("ENV_FAILED", f"Making the environment failed ({name}): {tail}", "")


def data(manifest: str, folder: str) -> None:
    """Every file there with its size, and a sample of them with their contents."""
    with open(manifest, encoding="utf-8") as f:
        wanted = sorted(json.load(f).items())
    folder = os.path.expanduser(folder)
    if not os.path.isdir(folder):
        raise Trouble("DATA_MISSING", f"There is no folder {folder} on the server.", "Mend `data` of the server.")
    wrong = []
    for done, (path, (_, size)) in enumerate(wanted):
        if done % 1000 == 0:
            tell(done=done, total=len(wanted))
        try:
            if os.stat(os.path.join(folder, path)).st_size != size:
                wrong.append(path)
        except OSError:
            wrong.append(path)
    every = max(1, len(wanted) // SAMPLE)
    for path, (digest, _) in wanted[::every] if not wrong else ():
        if _digest(os.path.join(folder, path)) != digest:
            wrong.append(path)
    if wrong:
        count, some = f"{len(wrong)} of {len(wanted)} images", ", ".join(wrong[:5])
        raise Trouble(
            "DATA_CHANGED",
            f"{count} in {folder} on the server are missing, or others than here: {some}",
            "Put them right there, or take the path out of the server's `data` to have them copied.",
        )
    tell(done=len(wanted), total=len(wanted), path=os.path.realpath(folder))


def _digest(path: str) -> str:
    found = hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb") as f:
            for piece in iter(lambda: f.read(1 << 20), b""):
                found.update(piece)
    except OSError:
        return ""
    return found.hexdigest()


def main(argv: list[str]) -> int:
    """0, or 1 after a line that says what is wrong."""
    try:
        if argv[0] == "look":
            tell(**look("--import" in argv))
        elif argv[0] == "make":
            make(json.loads(argv[1]))
        else:
            data(argv[1], argv[2])
        return 0
    except Trouble as e:
        code, message, hint = e.args
    except OSError as e:
        code, message, hint = "ENV_FAILED", f"{e.filename or ''}: {e.strerror or e}", ""
        if e.errno in (28, 122):
            code, hint = "DISK_FULL", "Free some space on the server."
    tell(error={"code": code, "message": message, "hint": hint})
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
