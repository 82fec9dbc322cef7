"""Sixteen streams over both engines, one of which breaks beside them, and what must then hold."""

import asyncio
from collections.abc import Callable

import httpx
from fleet_process import MODEL, wait_until

from tests.system.real_engines.house import House
from tests.system.real_engines.told import Told, listen

TOKENS = 48
# What was said before a cut comes back as a part of a prompt, where its tokens may join otherwise.
SEAM_TOKENS_MAX = 2
BEGUN = 4  # pieces that each stream of a victim has said when it is broken
THINGS = (
    "a lighthouse", "the sea", "a wooden ship", "an old harbour", "a storm", "the moon",
    "a library", "a mountain railway", "bread", "a violin", "winter", "a market",
    "a clock", "a garden", "the desert", "a bridge",
)  # fmt: skip
QUESTIONS = [f"Tell me a long story about {thing}." for thing in THINGS]

Say = Callable[[str], None]
Unbroken = dict[str, dict[str, str]]  # engine, question, text
Break = Callable[[list[Told]], object]


def streams(house: House, break_: Break) -> list[Told]:
    """A stream for each question, all at once, both APIs on both engines; `break_` beside them."""
    told = [
        Told("chat" if number % 4 < 2 else "messages", question)
        for number, question in enumerate(QUESTIONS)
    ]

    async def main() -> None:
        async with httpx.AsyncClient(
            base_url=house.fleet.url,
            headers={"authorization": f"Bearer {house.fleet.key}"},
            timeout=90.0,
            trust_env=False,
        ) as client:
            asking = [
                asyncio.create_task(listen(client, one, model=MODEL, tokens=TOKENS)) for one in told
            ]
            done = break_(told)
            if asyncio.iscoroutine(done):
                await done
            await asyncio.gather(*asking)

    house.relay.calls.clear()
    asyncio.run(main())
    return told


def break_begun(engine: str, strike: Callable[[], None]) -> Break:
    """Strike when every stream of that engine has said a few pieces."""

    async def main(told: list[Told]) -> None:
        while True:
            await asyncio.sleep(0.01)
            theirs = [one for one in told if one.replica and engine_of(one) == engine]
            if all(one.replica or one.lost for one in told) and all(
                len(one.pieces) >= BEGUN or one.lost for one in theirs
            ):
                break
        await asyncio.to_thread(strike)

    return main


def break_silent(after_s: float, strike: Callable[[], None]) -> Break:
    """Strike after so long: the engine was stopped before, and has said nothing."""

    async def main(told: list[Told]) -> None:
        await asyncio.sleep(after_s)
        await asyncio.to_thread(strike)

    return main


def judge(
    house: House, told: list[Told], victim: str, unbroken: Unbroken, say: Say, *, how: str
) -> None:
    """Every stream is whole; those that were cut went on exactly where they were cut."""
    assert [(one.question, one.wrong) for one in told if one.wrong] == []
    off = check_usage(house, told)
    records = {record.request: record for record in house.fleet.usage()}
    # One that moved before its first byte has the name of the spare in its head.
    cut = [one for one in told if engine_of(one) == victim and records[one.request].attempts > 1]
    assert len(cut) >= 4, "hardly a stream was cut"
    begun = [_check_seam(house, one, victim) for one in cut]
    ends = [engine_name(records[one.request].replica) for one in cut]
    spare = "vllm" if victim == "llama-cpp" else "llama-cpp"
    if how == "kill -9":
        assert set(ends) == {spare}
    as_alone = sum(
        house.say_alone(end, one.question, tokens=TOKENS, said=prefix).startswith(
            one.text.removeprefix(prefix)
        )
        for one, prefix, end in zip(cut, begun, ends, strict=True)
    )
    same = [sum(one.text == unbroken[e][one.question] for one in cut) for e in (victim, spare)]
    over = max(one.tokens_out for one in cut) - TOKENS
    say(
        f"{victim} cut ({how}): {len(cut)} of {len(told)} streams, {len(cut)} went on, "
        f"{ends.count(spare)} of them on {spare}; the rest is what that engine alone says from "
        f"there in {as_alone}; the text is the unbroken one of {victim} in {same[0]}, of {spare} "
        f"in {same[1]}; tokens above the limit {max(0, over)}, prompt tokens off by {off}"
    )


def _check_seam(house: House, one: Told, victim: str) -> str:
    """The text before the cut, which the client's begins with; nothing lost, nothing twice."""
    asked = [c for c in house.relay.calls if c.fields["messages"][1]["content"] == one.question]
    rest = [call for call in asked if call.goes_on_from]
    for call in rest:
        assert call.fields["continue_final_message"] is True
        assert call.fields["add_generation_prompt"] is False
        assert one.text == call.goes_on_from + call.text
    if victim == "vllm":
        begun = next(call.text for call in asked if call.text)
    else:
        begun = rest[-1].goes_on_from
    assert one.text.startswith(begun), (begun, one.text)
    assert one.text != begun, "nothing came after the cut"
    return begun


def judge_unbegun(house: House, told: list[Told], spare: str, say: Say) -> None:
    """Every stream is whole, and all were answered by the engine that lives."""
    assert [(one.question, one.wrong) for one in told if one.wrong] == []
    check_usage(house, told)
    assert {engine_of(one) for one in told} == {spare}
    records = {record.request: record for record in house.fleet.usage()}
    moved = sum(records[one.request].attempts > 1 for one in told)
    say(f"killed before the first byte: {moved} of {len(told)} moved, all answered by {spare}")
    assert moved >= 4


def check_usage(house: House, told: list[Told]) -> int:
    """The record on disk says what the stream said; how far a prompt's count is off at most."""
    asked = {one.request for one in told}
    wait_until(lambda: asked <= {r.request for r in house.fleet.usage()}, 10, house.fleet)
    records = {record.request: record for record in house.fleet.usage()}
    for one in told:
        record = records[one.request]
        assert (record.outcome, record.tokens_out) == ("finished", one.tokens_out), record
        assert record.tokens_in == one.tokens_in, record
    off = [one.tokens_in - house.tokens_in(one.question) for one in told]
    assert max(map(abs, off)) <= SEAM_TOKENS_MAX, off
    return max(map(abs, off))


def engine_of(one: Told) -> str:
    """Which engine began the stream."""
    assert one.replica
    return engine_name(one.replica)


def engine_name(replica: str) -> str:
    """Which engine a replica of that name is."""
    return "vllm" if "@vllm" in replica else "llama-cpp"
