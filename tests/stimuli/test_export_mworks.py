"""The MWorks experiment: every name is one of MWorks' component reference, and its states show what the order says.

MWorks runs on macOS only. The names below are those of core/MWComponents.yaml and of the mouse input plug-in in the
repository mworks/mworks; the states are run here by a small interpreter of the few statements that are used. Its
display has 60 Hz and works as the documentation of MWorks says: an update ends a little after the frame in which it is
drawn, and the screen shows it one frame later, at the time that predicted_output_time gives.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest

from stimuli import Display, StimulusSet
from stimuli.event_logs import read_event_log
from stimuli.export.export_set import export_set
from stimuli.sequence import SequenceConfig

TRANSFORM = {"x_size", "y_size", "x_position", "y_position", "rotation", "fullscreen", "deferred", "alpha_multiplier"}
FIXATION = {"trigger_width", "trigger_watch_x", "trigger_watch_y", "trigger_flag"}
#: signature: (required parameters, others)
COMPONENTS = {
    "mouse_input": ({"mouse_position_x", "mouse_position_y"}, {"mouse_down", "hide_cursor", "autostart", "alt"}),
    "stimulus_display": (set(), {"background_color", "redraw_on_every_refresh"}),
    "circular_fixation_point": (FIXATION, TRANSFORM | {"color"}),
    "stimulus_group": (set(), set()),
    "image_file": ({"path"}, TRANSFORM | {"announce_load"}),
    "protocol": (set(), {"selection", "nsamples", "sampling_method", "interruptible"}),
    "task": (set(), {"interruptible"}),
    "state": (set(), {"interruptible"}),
    "clear_display": (set(), set()),
    "update_display": (set(), {"predicted_output_time"}),
    "start_timer": ({"timer", "duration"}, {"duration_units", "timebase"}),
    "wait": ({"duration"}, {"duration_units", "timebase"}),
    "while": ({"condition"}, set()),
    "if": ({"condition"}, set()),
    **{
        name: ({"stimulus"}, set())
        for name in (
            *("load_stimulus", "unload_stimulus", "queue_stimulus", "live_queue_stimulus"),
            *("dequeue_stimulus", "bring_stimulus_to_front"),
        )
    },
    "goto": ({"target"}, {"when"}),
    "yield": (set(), set()),
}
FUNCTIONS = {"timer_expired", "min"}
SCREEN = Display(refresh_hz=60.0)


@dataclass
class Node:
    kind: str
    tag: str | None = None
    values: dict[str, str] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)


def parse(text):
    """Read MWEL: declarations, assignments, parameter lists by line or semicolon, children in braces."""
    lines = [re.sub(r"\s*//.*", "", line).strip() for line in text.splitlines()]
    lines = [line for line in lines if line]
    nodes, at = _block(lines, 0)
    assert at == len(lines)
    return nodes


def _block(lines, at):
    found = []
    while at < len(lines) and lines[at] != "}":
        node, at = _statement(lines, at)
        found.append(node)
    return found, at


def _statement(lines, at):
    line = lines[at]
    if include := re.fullmatch(r"%include (\w+)", line):
        return Node("include", include[1]), at + 1
    if made := re.fullmatch(r"(var )?([A-Za-z]\w*) (\+?=) (.*)", line):
        return Node("var" if made[1] else "assign", made[2], {"op": made[3], "value": made[4]}), at + 1
    head = re.fullmatch(r"([a-z_]+)(?: ([A-Za-z]\w*|'[^']*'))? ?(\(.*|\{)?", line)
    assert head, f"not MWEL: {line!r}"
    node, rest = Node(head[1], head[2] and head[2].strip("'")), head[3] or ""
    assert rest, f"{line!r} has neither parameters nor children"
    if rest.startswith("("):
        inner = rest[1:]
        while inner.count("(") >= inner.count(")"):
            at += 1
            inner += ("; " if inner.strip() else "") + lines[at]
        inner, rest = inner[: inner.rindex(")")], inner[inner.rindex(")") + 1 :].strip()
        parts = [part.strip() for part in inner.split(";") if part.strip()]
        named = [re.fullmatch(r"(\w+) = (.*)", part) for part in parts]
        if len(parts) == 1 and not named[0]:
            (only,) = COMPONENTS[node.kind][0]
            node.values = {only: parts[0]}
        else:
            assert all(named), parts
            node.values = {match[1]: match[2] for match in named}
    if rest == "{":
        node.children, at = _block(lines, at + 1)
    return node, at + 1


def walk(nodes):
    for node in nodes:
        yield node
        yield from walk(node.children)


class Experiment:
    """Run the task: one step a millisecond, with a function of time for the eye; times in ms."""

    frame = 1000 / 60
    logged = ("stimulus_presented", "correct_fixation", "presentation", "output_time")

    def __init__(self, nodes, fixating):
        self.vars = {"true": True, "false": False, "min": min, "timer_expired": lambda timer: self.time >= timer}
        self.time, self.fixating, self.events, self.loaded, self.queued = 0.0, fixating, [], [], []
        self.most_loaded, self.screen = 0, []  # (time, what is shown from then on)
        for node in walk(nodes):
            if node.kind == "var":
                self.vars[node.tag] = self.value(node.values["value"])
        group = next(node for node in nodes if node.kind == "stimulus_group")
        self.vars["images"] = [child.tag for child in group.children]
        self.vars["fixation_point"] = "fixation_point"
        protocol = next(node for node in nodes if node.kind == "protocol")
        self.states = {state.tag: state for state in protocol.children[-1].children}
        self.do(protocol.children[:-1])

    def value(self, text):
        text = re.sub(r"([\d.]+)(us|ms|s)\b", lambda m: str(float(m[1]) * {"us": 1e-3, "ms": 1, "s": 1e3}[m[2]]), text)
        self.vars["eye_in_window"] = self.fixating(self.time)
        return eval(text, {"__builtins__": {}}, self.vars)

    def do(self, actions):
        for node in actions:
            if node.kind == "assign":
                value = self.value(node.values["value"])
                self.set(node.tag, self.vars[node.tag] + value if node.values["op"] == "+=" else value)
            elif node.kind == "if":
                if self.value(node.values["condition"]):
                    self.do(node.children)
            elif node.kind == "while":
                while self.value(node.values["condition"]):
                    self.do(node.children)
            elif node.kind == "start_timer":
                self.vars[node.values["timer"]] = self.time + self.value(node.values["duration"])
            elif node.kind == "wait":
                self.time += self.value(node.values["duration"])
            elif node.kind == "clear_display":
                self.queued.clear()
                self.update()
            elif "stimulus" in node.values:
                self.show(node.kind, self.value(node.values["stimulus"]))
            else:
                assert node.kind == "update_display", node.kind
                self.update()
                if "predicted_output_time" in node.values:
                    self.set(node.values["predicted_output_time"], round(1000 * self.screen[-1][0]))

    def set(self, name, new):
        if name in self.logged and new != self.vars[name]:
            self.events.append((self.time, name, new))
        self.vars[name] = new

    def update(self):
        drawn = (math.floor(self.time / self.frame + 1e-9) + 1) * self.frame
        self.screen.append((drawn + self.frame, list(self.queued)))
        self.time = drawn + 0.2

    def show(self, kind, image):
        if kind == "load_stimulus":
            self.loaded.append(image)
        elif kind == "unload_stimulus":
            self.loaded.remove(image)
        elif kind in ("queue_stimulus", "live_queue_stimulus"):
            assert image in self.loaded or image == "fixation_point", "an image is shown without having been loaded"
            self.queued.append(image)
        elif kind == "dequeue_stimulus" and image in self.queued:
            self.queued.remove(image)
        self.most_loaded = max(self.most_loaded, len(self.loaded))

    def run(self):
        state = "Between trials"
        while True:
            moves = [node for node in self.states[state].children if node.kind in ("goto", "yield")]
            self.do([node for node in self.states[state].children if node not in moves])
            state = None
            while state is None:
                for move in moves:
                    if move.kind == "yield":
                        return self
                    if self.value(move.values.get("when", "true")):
                        state = move.values["target"].strip("'")
                        break
                else:
                    self.time += 1.0
                    assert self.time < 1e6, "the experiment does not end"


def export(folder, shape=(8, 8), size_deg=4.0, display=SCREEN, position_deg=(2.0, -1.5), **config):
    codes = np.random.default_rng(0).integers(0, 256, (7, 1, *shape), dtype=np.uint8)
    ids = ["0012", *(f"s-{k}.x" for k in range(6))]
    stimuli = StimulusSet.from_arrays(codes, {"stimulus_id": ids}, size_deg=size_deg, display=display, name="set")
    sequence = SequenceConfig(**{"repeats": 2, "images_per_trial": 5, **config})
    return export_set(stimuli, folder, rigs=["mworks"], sequence=sequence, position_deg=position_deg)


def read(folder):
    """Parse an exported experiment with what it includes."""
    nodes = parse((folder / "mworks" / "rsvp.mwel").read_text())
    at = next(k for k, node in enumerate(nodes) if node.kind == "include")
    nodes[at : at + 1] = parse((folder / "mworks" / f"{nodes[at].tag}.mwel").read_text())
    return nodes


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = export(tmp_path_factory.mktemp("mworks") / "set")
    return folder, read(folder)


@pytest.mark.parametrize("gap_ms", [100.0, 0.0])
def test_every_component_and_parameter_is_one_of_the_reference(tmp_path, gap_ms):
    nodes = read(export(tmp_path / "set", gap_ms=gap_ms))
    names = {node.tag for node in walk(nodes) if node.kind == "var"}
    timers = {node.values["timer"] for node in walk(nodes) if node.kind == "start_timer"}
    known = names | timers | FUNCTIONS | {"fixation_point", "images", "eye_tracker", "true", "false", "not", "YES"}
    known |= {"NO", "explicit"}
    for node in walk(nodes):
        for text in node.values.values():
            words = re.findall(r"(?<![\w.'])[A-Za-z_]\w*", re.sub(r"'[^']*'", "", text))
            assert set(words) <= known, (node.kind, text)
        if node.kind in ("var", "assign"):
            assert node.tag in names
            continue
        required, others = COMPONENTS[node.kind]
        assert required <= set(node.values) <= required | others, node
    tags = [node.tag for node in walk(nodes) if node.tag and node.kind not in ("assign", "state")]
    assert len(tags) == len(set(tags))
    states = {node.tag for node in walk(nodes) if node.kind == "state"}
    assert {n.values["target"].strip("'") for n in walk(nodes) if n.kind == "goto"} <= states


def test_images_and_their_order(made):
    folder, nodes = made
    group = next(node for node in nodes if node.kind == "stimulus_group")
    for image in group.children:
        assert (folder / "mworks" / image.values["path"].strip("'")).is_file()
    assert [image.tag for image in group.children] == StimulusSet.load(folder).stimulus_ids
    values = {node.tag: node.values["value"] for node in nodes if node.kind == "var"}
    assert eval(values["image_ids"]) == StimulusSet.load(folder).stimulus_ids
    display = next(node for node in nodes if node.kind == "stimulus_display")
    levels = [float(part) for part in display.values["background_color"].split(",")]
    assert [round(255 * level, 3) for level in levels] == [128.0] * 3


def presented(experiment):
    """Return (time, id) of images on the screen, and of those during which or after which fixation broke."""
    shown, broken, output = [], [], None
    for _, name, value in experiment.events:
        if name == "output_time":
            output = value / 1000
        elif name == "stimulus_presented" and value:
            shown.append((output, value))
        elif name == "correct_fixation" and not value and shown:
            broken.append(shown[-1])
    return shown, broken


def on_screen(experiment):
    """Return (onset, duration in frames, id) of every image as the screen had it."""
    images = [(time, [name for name in what if name != "fixation_point"]) for time, what in experiment.screen]
    assert all(len(names) < 2 for _, names in images)
    states = [(time, names[0] if names else None) for time, names in images]
    runs = [(time, name) for name, run in itertools.groupby(states, lambda state: state[1]) for time, _ in [next(run)]]
    runs.append((states[-1][0], None))
    return [
        (time, round((later - time) / experiment.frame, 3), name)
        for (time, name), (later, _) in itertools.pairwise(runs)
        if name
    ]


@pytest.mark.parametrize("gap_ms", [100.0, 0.0])
def test_all_presentations_are_shown_in_order_for_their_frames(tmp_path, gap_ms):
    folder = export(tmp_path / "set", gap_ms=gap_ms)
    plan = pd.read_csv(folder / "presentation.csv", dtype={"stimulus_id": str})
    run = Experiment(read(folder), lambda time: True).run()
    shown, broken = presented(run)
    assert [name for _, name in shown] == plan["stimulus_id"].tolist()
    assert not broken
    assert not run.loaded
    assert run.most_loaded == 5
    screen = on_screen(run)
    assert [name for _, _, name in screen] == plan["stimulus_id"].tolist()
    assert {frames for _, frames, _ in screen} == {6.0}
    onset = np.array([time for time, _, _ in screen])
    assert [time for time, _ in shown] == pytest.approx(onset, abs=0.001)
    for _, rows in plan.groupby("trial"):
        assert onset[rows.index] - onset[rows.index[0]] == pytest.approx(
            rows["onset_ms_nominal"] - rows["onset_ms_nominal"].iloc[0], abs=0.01
        )


def test_a_broken_image_is_shown_again_and_the_order_stays(made):
    folder, nodes = made
    plan = pd.read_csv(folder / "presentation.csv", dtype={"stimulus_id": str})["stimulus_id"].tolist()
    away = [(0, 4), (900, 940), (1750, 1752), (3000, 3300), (5000, 9500)]
    run = Experiment(nodes, lambda time: not any(a <= time < b for a, b in away)).run()
    shown, broken = presented(run)
    assert 3 <= len(broken) <= 5
    assert [name for time, name in shown if (time, name) not in broken] == plan
    assert not run.loaded
    for time, name in broken:
        assert next(again for later, again in shown if later > time) == name


def events(run, until=math.inf, without=()):
    """Return the events as people export them: time in us, name, value."""
    lines = [f"{round(1000 * t)},{name},{value}" for t, name, value in run.events if t < until and name not in without]
    return "\n".join(["time,name,value", "0,presentation,0", *lines]) + "\n"


@pytest.mark.parametrize("gap_ms", [100.0, 0.0])
def test_its_events_are_read_back_with_the_times_of_the_screen(tmp_path, gap_ms):
    folder = export(tmp_path / "set", gap_ms=gap_ms)
    run = Experiment(read(folder), lambda time: not 900 <= time < 940).run()
    (tmp_path / "events.csv").write_text(events(run))
    log = read_event_log(tmp_path / "events.csv", StimulusSet.load(folder), "mworks").table
    plan = pd.read_csv(folder / "presentation.csv", dtype={"stimulus_id": str})
    assert log[log["shown"]]["stimulus_id"].tolist() == plan["stimulus_id"].tolist()
    assert (~log["shown"]).sum() == 1
    screen = on_screen(run)
    assert (1000 * log["onset_s"]).tolist() == pytest.approx([time for time, _, _ in screen], abs=0.001)
    assert (60 * log["duration_s"]).tolist() == pytest.approx([frames for _, frames, _ in screen], abs=0.001)
    (tmp_path / "events.csv").write_text(events(run, without=["output_time"]))
    early = read_event_log(tmp_path / "events.csv", StimulusSet.load(folder), "mworks").table
    assert ((log["onset_s"] - early["onset_s"]) > 0.016).all()  # why output_time is logged


@pytest.mark.parametrize("into_ms", [30.0, 130.0])
@pytest.mark.parametrize("gap_ms", [100.0, 0.0])
def test_a_run_that_stops_in_an_image_or_its_gap_did_not_show_it(tmp_path, gap_ms, into_ms):
    folder = export(tmp_path / "set", gap_ms=gap_ms)
    run = Experiment(read(folder), lambda time: True).run()
    times = [time for time, name, value in run.events if name == "stimulus_presented" and value]
    (tmp_path / "events.csv").write_text(events(run, until=times[3] + into_ms))
    log = read_event_log(tmp_path / "events.csv", StimulusSet.load(folder), "mworks")
    whole = 4 if gap_ms == 0 and into_ms > 100 else 3  # without a gap, the image after it is on by then
    assert log.shown.tolist() == [True] * whole + [False]


def test_sizes_and_positions_are_those_of_mworks_own_degrees(tmp_path):
    half_deg = np.degrees(np.arctan(53 / 2 / 57))  # to which MWorks maps half of the screen, in x as in y
    cases = [
        ((8, 16), 4.0, 4.0 * SCREEN.ppd, (2.0 * SCREEN.ppd, -1.5 * SCREEN.ppd)),
        ((16, 8), 4.0, 8.0 * SCREEN.ppd, (2.0 * SCREEN.ppd, -1.5 * SCREEN.ppd)),
        ((36, 36), 1.0, 36, (72, -54)),  # pixel by pixel
        ((36, 35), 35 / SCREEN.ppd, 36, (72.5, -54)),  # edges on edges of pixels
    ]
    for shape, size_deg, side, middle in cases:
        folder = export(tmp_path / f"{shape[0]}_{shape[1]}", shape=shape, size_deg=size_deg)
        values = {node.tag: node.values["value"] for node in read(folder) if node.kind == "var"}
        px = [float(values[f"image_{name}"]) / half_deg * 960 for name in ("size", "pos_x", "pos_y")]
        assert px == pytest.approx([side, *middle], abs=0.002)
    assert "mworks has degrees of its own, 38.50 px each" in (folder / "README_RIG.txt").read_text()
    assert "a screen 53 cm wide at 57 cm" in (folder / "mworks" / "rsvp.mwel").read_text()
    assert "multiplied by 0.936" in (folder / "mworks" / "rsvp.mwel").read_text()


def test_an_order_beyond_one_experiment_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("stimuli.export.mworks._LIST_LINE", 10)
    with pytest.raises(ValueError, match="16 presentations and one MWorks experiment takes 10"):
        export(tmp_path / "set")
