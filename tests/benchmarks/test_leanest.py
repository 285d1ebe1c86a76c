"""How the peers are configured."""

import json
from pathlib import Path

import pytest

from benchmarks import leanest

PORT, UPSTREAM_PORT = 20_001, 20_002


def start(peer):
    return peer.start(("program",), Path("/folder"), PORT, UPSTREAM_PORT)


def document(peer):
    (text,) = start(peer).files.values()
    return json.loads(text)


@pytest.mark.parametrize("peer", leanest.PEERS, ids=lambda peer: peer.name)
def test_every_peer_listens_on_its_port_and_calls_only_the_upstream(peer):
    begun = start(peer)
    said = " ".join((*begun.command, *begun.files.values(), *(value for _, value in begun.headers)))

    assert begun.command[0] == "program"
    assert str(PORT) in said
    assert str(UPSTREAM_PORT) in said
    assert "0.0.0.0" not in said
    assert "https://" not in said


@pytest.mark.parametrize("peer", [leanest.LITELLM, leanest.ENVOY, leanest.NGINX], ids=lambda peer: peer.name)
def test_a_command_names_the_file_that_it_brings(peer):
    begun = start(peer)

    assert [f"/folder/{each}" in begun.command for each in begun.files] == [True]


def test_litellm_has_one_model_and_nothing_else_on():
    config = document(leanest.LITELLM)

    (model,) = config["model_list"]
    assert model["litellm_params"]["api_base"] == f"http://127.0.0.1:{UPSTREAM_PORT}/v1"
    assert config["litellm_settings"]["callbacks"] == []
    assert "general_settings" not in config
    assert start(leanest.LITELLM).environ["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"
    assert start(leanest.LITELLM).environ["LITELLM_TELEMETRY"] == "False"


def test_portkey_is_told_its_provider_with_each_call():
    assert start(leanest.PORTKEY).headers == (
        ("x-portkey-provider", "openai"),
        ("x-portkey-custom-host", f"http://127.0.0.1:{UPSTREAM_PORT}/v1"),
    )
    assert "--headless" in start(leanest.PORTKEY).command


def test_envoy_has_one_worker_that_listens_and_calls():
    resources = document(leanest.ENVOY)["static_resources"]
    command = start(leanest.ENVOY).command

    (listener,), (cluster,) = resources["listeners"], resources["clusters"]
    (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert listener["address"]["socket_address"]["port_value"] == PORT
    assert endpoint["endpoint"]["address"]["socket_address"]["port_value"] == UPSTREAM_PORT
    assert command[command.index("--concurrency") + 1] == "1"


def test_envoy_does_only_what_a_bare_proxy_does():
    config = document(leanest.ENVOY)
    (chain,) = config["static_resources"]["listeners"][0]["filter_chains"]
    manager = chain["filters"][0]["typed_config"]

    assert [each["name"] for each in manager["http_filters"]] == ["envoy.filters.http.router"]
    assert manager["generate_request_id"] is False
    assert "access_log" not in manager
    assert config["stats_config"] == {"stats_matcher": {"reject_all": True}}


@pytest.mark.parametrize(
    "line",
    [
        "worker_processes 1;",
        "access_log off;",
        f"listen 127.0.0.1:{PORT} backlog=4096;",
        f"server 127.0.0.1:{UPSTREAM_PORT};",
        'proxy_set_header Connection "";',
        "proxy_buffering off;",
    ],
)
def test_nginx_is_one_worker_that_keeps_its_connections(line):
    assert line in start(leanest.NGINX).files["nginx.conf"]


def test_every_peer_says_what_is_off():
    assert all("no " in each.form for each in leanest.PEERS)
