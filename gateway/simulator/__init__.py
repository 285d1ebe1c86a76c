"""A stand-in provider that speaks OpenAI's chat completions, for a first run, tests and benchmarks.

    http1        bytes become requests                     pure
    server       connections, and what ASGI cannot do      effects
    script       which answer or fault comes next
    answers      what is said, and how many tokens it is   pure
    documents    JSON that fits a schema                   pure
    rendering    an answer as JSON or as a stream          pure
    faults       what a fault does to an answer            pure
    bomb         a small gzip that unpacks to a large one  pure
    breaches     bytes that are not HTTP                   pure
    pace         how long it takes                         seeded
    exchange     one request, and what was really sent
    performance  one answer at its pace, up to its fault
    journal      what was received and sent: ground truth  effects
    app          the ASGI application that joins them

Everything it answers carries `"system_fingerprint": "simulated"`.
Never imports Django, and knows nothing of the relay.
"""

from gateway.simulator.app import Simulator
from gateway.simulator.journal import Ended, Journal, Received, read_journal
from gateway.simulator.script import Fault, Script, Step
from gateway.simulator.server import RunningSimulator, SimulatorServer, running_simulator

__all__ = [
    "Ended",
    "Fault",
    "Journal",
    "Received",
    "RunningSimulator",
    "Script",
    "Simulator",
    "SimulatorServer",
    "Step",
    "read_journal",
    "running_simulator",
]
