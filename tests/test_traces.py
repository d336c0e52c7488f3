"""The trace file: what viewers ask of the format, and what is told of a profile."""

import gc
import json

import numpy as np
import pytest
from helpers import leaf

import gpugrad as gg

KINDS = {"M", "B", "E", "C", "s", "t", "f"}


@pytest.fixture(autouse=True)
def collected():
    """What other tests have left is not freed inside of a block, where it would count."""
    gc.collect()


@pytest.fixture
def trace(tmp_path):
    """A function that gives the events of a profile, read from a file."""

    def events(p):
        path = tmp_path / "trace.json"
        p.trace(path)
        found = json.loads(path.read_text())
        assert found["displayTimeUnit"] == "ms"
        return found["traceEvents"]

    return events


def lanes(events):
    """(process, thread) -> its slices and arrows, in the order of the file."""
    found = {}
    for event in events:
        if event["ph"] in "BEstf":
            found.setdefault((event["pid"], event["tid"]), []).append(event)
    return found


def paths(lane):
    """The path of names to each slice of a lane, in order."""
    found, open_ = [], []
    for event in lane:
        if event["ph"] == "B":
            open_.append(event["name"])
            found.append(tuple(open_))
        elif event["ph"] == "E":
            assert open_.pop() == event["name"]
    assert open_ == []
    return found


def network():
    x = leaf(np.ones((8, 4)))
    net = gg.nn.Sequential(gg.nn.Linear(4, 3, dtype="float64"), gg.nn.Sigmoid())
    optimizer = gg.optim.SGD(net.parameters(), lr=0.1)
    with gg.name_scope("net"):
        y = net(x)
    gg.sum(gg.checkpoint(gg.exp)(y)).backward(create_graph=True)
    optimizer.step()


def test_events_have_what_the_format_asks_for(device, trace):
    with gg.profile(memory=True) as p:
        network()
    events = trace(p)
    assert {event["ph"] for event in events} >= {"M", "B", "E", "C", "s", "f"}
    for event in events:
        assert event["ph"] in KINDS
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert isinstance(event["name"], str)
        assert event["ts"] >= 0
        if event["ph"] == "C":
            assert all(isinstance(x, int) for x in event["args"].values())
        if event["ph"] in "stf":
            assert isinstance(event["id"], int)
            assert event["bp"] == "e"
    named = {(x["name"], x["pid"], x["tid"]) for x in events if x["ph"] == "M"}
    for pid, tid in lanes(events):
        assert ("process_name", pid, 0) in named
        assert ("thread_name", pid, tid) in named


def test_slices_are_matched_and_in_order(device, trace):
    with gg.profile() as p:
        for _ in range(3):
            network()
    found = lanes(trace(p))
    assert len(found) == (1 if device.kind == "cpu" else 2)
    for lane in found.values():
        paths(lane)
        times = [event["ts"] for event in lane]
        assert times == sorted(times)
    for pid, _ in found:
        names = [x["name"] for x in found[pid, 1] if x["ph"] == "B" and "line" in x.get("args", ())]
        assert len(names) == sum(bool(x.op) for x in p.slices if x.where is not None)


def test_operations_are_inside_of_scopes_and_sweeps(device, trace):
    with gg.profile() as p:
        network()
    found = lanes(trace(p))
    host = paths(found[1, 1])
    first = host.index(("net",))
    assert host[first : first + 5] == [
        ("net",),
        ("net", "0 Linear"),
        ("net", "0 Linear", "linear"),
        ("net", "1 Sigmoid"),
        ("net", "1 Sigmoid", "sigmoid"),
    ]
    assert ("sum",) in host
    assert ("backward sweep", "sum backward") in host
    assert ("backward sweep", "checkpoint(exp) backward", "exp in backward") in host
    assert ("backward sweep", "net", "1 Sigmoid", "sigmoid backward") in host
    assert ("SGD.step",) in host
    if device.kind == "cuda":
        queue = paths(found[2, 1])
        assert ("net", "0 Linear", "linear") in queue
        assert ("net", "1 Sigmoid", "sigmoid backward") in queue


def test_arrows_lead_from_calls_to_their_backward_steps(device, trace):
    x = leaf([1.0, 2.0])
    with gg.profile() as p:
        y = gg.sum(gg.exp(x))
        y.backward(retain_graph=True)
        y.backward()
        gg.exp(x)
    lane = lanes(trace(p))[1, 1]
    found, current = {}, None
    for event in lane:
        if event["ph"] == "B":
            current = event["name"]
        elif event["ph"] in "stf":
            found.setdefault(event["id"], []).append((event["ph"], current))
    arrows = [
        [("s", op), ("t", f"{op} backward"), ("f", f"{op} backward")] for op in ("exp", "sum")
    ]
    assert sorted(found.values()) == arrows


def test_a_slice_tells_shapes_line_and_bytes(device, trace):
    with gg.profile(memory=True) as p:
        gg.matmul(leaf(np.ones((2, 3))), leaf(np.ones(3)))
    (event,) = [x for x in trace(p) if x["ph"] == "B" and x["pid"] == 1]
    assert event["cat"] == "forward"
    about = event["args"]
    assert about["read"] == ["float64 (2, 3)", "float64 (3,)"]
    assert about["written"] == ["float64 (2,)"]
    assert about["bytes"] == 8 * (6 + 3 + 2)
    assert about["line"].startswith(f"{__file__}:")
    assert about["peak bytes"] >= 16


def test_memory_is_a_track(device, trace):
    n = 1 << 20
    x = leaf(np.ones(n // 8))
    with gg.profile(memory=True) as p:
        y = gg.exp(x)
        z = gg.exp(y)
        del y, z
        gg.exp(x)
    counts = [x for x in trace(p) if x["ph"] == "C"]
    assert {x["name"] for x in counts} == {"memory in use"}
    used = [round(x["args"]["bytes"] / n) for x in counts]
    assert used == [1, 2, 1]
    assert [x["ts"] for x in counts] == sorted(x["ts"] for x in counts)


def test_an_empty_profile_is_a_trace_too(trace):
    with gg.profile() as p:
        pass
    assert [x["name"] for x in trace(p)] == ["process_name"]


def test_clocks_that_disagree_make_no_disorder(trace):
    """Devices count in steps: what is inside may seem to end later than what is around it."""
    with gg.profile() as p:
        gg.exp(leaf([1.0], device="cpu"))
        gg.sum(gg.checkpoint(gg.sin)(leaf([1.0], device="cpu"))).backward()
    for i, item in enumerate(x for x in p.slices if x.op):
        item.work, item.stream = (item.start - 500 * i, item.start - 300 * i + 70), 7
    found = lanes(trace(p))
    lane = found[2, 1]
    paths(lane)
    times = [event["ts"] for event in lane]
    assert times == sorted(times)
    assert times[0] >= 0
