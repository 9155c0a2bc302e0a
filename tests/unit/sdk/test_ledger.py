"""The ledger under generated histories: nothing lost, nothing twice, whatever breaks."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from upon import api
from upon.messages import COALESCE_BYTES, FunctionCode, Invocation, Result
from upon.sdk.ledger import MAX_INVOCATIONS, OVERHEAD, RENEW, Ledger

CODES = {name: FunctionCode(hash=name, body=b"", python="3.11") for name in "ab"}


def invocation(id: str, code: str = "a", payload: bytes = b"") -> Invocation:
    return Invocation(id=id, code=code, function="f", payload=payload)


def ledger(*ids: str) -> Ledger[str]:
    found: Ledger[str] = Ledger(group="g")
    found.again()
    for id in ids:
        found.submit(invocation(id), CODES["a"], f"waiter {id}")
    return found


def drain(found: Ledger[str]) -> list[api.FromClient]:
    return list(iter(found.next_frame, None))


def drain_answered(found: Ledger[str]) -> list[api.FromClient]:
    """Return what leaves when each frame is acknowledged before the next."""
    frames = []
    while (frame := found.next_frame()) is not None:
        frames.append(frame)
        found.done(frame.request)
    return frames


def acknowledge(found: Ledger[str], frames: list[api.FromClient]) -> None:
    for frame in frames:
        found.done(frame.request)


def test_code_is_registered_before_it_is_used() -> None:
    found = ledger("1", "2")
    frames = drain(found)
    assert [type(f) for f in frames] == [api.Attach, api.Register]
    acknowledge(found, frames)
    (submit,) = drain(found)
    assert isinstance(submit, api.Submit)
    assert [one.id for one in submit.invocations] == ["1", "2"]
    found.done(submit.request)
    assert found.is_accepted
    assert not found.is_idle
    assert found.results([Result(id="1", status="succeeded"), Result(id="1", status="succeeded")])[0][0] == "waiter 1"
    assert found.results([Result(id="1", status="succeeded")]) == []
    found.results([Result(id="2", status="failed")])
    assert found.is_idle
    assert found.freed == 2 * OVERHEAD


def test_the_result_of_a_further_generation_is_the_tasks() -> None:
    found = ledger()
    found.want(["1"], ["waiter"])
    again = Result(id="1#2", status="succeeded")
    assert found.results([again, again]) == [("waiter", again)]
    assert not found.unfinished


def test_frames_are_bounded_in_bytes_and_number() -> None:
    found = ledger()
    found.submit(invocation("0"), CODES["a"], "w")
    acknowledge(found, drain(found))
    for n in range(4):
        found.submit(invocation(f"big{n}", payload=bytes(COALESCE_BYTES // 2)), CODES["a"], "w")
    found.submit(invocation("huge", payload=bytes(3 * COALESCE_BYTES)), CODES["a"], "w")
    assert [len(f.invocations) for f in drain_answered(found) if isinstance(f, api.Submit)] == [2, 1, 1, 1, 1]
    for n in range(MAX_INVOCATIONS + 1):
        found.submit(invocation(f"small{n}"), CODES["a"], "w")
    assert [len(f.invocations) for f in drain_answered(found) if isinstance(f, api.Submit)] == [MAX_INVOCATIONS, 1]


def test_what_comes_while_two_submits_are_under_way_shares_the_next() -> None:
    found = ledger("0")
    acknowledge(found, drain(found))
    acknowledge(found, drain(found))
    under_way = []
    for id in "12345":
        found.submit(invocation(id), CODES["a"], "w")
        under_way += drain(found)
    assert [[one.id for one in f.invocations] for f in under_way if isinstance(f, api.Submit)] == [["1"], ["2"]]
    found.cancel(["1"])
    assert [type(f) for f in drain(found)] == [api.CancelTasks], "nothing else waits"
    acknowledge(found, under_way[:1])
    (rest,) = drain(found)
    assert isinstance(rest, api.Submit)
    assert [one.id for one in rest.invocations] == ["3", "4", "5"]


def test_cancelling_what_was_not_sent_sends_nothing() -> None:
    found = ledger("1", "2")
    found.cancel(["1", "unknown"])
    acknowledge(found, drain(found))
    (submit,) = drain(found)
    assert isinstance(submit, api.Submit)
    assert [one.id for one in submit.invocations] == ["2"]
    found.cancel(["2"])
    (cancel,) = drain(found)
    assert isinstance(cancel, api.CancelTasks)
    assert cancel.ids == ("2",)
    acknowledge(found, [submit, cancel])
    assert found.is_idle
    assert found.freed == 2 * OVERHEAD


def test_a_refused_registration_fails_those_that_waited_for_it() -> None:
    found = ledger("1", "2")
    attach, register = drain(found)
    found.done(attach.request)
    refusal = found.refused(register.request, api.Problem(error="InputError", message="no"))
    assert refusal.waiters == ("waiter 1", "waiter 2")
    assert found.is_idle
    assert found.freed == 2 * OVERHEAD


def test_a_refusal_that_passes_keeps_its_place() -> None:
    found = ledger("1")
    _, register = drain(found)
    assert found.refused(register.request, api.Problem(error="KafkaUnavailable", message="restarting")).passes
    assert drain(found) == []
    assert not found.is_accepted
    found.retry()
    assert drain(found) == [register]


def test_a_new_connection_attaches_and_asks_again_for_what_it_watches() -> None:
    found: Ledger[str] = Ledger(group="g", watch=api.Watch(request=0, tasks=True))
    found.again()
    found.want(["elsewhere"], ["w"])
    drain(found)
    found.again()
    attach, watch = drain(found)
    assert isinstance(attach, api.Attach)
    assert (attach.group, attach.unfinished) == ("g", ("elsewhere",))
    assert isinstance(watch, api.Watch)
    assert watch.tasks


def test_abandon_returns_all_who_wait_and_frees_all() -> None:
    found = ledger("1", "2", "3")
    acknowledge(found, drain(found))
    drain(found)
    found.submit(invocation("4"), CODES["a"], "waiter 4")
    found.submit(invocation("5", "b"), CODES["b"], "waiter 5")
    assert sorted(found.abandon()) == [f"waiter {n}" for n in range(1, 6)]
    assert found.freed == 5 * OVERHEAD
    assert found.is_idle


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_every_invocation_ends_once_whatever_breaks(data: st.DataObject) -> None:
    """A service that loses frames, acknowledgements and pushes at each break, and keeps what it took."""
    found: Ledger[str] = Ledger(group="g")
    found.again()
    flying: list[api.FromClient] = []  # sent, not read by the service
    answers: list[object] = []  # sent by the service, not read by us
    codes: set[str] = set()
    executed: dict[str, Result] = {}
    cancelled: set[str] = set()
    ended: list[str] = []
    submitted: list[str] = []

    def send() -> None:
        if (frame := found.next_frame()) is not None:
            flying.append(frame)

    def serve(refuse: bool) -> None:
        if not flying:
            return
        frame = flying.pop(0)
        if refuse:
            problem = api.Problem(error="KafkaUnavailable", message="")
            answers.append(api.Refused(request=frame.request, problem=problem))
            return
        match frame:
            case api.Register():
                codes.add(frame.code.hash)
            case api.Submit():
                for one in frame.invocations:
                    assert one.code in codes, "its code was registered before"
                    if one.id not in executed:
                        executed[one.id] = Result(id=one.id, status="succeeded")
                        answers.append(api.Results(results=(executed[one.id],)))
            case api.Attach():
                there = tuple(executed[id] for id in frame.unfinished if id in executed)
                answers.append(api.Results(results=there))
        answers.append(api.Done(request=frame.request))

    def read() -> None:
        if not answers:
            return
        match answers.pop(0):
            case api.Results(results=results):
                ended.extend(waiter for waiter, _ in found.results(results))
            case api.Done(request=request):
                found.done(request)
            case api.Refused(request=request, problem=problem):
                assert found.refused(request, problem).passes

    def lose() -> None:
        flying.clear()
        answers.clear()
        found.again()

    for step in data.draw(st.lists(st.sampled_from("SSScsssvvvfrrrlt"), max_size=80)):
        match step:
            case "S":
                id = str(len(submitted))
                code = data.draw(st.sampled_from("ab"))
                found.submit(invocation(id, code), CODES[code], id)
                submitted.append(id)
            case "c" if submitted:
                id = data.draw(st.sampled_from(submitted))
                if id in found.unfinished:
                    cancelled.add(id)
                found.cancel([id])
            case "s":
                send()
            case "v":
                serve(refuse=False)
            case "f":
                serve(refuse=True)
            case "r":
                read()
            case "l":
                lose()
            case "t":
                found.retry()
    for _ in range(10 * (len(submitted) + 5)):
        send()
        serve(refuse=False)
        read()
        read()
        found.retry()
    assert sorted(ended + list(cancelled)) == sorted(submitted)
    assert found.is_idle
    assert found.freed == len(submitted) * OVERHEAD


def test_code_is_registered_again_after_an_hour_and_when_it_is_not_known_any_more() -> None:
    now = 0.0
    found: Ledger[str] = Ledger(group="g", now=lambda: now)
    found.again()

    def frames_of_a_submit(id: str) -> list[str]:
        found.submit(invocation(id), CODES["a"], "w")
        kinds = []
        while frames := drain(found):
            kinds += [type(frame).__name__ for frame in frames]
            acknowledge(found, frames)
        return [kind for kind in kinds if kind != "Attach"]

    assert frames_of_a_submit("1") == ["Register", "Submit"]
    assert frames_of_a_submit("2") == ["Submit"]
    now = RENEW + 1
    assert frames_of_a_submit("3") == ["Register", "Submit"]
    found.submit(invocation("4"), CODES["a"], "w")
    (submit,) = drain(found)
    problem = api.Problem(error="FunctionNotFound", message="the code is not known")
    assert found.refused(submit.request, problem).waiters == ("w",)
    assert frames_of_a_submit("5") == ["Register", "Submit"]


def test_nobody_fails_for_another() -> None:
    """One of three is refused: each is sent again alone, and only the bad one fails."""
    found = ledger("good", "bad", "fine")
    acknowledge(found, drain(found))
    (submit,) = drain(found)
    problem = api.Problem(error="InputError", message="task bad: no")
    assert found.refused(submit.request, problem).waiters == ()
    alone = drain(found)
    assert [[one.id for one in frame.invocations] for frame in alone if isinstance(frame, api.Submit)] == [
        ["good"], ["bad"], ["fine"]
    ]  # fmt: skip
    assert found.refused(alone[1].request, problem).waiters == ("waiter bad",)
    acknowledge(found, [alone[0], alone[2]])
    assert found.is_accepted
    assert set(found.unfinished) == {"good", "fine"}
    assert found.freed == 3 * OVERHEAD
