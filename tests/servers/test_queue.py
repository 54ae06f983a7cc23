"""First come, first served, never two on one GPU: whatever comes, waits, dies, or is moved."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.servers import queue
from engine.servers.turns import CPU, Lease, Request, View, Waiting, explained, forecast, may_take
from tests.played import until
from tests.servers.box import Box, overlaps

ABCD = ("A", "B", "C", "D")


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.clear()


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "queue")


# Whose turn it is


@pytest.mark.parametrize(
    ("request_", "choices"),
    [
        (Request(2), ABCD),
        (Request(0), (CPU,)),
        (Request(1, first=2), ("C",)),
        (Request(2, first=3), ("D",)),
        (Request(2, visible="3,1"), ("D", "B")),
        (Request(1, first=1, visible="3,1"), ("B",)),
        (Request(1, visible=""), ()),
        (Request(1, visible="0,7,1"), ("A",)),
        (Request(1, visible="C"), ("C",)),
        (Request(1, visible="-1,0"), ()),
        (Request(1, visible="MIG-1/2,A"), ("MIG-1/2", "A")),
        (Request(1, visible="1, 1"), ("B",)),
    ],
)
def test_what_a_training_may_take(request_: Request, choices: tuple[str, ...]) -> None:
    assert request_.choices(ABCD) == choices


def waiting(*requests: Request, **flags: int) -> tuple[Waiting, ...]:
    """One for each request; a flag such as held=1 is set for the one of that number."""
    return tuple(
        Waiting(str(i), f"r{i}", f"/r{i}", 1, 0.0, r, choices=r.choices(ABCD), **{k: v == i for k, v in flags.items()})
        for i, r in enumerate(requests)
    )


def test_one_for_many_is_not_starved_by_those_for_one() -> None:
    view = View(ABCD, {"A": Lease("A")}, waiting(Request(4), Request(1)))
    assert len(may_take(view, view.waiting[0])) == 3 and may_take(view, view.waiting[1]) == []


def test_one_bound_to_a_gpu_holds_up_only_those_that_want_it() -> None:
    view = View(ABCD, {"A": Lease("A")}, waiting(Request(1, first=0), Request(1, first=1), Request(2)))
    assert [may_take(view, w) for w in view.waiting] == [[], ["B"], ["C", "D"]]


def test_the_held_let_others_go_first() -> None:
    view = View(ABCD, {}, waiting(Request(4), Request(1), held=0))
    assert may_take(view, view.waiting[1]) == list(ABCD)


def test_the_cpu_and_the_gpus_are_two_queues() -> None:
    view = View(ABCD, {CPU: Lease(CPU)}, waiting(Request(0), Request(1)))
    assert [len(may_take(view, w)) for w in view.waiting] == [0, 4]


def test_where_others_compute_only_the_regardless_go() -> None:
    view = View(ABCD, {}, waiting(Request(4), Request(1), regardless=0), {"B": "ann (7, 3.0 GiB)"})
    assert may_take(view, view.waiting[0]) == list(ABCD)
    assert may_take(View(ABCD, {}, view.waiting[1:], view.others), view.waiting[1]) == ["A", "C", "D"]


def test_every_wait_has_its_reason() -> None:
    requests = (Request(2), Request(1, first=1), Request(2, first=2), Request(0), Request(1), Request(1))
    leases = {name: Lease(name) for name in ("A", "C", "D")}
    view = explained(View(ABCD, leases, waiting(*requests, held=4, cancelled=5), {"B": "ann (7, 3.0 GiB)"}))
    assert [w.reason for w in view.waiting] == [
        "waits for 2 GPUs; none free; others compute there: ann (7, 3.0 GiB)",
        "waits for GPU 1; none free; others compute there: ann (7, 3.0 GiB); behind 1 training",
        "waits for GPUs 2 to 3; none free; behind 1 training",
        "waits for its turn on the CPU",
        "is held: others go first",
        "is being taken out of the queue",
    ]
    free = explained(View(ABCD, {"A": Lease("A")}, waiting(Request(4), Request(1), Request(1))))
    assert free.waiting[0].reason == "waits for 4 GPUs; 3 free"
    assert free.waiting[2].reason == "waits for 1 GPU; 3 free; behind 2 trainings"


def test_when_each_may_start() -> None:
    leases = {"A": Lease("A", run_dir="/a"), "B": Lease("B", run_dir="/b")}
    entries = waiting(Request(2), Request(1), Request(1), Request(1))
    left: dict[str, float | None] = {"/a": 100.0, "/b": 50.0}
    takes: dict[str, float | None] = {"/r0": 30.0, "/r1": 10.0, "/r2": 10.0}
    view = View(("A", "B"), leases, tuple(w for w in entries))
    two = View(view.uuids, leases, tuple(_only(w, ("A", "B")) for w in entries))
    assert forecast(two, left, takes) == {"0": 100.0, "1": 130.0, "2": 130.0, "3": 140.0}
    assert forecast(two, {**left, "/a": None}, takes) == dict.fromkeys("0123")
    held = View(view.uuids, leases, (_only(waiting(Request(2), held=0)[0], ("A", "B")), two.waiting[1]))
    assert forecast(held, left, takes) == {"0": None, "1": 50.0}
    assert forecast(View(("A", "B"), {}, two.waiting[:1], {"A": "ann"}), {}, takes) == {"0": None}
    assert forecast(View((), {}, (_only(two.waiting[0], ("A",)),)), {}, takes) == {"0": None}


def _only(w: Waiting, choices: tuple[str, ...]) -> Waiting:
    return Waiting(w.id, w.title, w.run_dir, 1, 0.0, w.request, held=w.held, choices=choices)


# Tickets and leases


def join(place: str, name: str, count: int = 1) -> queue.Ticket:
    return queue.join(place, name, f"/{name}", Request(count))


def titles(place: str) -> list[str]:
    return [w.title for w in queue.look(place, ("A", "B")).waiting]


def test_a_ticket_lives_as_long_as_its_holder(place: str) -> None:
    first, second = join(place, "first"), join(place, "second")
    assert titles(place) == ["first", "second"]
    os.close(first.fd)  # as any death does
    assert titles(place) == ["second"]
    assert queue.take(place, second, ("A", "B"), {}) is not None
    assert os.listdir(f"{place}/tickets") == []  # the dead one is swept


def test_a_lease_lives_as_long_as_anybody_who_inherited_it(place: str) -> None:
    grant = queue.take(place, join(place, "one", 2), ("A", "B"), {})
    assert grant and grant.names == ("A", "B")
    child = os.fork()
    if not child:
        signal.pause()
    for fd in grant.fds:
        os.close(fd)
    view = queue.look(place, ("A", "B"))
    assert {lease.title for lease in view.leases.values()} == {"one"} and set(view.leases) == {"A", "B"}
    waits = join(place, "two")
    assert queue.take(place, waits, ("A", "B"), {}) is None
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert queue.take(place, waits, ("A", "B"), {}) is not None


def test_order_is_kept_when_the_clock_goes_back(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tickets = [join(place, "now")]
    monkeypatch.setattr("time.time_ns", lambda: 5)
    tickets += [join(place, "then"), join(place, "after")]
    assert titles(place) == ["now", "then", "after"]
    for ticket in tickets:
        queue.leave(ticket)


@pytest.mark.parametrize(
    ("name", "to", "order"),
    [("c", "first", "cabd"), ("c", "up", "acbd"), ("a", "up", "abcd"), ("a", "down", "bacd"), ("d", "down", "abcd"),
     ("a", "last", "bcda")],
)  # fmt: skip
def test_people_move_them(place: str, name: str, to: str, order: str) -> None:
    tickets = {n: join(place, n) for n in "abcd"}
    queue.move(place, tickets[name].id, to)
    assert titles(place) == list(order)
    tickets["e"] = join(place, "e")
    assert titles(place) == [*order, "e"]
    queue.move(place, tickets["e"].id, "up")
    assert titles(place) == [*order[:3], "e", order[3]]
    for ticket in tickets.values():
        queue.leave(ticket)
    with pytest.raises(KeyError):
        queue.move(place, tickets["e"].id, "up")


def test_wishes_end_with_those_they_were_for(place: str) -> None:
    held, other = join(place, "held"), join(place, "other")
    queue.wish(place, held.id, "held")
    assert queue.look(place).waiting[0].held
    assert queue.take(place, held, ("A",), {}) is None
    queue.leave(held)
    queue.wish(place, other.id, "regardless")
    assert queue.read_wishes(place) == {"order": [], "held": [], "regardless": [other.id], "cancelled": []}
    queue.wish(place, other.id, "cancelled")
    with pytest.raises(queue.Left):
        queue.take(place, other, ("A",), {})
    with pytest.raises(KeyError):
        queue.wish(place, held.id, "held")


def test_whatever_else_lies_there_is_passed_over(place: str) -> None:
    queue.prepare(place)
    for name in ("wishes.json", "tickets/notes", "tickets/" + "1" * 20, "leases/A"):
        (Path(place) / name).write_text('{"order": 3, "held": [1, {}], "request": [], "pid": "x"')
    with (Path(place) / "tickets" / ("1" * 20)).open() as stranger:
        fcntl.flock(stranger, fcntl.LOCK_EX)
        assert [(w.title, w.request) for w in queue.look(place).waiting] == [("", Request(0))]
        ticket = join(place, "mine")
        assert ticket.id > "1" * 20
    grant = queue.take(place, ticket, ("A",), {})
    assert grant and queue.look(place).leases["A"].title == "mine"
    os.close(grant.fds[0])


def test_a_place_of_somebody_elses_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("open", "link"):
        with pytest.raises(PermissionError):
            join(str(tmp_path / name), "mine")


def test_a_holder_that_does_not_go_on_is_not_waited_for(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ticket = join(place, "one")
    monkeypatch.setattr(queue, "PATIENCE", 0.05)
    with (Path(place) / "lock").open("w") as stuck:
        fcntl.flock(stuck, fcntl.LOCK_EX)
        with pytest.raises(queue.Stuck):
            queue.take(place, ticket, ("A",), {})
        assert titles(place) == ["one"]  # looking needs nobody
    queue.leave(ticket)


# Whole machines


def test_fourteen_on_two_gpus(box: Box) -> None:
    """Mixed sizes, one killed while it waits: never two on a GPU, and nobody overtakes."""
    names = [f"r{i:02}" for i in range(14)]
    box.submit("first", gpus=2)
    until(lambda: box.started() == ["first"])
    for i, name in enumerate(names):
        box.submit(name, 0.05, gpus=2 if i % 4 == 2 else 1)
    assert [w.title for w in box.view().waiting] == names
    box.kill(box.supervisor_of("r05"))
    assert "r05" not in [w.title for w in box.view().waiting]
    box.go("first")
    expected = [n for n in names if n != "r05"]
    until(lambda: sum(line.startswith("end") for line in box.story) == 14, 60)
    assert box.started() == ["first", *expected]
    assert overlaps(box.story) == []
    until(lambda: not any(box.held(n) for n in names))
    assert box.view().leases == {} and (box.run_dir("r05") / "waiting.json").exists()


def test_the_next_waits_for_a_worker_whose_supervisor_was_killed(box: Box) -> None:
    box.submit("first", gpus=2)
    until(lambda: box.started() == ["first"])
    box.submit("second", 0, gpus=1)
    box.kill(box.supervisor_of("first"))
    until(lambda: "none free" in box.reason("second"))
    assert box.held("first") and box.started() == ["first"]
    box.go("first")
    until(lambda: box.started() == ["first", "second"])
    assert overlaps(box.story) == []


def test_a_gpu_on_which_others_compute_counts_as_taken(box: Box) -> None:
    box.apps.write_text(f"GPU-00000000, {os.getpid()}, 79600\n")
    box.submit("one", gpus=1)
    until(lambda: box.story == ["start one GPU-00000001"])
    box.submit("two", 0, gpus=1)
    until(lambda: "others compute there" in box.reason("two") and str(os.getpid()) in box.reason("two"))
    box.apps.unlink()
    until(lambda: box.started() == ["one", "two"])
    assert "start two GPU-00000000" in box.story


def test_memory_taken_by_somebody_unseen_counts_too(box: Box) -> None:
    box.used.write_text("0 100000\n1 700\n")
    box.submit("one", 0, gpus=2)
    until(lambda: "someone unseen (97.7 GiB)" in box.reason("one"))
    mine = box.waiting("one")
    assert mine
    queue.wish(box.place, mine.id, "regardless")
    until(lambda: box.started() == ["one"])


def test_held_moved_and_taken_out(box: Box) -> None:
    box.submit("first", gpus=2)
    until(lambda: box.started() == ["first"])
    for name in "abcd":
        box.submit(name, 0, gpus=2)
    ids = {w.title: w.id for w in box.view().waiting}
    queue.move(box.place, ids["d"], "first")
    queue.wish(box.place, ids["a"], "held")
    queue.wish(box.place, ids["b"], "cancelled")
    until(lambda: not box.held("b"))
    assert not (box.run_dir("b") / "waiting.json").exists()
    box.go("first")
    until(lambda: box.started() == ["first", "d", "c"])
    until(lambda: "held" in box.reason("a"))
    queue.wish(box.place, ids["a"], "held", False)
    until(lambda: box.started() == ["first", "d", "c", "a"])


def test_one_for_a_certain_gpu_sees_them_all_and_others_pass_it(box: Box) -> None:
    """So that “GPU 1” means the same to the training as to the person."""
    box.submit("first", gpus=1)
    until(lambda: box.story == ["start first GPU-00000000"])
    box.submit("pinned", gpus=1, first=0)
    until(lambda: box.reason("pinned") == "waits for GPU 0; none free")
    box.submit("other", gpus=1)
    until(lambda: box.story[1:] == ["start other GPU-00000001"])
    box.go("first", "pinned", "other")
    until(lambda: "end pinned GPU-00000000,GPU-00000001" in box.story)


def test_numbers_count_within_what_may_be_seen(box: Box) -> None:
    box.submit("one", 0, gpus=1, env={"CUDA_VISIBLE_DEVICES": "1"})
    until(lambda: "end one GPU-00000001" in box.story)


@pytest.mark.parametrize(("gpus", "first"), [(3, None), (1, 2), (2, 1)])
def test_what_this_machine_can_never_give_fails_at_once(box: Box, gpus: int, first: int | None) -> None:
    run = box.submit("vast", gpus=gpus, first=first)
    until(lambda: not box.held("vast"))
    words = (run / "events.jsonl").read_text()
    assert '"NO_GPU"' in words and "2 GPUs, numbers 0 to 1" in words and '"failed"' in words
    assert box.story == [] and box.view().waiting == ()


def test_without_gpus_it_starts_or_takes_its_turn(box: Box) -> None:
    none = {"FAKE_GPU": "none"}
    box.submit("one", env=none)
    box.submit("two", env=none, fallback="turn")
    until(lambda: box.started() == ["one", "two"])
    box.submit("three", 0, env=none, fallback="turn")
    box.submit("four", 0, gpus=0)
    until(lambda: "on the CPU; behind 1" in box.reason("four"))
    box.go("one", "two")
    until(lambda: box.started() == ["one", "two", "three", "four"])
    assert {line.split()[2] for line in box.story} == {"none"}


def test_a_driver_that_cannot_tell_is_waited_for(box: Box) -> None:
    box.submit("one", env={"FAKE_GPU": "mismatch"})
    until(lambda: "restart the machine" in box.reason("one"))
    assert box.story == []


def test_a_cleared_folder_costs_the_place_not_the_run(box: Box) -> None:
    box.submit("first", gpus=2)
    until(lambda: box.started() == ["first"])
    box.submit("a", 0, gpus=1)
    until(lambda: "none free" in box.reason("a"))
    for ticket in Path(box.place, "tickets").iterdir():
        ticket.unlink()
    until(lambda: box.waiting("a"))
    box.go("first")
    until(lambda: box.started() == ["first", "a"])


def test_it_is_looked_at_and_changed_from_elsewhere(box: Box) -> None:
    def asked(*words: str) -> tuple[int, str, str]:
        done = box.supervisor(list(words), [sys.executable, "-m", "engine.servers.queue"])
        return done.returncode, done.stdout, done.stderr

    box.submit("first", gpus=2)
    until(lambda: box.started() == ["first"])
    box.submit("a", 0, gpus=1)
    box.submit("b", 0, gpus=1)
    number = box.view().waiting[1].id
    code, text, _ = asked("first", number)
    found = json.loads(text)
    assert code == 0 and [w["title"] for w in found["view"]["waiting"]] == ["b", "a"]
    assert found["view"]["leases"]["GPU-00000001"]["title"] == "first" and len(found["gpus"]) == 2
    assert json.loads(asked("hold", number)[1])["view"]["waiting"][0]["held"]
    assert asked("cancel", "1" * 20)[0] == 3 and asked("eat", number)[0] == 2 and asked()[0] == 2
    (box.folder / "queue" / "lock").unlink()
    (box.folder / "queue" / "lock").mkdir()
    assert asked("hold", number)[0] == 4 and asked("look")[0] == 0
