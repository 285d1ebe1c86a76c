"""Where the peers are, and what is said where they are not."""

import json
from pathlib import Path

import pytest

from benchmarks import installing, leanest
from benchmarks.installing import Found, Missing, install


@pytest.fixture
def no_peers(tmp_path, monkeypatch):
    """A folder without a single peer."""
    monkeypatch.setenv("PENSTOCK_PEERS", str(tmp_path))
    return tmp_path


@pytest.fixture
def portkey(no_peers, monkeypatch):
    """A Portkey of version 1.2.3, and a Node.js to run it."""
    package = no_peers / "portkey" / "node_modules" / "@portkey-ai" / "gateway"
    (package / "build").mkdir(parents=True)
    (package / "build" / "start-server.js").write_text("")
    (package / "package.json").write_text(json.dumps({"version": "1.2.3"}))
    _program(no_peers / "bin" / "node")
    monkeypatch.setenv("PATH", str(no_peers / "bin"))
    return package


def _program(path, says=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)


def test_peers_live_where_the_environment_says_or_beside_other_caches(no_peers, monkeypatch):
    assert installing.folder() == no_peers

    monkeypatch.delenv("PENSTOCK_PEERS")

    assert installing.folder() == Path.home() / ".cache" / "penstock-peers"


@pytest.mark.parametrize("peer", [leanest.LITELLM, leanest.ENVOY], ids=lambda peer: peer.name)
def test_a_peer_that_is_not_installed_says_how_to_have_it(no_peers, peer):
    with pytest.raises(Missing, match=r"is not installed \(`make peers` installs it\)\."):
        installing.found(peer)


def test_a_peer_in_an_environment_is_found_with_its_version(no_peers):
    _program(no_peers / "litellm" / "bin" / "litellm")
    _program(no_peers / "litellm" / "bin" / "python", says="9.8.7")

    program = str(no_peers / "litellm" / "bin" / "litellm")
    assert installing.found(leanest.LITELLM) == Found((program,), "9.8.7")


def test_portkey_is_found_with_its_version(portkey):
    found = installing.found(leanest.PORTKEY)

    assert found.version == "1.2.3"
    assert found.program[1] == str(portkey / "build" / "start-server.js")


def test_a_version_that_is_there_is_not_installed_again(portkey):
    called = []

    said = install(leanest.PORTKEY, "1.2.3", lambda: called.append("installed"))

    assert (said, called) == ("Portkey gateway 1.2.3 is there.", [])


def test_another_version_is_replaced(portkey):
    def replace():
        (portkey / "package.json").write_text(json.dumps({"version": "2.0.0"}))

    assert install(leanest.PORTKEY, "2.0.0", replace) == "Portkey gateway 2.0.0 is installed."


def test_an_installer_that_fails_is_named_by_its_exit_code(no_peers):
    _program(no_peers / "fails")
    (no_peers / "fails").write_text("#!/bin/sh\nexit 3\n")

    with pytest.raises(Missing, match="fails ended with exit code 3"):
        installing.run((str(no_peers / "fails"),))


def test_nginx_tells_its_version():
    assert installing.nginx_version("nginx version: nginx/1.22.1") == "1.22.1"


def test_versions_are_pinned_in_the_package_that_npm_reads():
    package = json.loads(installing.portkey_package())

    assert package["dependencies"] == {"@portkey-ai/gateway": installing.PORTKEY}
    assert package["overrides"] == {"@hono/node-server": installing.PORTKEY_SERVER}
