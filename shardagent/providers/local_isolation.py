"""How strongly this machine can isolate a local sandbox, and the command for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

INIT = Path(__file__).with_name("local_init.py")
INIT_INSIDE = "/holdfast/init.py"
TRIAL_TIMEOUT_S = 10
PATH_INSIDE = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SANDBOX_UID = 1000

# What a program needs to start; the rest of /etc stays outside.
ETC_SHOWN = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/ssl", "/etc/localtime")

# Arguments reach the shell as "$@", never as text.
UNSHARED = 'hostname sandbox 2>/dev/null; mount -t tmpfs tmpfs /tmp; exec "$@"'
UNSHARED_IN_TMP = 'hostname sandbox 2>/dev/null; exec "$@"'


class Level(StrEnum):
    BUBBLEWRAP = "bubblewrap"
    UNSHARE = "unshare"
    PROCESS_GROUP = "process_group"


@dataclass(frozen=True, slots=True)
class Isolation:
    """What was found; `name` and `warning` are for the Run's spec and its page."""

    level: Level
    name: str
    missing: tuple[str, ...] = ()
    warning: str | None = None

    @property
    def own_pids(self) -> bool:
        """Whether killing the first process inside ends all of them."""
        return self.level is not Level.PROCESS_GROUP


@cache
def detect_isolation() -> Isolation:
    """Tries the levels, strongest first, by really starting something in them."""
    missing: list[str] = []
    for level in (Level.BUBBLEWRAP, Level.UNSHARE):
        problem = _trial(level)
        if problem is None:
            return _found(level, tuple(missing))
        missing.append(f"{level}: {problem}")
    return _found(Level.PROCESS_GROUP, tuple(missing))


def _found(level: Level, missing: tuple[str, ...]) -> Isolation:
    root = os.geteuid() == 0
    match level:
        case Level.BUBBLEWRAP:
            name = "bubblewrap: user+pid+mount+net+uts+ipc, rlimits"
            warning = (
                "The agent runs as root, so the sandboxes' user is the host's root "
                "behind a user namespace; run it as an ordinary user to harden this."
                if root
                else None
            )
        case Level.UNSHARE:
            name = "unshare: user+pid+mount+net+uts+ipc, host files visible, rlimits"
            warning = (
                "bubblewrap cannot be used here: sandboxes see the host's files. "
                "Install bubblewrap to hide them."
            )
        case Level.PROCESS_GROUP:
            name = "process group + rlimits only"
            warning = (
                "This kernel or its settings refuse namespaces: sandboxes are plain "
                "processes and see the host's files, processes and network."
            )
    return Isolation(level, name, missing, warning)


def _trial(level: Level) -> str | None:
    tool = "bwrap" if level is Level.BUBBLEWRAP else "unshare"
    if shutil.which(tool) is None:
        return f"{tool} is not installed"
    command = [*isolated(level), sys_python(), "-I", "-S", "-c", "pass"]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=TRIAL_TIMEOUT_S,
            text=True,
            stdin=subprocess.DEVNULL,
            env=environment(),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode != 0:
        return done.stderr.strip()[:200] or f"exit status {done.returncode}"
    return None


def sys_python() -> str:
    """The interpreter itself, not a virtual environment's link to it."""
    return os.path.realpath(sys.executable)


def environment() -> dict[str, str]:
    """The environment inside; nothing of the agent's passes."""
    return {"PATH": PATH_INSIDE, "HOME": "/tmp", "LANG": "C.UTF-8"}


def init_command(level: Level, arguments: Sequence[str]) -> list[str]:
    """The command that starts a sandbox whose init gets these arguments."""
    init = INIT_INSIDE if level is Level.BUBBLEWRAP else str(INIT)
    return [*isolated(level), sys_python(), "-I", "-S", init, *arguments]


def isolated(level: Level) -> list[str]:
    """The command words that put what follows them into isolation."""
    match level:
        case Level.BUBBLEWRAP:
            return _bubblewrap()
        case Level.UNSHARE:
            return _unshare()
        case Level.PROCESS_GROUP:
            return _with_pdeathsig()


@cache
def _bubblewrap() -> list[str]:
    command = [
        shutil.which("bwrap") or "bwrap",
        *("--unshare-all", "--unshare-user", "--die-with-parent", "--new-session"),
        *("--as-pid-1", "--hostname", "sandbox"),
        *("--uid", str(SANDBOX_UID), "--gid", str(SANDBOX_UID)),
        *("--cap-drop", "ALL"),
        *("--ro-bind", "/usr", "/usr"),
    ]
    for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64"):
        if Path(name).is_symlink():
            command += ["--symlink", str(Path(name).readlink()), name]
        else:
            command += ["--ro-bind-try", name, name]
    for name in ETC_SHOWN:
        command += ["--ro-bind-try", name, name]
    command += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    prefix = os.path.realpath(sys.base_prefix)
    if not Path(prefix).is_relative_to("/usr"):
        command += ["--ro-bind", prefix, prefix]
    command += ["--ro-bind", str(INIT), INIT_INSIDE, "--remount-ro", "/"]
    command += ["--chdir", "/tmp", "--"]
    return command


@cache
def _unshare() -> list[str]:
    in_tmp = any(
        Path(path).is_relative_to("/tmp") for path in (str(INIT), sys_python())
    )
    return [
        *_with_pdeathsig(),
        shutil.which("unshare") or "unshare",
        *("--user", "--map-root-user", "--pid", "--fork", "--kill-child=SIGKILL"),
        *("--mount", "--mount-proc", "--net", "--uts", "--ipc", "--"),
        *("sh", "-c", UNSHARED_IN_TMP if in_tmp else UNSHARED, "sh"),
    ]


@cache
def _with_pdeathsig() -> list[str]:
    """Dies with the thread that starts it; where the tool is missing, the closing
    control socket alone must do."""
    setpriv = shutil.which("setpriv")
    return [] if setpriv is None else [setpriv, "--pdeathsig", "KILL", "--"]
