"""The section that tells of the peers."""

import json

from benchmarks import leanest
from benchmarks.figures import Sample
from benchmarks.peering import STREAMED, WHOLE, Against, Latency, Peers, Standing, document, goals, page


def sample(tree_us, rate=1000.0, share=1.0):
    return Sample(100, tree_us, tree_us, rate, 1.0, share)


def against(ours, its, load=WHOLE):
    return Against(load, tuple(map(sample, ours)), tuple(map(sample, its)))


def standing(peer, *found, why="", latency=None):
    return Standing(peer.name, peer.form, "1.2.3", found, latency, why)


LITELLM = standing(
    leanest.LITELLM,
    against((200, 250, 100), (20_000, 20_000, 10_000)),
    against((500, 500, 500), (9000, 9000, 9000), STREAMED),
    latency=Latency(50.0, (3.0, 4.0, 8.0), (9.0, 9.5, 30.0)),
)
ENVOY = standing(leanest.ENVOY, against((200, 300), (100, 100)), why="It failed at streamed (status 500).")
NGINX = standing(leanest.NGINX, against((200,), (20,)))
PORTKEY = Standing(leanest.PORTKEY.name, leanest.PORTKEY.form, why="Portkey is not installed.")
PEERS = Peers((LITELLM, PORTKEY, ENVOY, NGINX), 100.0)


def test_a_ratio_is_of_a_pair():
    found = against((200, 800), (100, 200))

    assert found.cpu_ratios == (2, 4)
    assert found.rate_ratios == (0.5, 0.25)


def test_calls_on_one_core_do_not_depend_on_who_else_had_it():
    ours, its = sample(200, rate=2500, share=0.5), sample(20_000, rate=50, share=1.0)

    assert Against(WHOLE, (ours,), (its,)).rate_ratios == (100,)


def test_the_page_says_of_each_goal_whether_it_was_reached():
    lines = page(PEERS).splitlines()

    says = [each for each in lines if each.startswith(("| calls a second on", "| CPU per call, gateway"))]
    assert says == [
        "| calls a second on one core, gateway over LiteLLM | ≥ 90 | 100 | 80 to 100 | reached |",
        "| CPU per call, gateway over Envoy | ≤ 1.9 | 2.50 | 2 to 3 | **not reached** |",
        "| CPU per call, gateway over nginx, which is the limit |  | 10 | one round |  |",
    ]


def test_the_page_has_the_peers_of_a_load_side_by_side():
    rows = [each.split(" | ") for each in page(PEERS).splitlines() if " 64 connections | " in each]

    assert [(row[0][2:], row[1]) for row in rows] == [
        ("whole, 64 connections", "LiteLLM proxy"),
        ("whole, 64 connections", "Envoy"),
        ("whole, 64 connections", "nginx"),
        ("streamed, 64 connections", "LiteLLM proxy"),
    ]
    assert rows[0][2:6] == [
        "20,000 (10,000 to 20,000)",
        "200 (100 to 250)",
        "0.01 (0.01 to 0.01)",
        "50",
    ]


def test_the_share_of_the_core_stands_beside_what_was_had():
    limited = Against(WHOLE, (sample(200, 4900, 0.98),), (sample(20, 25_000, 0.5),))

    text = page(Peers((standing(leanest.NGINX, limited),), 1.0))

    assert "| 25,000 with 50% | 4,900 with 98% |" in text


def test_the_page_says_how_each_peer_is_run_and_why_one_is_missing():
    text = page(PEERS)

    assert f"| LiteLLM proxy | 1.2.3 | {leanest.LITELLM.form} |" in text
    assert "Portkey gateway: Portkey is not installed." in text
    assert "Envoy: It failed at streamed (status 500)." in text
    assert "| LiteLLM proxy | 50 calls/s | 4 (3 to 8) ms | 9.50 (9 to 30) ms |" in text


def test_a_run_without_a_single_peer_says_why():
    text = page(Peers((PORTKEY,), 0.1))

    assert "Portkey gateway: Portkey is not installed." in text
    assert "| --- |" not in text
    assert goals(Peers((PORTKEY,), 0.1)) == []


def test_the_document_has_every_round():
    content = json.loads(json.dumps(document(PEERS)))

    litellm, portkey, *_ = content["peers"]
    assert [each["reached"] for each in content["goals"]] == [True, False, None]
    assert [each["tree_us"] for each in litellm["loads"][0]["peer"]] == [20_000, 20_000, 10_000]
    assert litellm["loads"][0]["rate_ratios"] == [100, 80, 100]
    assert litellm["latency"]["p50_ms"] == [3.0, 4.0, 8.0]
    assert (portkey["missing"], portkey["loads"]) == ("Portkey is not installed.", [])
