"""What of a chat reaches the replica, and under which names."""

from raw_client import HELLO
from running_gateway import answering, run

USER = {"role": "user", "content": "Hi"}


def sent_for(body: dict) -> dict:
    """The body that the replica gets."""
    sent = []

    async def test():
        async with answering() as house:
            answer = await (await house.client()).ask(body={**HELLO, **body})
            assert answer.status == 200
            sent.append(house.upstreams[0].calls[0].fields)

    run(test())
    return sent[0]


def test_a_plain_chat_is_sent_as_it_came():
    body = {"temperature": 0.5, "stop": ["x"], "seed": 5, "messages": [{**USER, "name": "Bob"}]}
    assert sent_for(body) == {**HELLO, **body}


def test_what_changes_nothing_in_the_answer_is_not_sent():
    body = {"user": "u", "metadata": {"a": "b"}, "store": False, "service_tier": "auto"}
    assert sent_for({**body, "verbosity": "low", "temperature": None}) == HELLO


def test_a_developer_is_a_system_to_the_replica_and_the_rest_of_the_turn_is_kept():
    turns = [{"role": "developer", "content": "Be \u00e9kind.", "name": "Bob"}, USER]
    sent = sent_for({"messages": turns})
    assert sent["messages"] == [{**turns[0], "role": "system"}, USER]


def test_the_newer_name_of_the_token_limit_wins():
    assert sent_for({"max_completion_tokens": 7, "max_tokens": 9}) == {**HELLO, "max_tokens": 7}


def test_a_stream_always_brings_its_counts():
    sent = sent_for({"stream": True})
    assert sent == {**HELLO, "stream": True, "stream_options": {"include_usage": True}}
