"""How each peer is configured: its leanest form, tuned as its own documentation advises. Pure."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.wire import MODEL_NAME

NO_LIMIT: Final = 1_000_000_000
KEPT: Final = 1024
"""Connections to the upstream that are kept open: more than a run needs."""


@dataclass(frozen=True, slots=True)
class Start:
    """What starts a peer: files by their name in a fresh folder, then a command with an environment."""

    command: tuple[str, ...]
    files: dict[str, str] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)
    headers: tuple[tuple[str, str], ...] = ()
    """What its callers send on top of what all callers send."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A gateway or proxy to be measured beside ours."""

    name: str
    form: str
    """How it is run and what is off, in one sentence; it stands beside the figures."""
    start: Callable[[tuple[str, ...], Path, int, int], Start]
    """From the program, the folder of its files, its port and the upstream's."""


def litellm(program: tuple[str, ...], folder: Path, port: int, upstream_port: int) -> Start:
    """The proxy on Uvicorn with uvloop; aiohttp carries its calls.

    `metadata` of a call reaches a provider only with the preview features, and ours reads its wishes there.
    """
    config = {
        "model_list": [
            {
                "model_name": MODEL_NAME,
                "litellm_params": {
                    "model": f"openai/{MODEL_NAME}",
                    "api_key": "none",
                    "api_base": f"http://127.0.0.1:{upstream_port}/v1",
                },
            }
        ],
        "litellm_settings": {
            "callbacks": [],
            "num_retries": 0,
            "request_timeout": 600,
            "set_verbose": False,
            "enable_preview_features": True,
        },
    }
    environ = {
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_TELEMETRY": "False",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        "DISABLE_ADMIN_UI": "True",
        "NO_DOCS": "True",
        "NO_REDOC": "True",
    }
    where = ("--host", "127.0.0.1", "--port", str(port), "--num_workers", "1")
    return Start(
        (*program, "--config", str(folder / "litellm.yaml"), *where),
        {"litellm.yaml": _json(config)},
        environ,
    )


def portkey(program: tuple[str, ...], folder: Path, port: int, upstream_port: int) -> Start:
    """The gateway on Node.js; each call names its provider and the provider's address."""
    return Start(
        (*program, "--headless", f"--port={port}"),
        environ={"NODE_ENV": "production"},
        headers=(
            ("x-portkey-provider", "openai"),
            ("x-portkey-custom-host", f"http://127.0.0.1:{upstream_port}/v1"),
        ),
    )


def envoy(program: tuple[str, ...], folder: Path, port: int, upstream_port: int) -> Start:
    """A bare HTTP/1.1 proxy as Envoy's page on benchmarking advises."""
    options = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "error")
    return Start(
        (*program, "-c", str(folder / "envoy.yaml"), *options),
        {"envoy.yaml": _json(_envoy(port, upstream_port))},
    )


def _envoy(port: int, upstream_port: int) -> dict[str, Any]:
    """No statistics, no ids of requests, no circuit breaker that could bind; connections are kept."""
    manager = {
        "@type": _type("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "codec_type": "HTTP1",
        "stat_prefix": "in",
        "generate_request_id": False,
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": _type("filters.http.router.v3.Router"), "dynamic_stats": False},
            }
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": "0s"}},
                    ],
                }
            ]
        },
    }
    return {
        "stats_config": {"stats_matcher": {"reject_all": True}},
        "static_resources": {
            "listeners": [
                {
                    "name": "in",
                    "address": _address(port),
                    "filter_chains": [
                        {
                            "filters": [
                                {
                                    "name": "envoy.filters.network.http_connection_manager",
                                    "typed_config": manager,
                                }
                            ]
                        }
                    ],
                }
            ],
            "clusters": [
                {
                    "name": "upstream",
                    "type": "STATIC",
                    "connect_timeout": "5s",
                    "circuit_breakers": {
                        "thresholds": [
                            {
                                "max_connections": NO_LIMIT,
                                "max_pending_requests": NO_LIMIT,
                                "max_requests": NO_LIMIT,
                                "max_retries": NO_LIMIT,
                            }
                        ]
                    },
                    "load_assignment": {
                        "cluster_name": "upstream",
                        "endpoints": [
                            {"lb_endpoints": [{"endpoint": {"address": _address(upstream_port)}}]},
                        ],
                    },
                }
            ],
        },
    }


def _type(name: str) -> str:
    return f"type.googleapis.com/envoy.extensions.{name}"


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def nginx(program: tuple[str, ...], folder: Path, port: int, upstream_port: int) -> Start:
    """A reverse proxy: what a call costs where nobody looks into it.

    Streams are passed on as they come, so answers are not buffered; connections are kept without an end.
    """
    temporary = "\n".join(
        f"  {kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = f"""\
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 16384; }}
http {{
{temporary}
  access_log off;
  tcp_nodelay on;
  keepalive_requests {NO_LIMIT};
  client_body_buffer_size 64k;
  upstream provider {{
    server 127.0.0.1:{upstream_port};
    keepalive {KEPT};
    keepalive_requests {NO_LIMIT};
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://provider;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""
    return Start(
        (*program, "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")),
        {"nginx.conf": config},
    )


def _json(document: dict[str, Any]) -> str:
    """JSON is YAML too."""
    return json.dumps(document, indent=1) + "\n"


LITELLM: Final = Peer(
    "LiteLLM proxy",
    "one worker on uvloop, production mode; no database, no keys, no limits, no log, no callbacks",
    litellm,
)
PORTKEY: Final = Peer(
    "Portkey gateway",
    "one Node.js process, headless, production mode; no keys, no limits, no cache, no guardrails, no log",
    portkey,
)
ENVOY: Final = Peer(
    "Envoy",
    "one worker, a bare HTTP/1.1 proxy; no statistics, no request ids, no access log; knows nothing of LLMs",
    envoy,
)
NGINX: Final = Peer(
    "nginx",
    "one worker, a bare HTTP/1.1 proxy; no buffering, no access log; knows nothing of LLMs",
    nginx,
)
PEERS: Final = (LITELLM, PORTKEY, ENVOY, NGINX)
