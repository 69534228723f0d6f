"""Two libnice agents, both forced through the relay, each sending to the other.

Arguments: ip port transport (udp or tcp) username password. Exits with 0 once all data has arrived at both ends.
TLS is not tested: with this compatibility mode, the relay type "tls" of libnice is plain TCP.
"""
import ctypes
import sys

import gi
gi.require_version("Nice", "0.1")
from gi.repository import GLib, Nice

ip, port, transport, username, password = sys.argv[1:6]
relay_type = {"udp": Nice.RelayType.UDP, "tcp": Nice.RelayType.TCP}[transport]
ROUNDS = 50
context = GLib.MainContext.default()
loop = GLib.MainLoop.new(context, False)
state = {"gathered": 0, "got": [0, 0], "ready": set(), "failed": None}


def end(reason):
    state["failed"] = reason
    loop.quit()


# The Python binding has no attach_recv, and its send stops at a zero byte, so both are called in the C library directly.
library = ctypes.CDLL("libnice.so.10")
RECEIVE = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p
)
callbacks = []


def attach(index):
    def receive(_agent, _stream, _component, length, data, _user):
        on_data(index, ctypes.string_at(data, length))

    callbacks.append(RECEIVE(receive))
    agent, stream = agents[index]
    if not library.nice_agent_attach_recv(ctypes.c_void_p(hash(agent)), stream, 1, None, callbacks[-1], None):
        raise SystemExit("attach_recv refused")


def send(index, data):
    agent, stream = agents[index]
    library.nice_agent_send(ctypes.c_void_p(hash(agent)), stream, 1, len(data), data)


def payload(sender, number):
    return ("from %d number %d " % (sender, number)).encode() + bytes(range(100))


def make(index):
    agent = Nice.Agent.new(context, Nice.Compatibility.RFC5245)
    agent.set_property("controlling-mode", index == 0)
    agent.set_property("force-relay", True)
    agent.set_property("upnp", False)
    agent.set_property("ice-tcp", False)
    stream = agent.add_stream(1)
    address = Nice.Address.new()
    address.init()
    address.set_from_string("127.0.0.1")
    agent.add_local_address(address)
    if not agent.set_relay_info(stream, 1, ip, int(port), username, password, relay_type):
        raise SystemExit("set_relay_info refused")
    return agent, stream


agents = [make(0), make(1)]


def on_gathered(agent, stream, index):
    state["gathered"] += 1
    if state["gathered"] < 2:
        return
    for mine, (agent, stream) in enumerate(agents):
        other, other_stream = agents[1 - mine]
        ok, ufrag, pwd = agent.get_local_credentials(stream)
        candidates = agent.get_local_candidates(stream, 1)
        for c in candidates:
            print("candidate", mine, c.type.value_nick)
        if not candidates or any(c.type != Nice.CandidateType.RELAYED for c in candidates):
            end("agent %d has a candidate that is not relayed, or none at all" % mine)
            return
        other.set_remote_credentials(other_stream, ufrag, pwd)
        other.set_remote_candidates(other_stream, 1, candidates)


def on_state(agent, stream, component, new, index):
    print("state", index, Nice.component_state_to_string(new))
    if new == Nice.ComponentState.FAILED:
        end("agent %d failed" % index)
    if new == Nice.ComponentState.READY and index not in state["ready"]:
        state["ready"].add(index)
        if len(state["ready"]) == 2:
            send(0, payload(0, 0))


def on_data(index, data):
    agent, stream = agents[index]
    number = state["got"][index]
    if data != payload(1 - index, number):
        end("agent %d got %r instead of number %d" % (index, data, number))
        return
    state["got"][index] += 1
    if state["got"][index] == ROUNDS and index == 0:
        loop.quit()
        return
    answer = payload(index, number if index == 1 else number + 1)
    send(index, answer)


for index, (agent, stream) in enumerate(agents):
    agent.connect("candidate-gathering-done", on_gathered, index)
    agent.connect("component-state-changed", on_state, index)
    attach(index)
for agent, stream in agents:
    if not agent.gather_candidates(stream):
        raise SystemExit("gathering did not start")
GLib.timeout_add_seconds(25, lambda: end("not finished after 25 s"))
loop.run()
print("received", state["got"], "of", ROUNDS)
if state["failed"] or state["got"] != [ROUNDS, ROUNDS]:
    raise SystemExit(state["failed"] or "too little data")
