"""What a tenant has spent is the sum of its requests that were served, since a moment."""

from argosy.store.usage import insert_records, spent_since


def test_a_tenant_that_asked_for_nothing_has_spent_nothing(engine):
    assert spent_since(engine, "acme", 0.0) == (0, 0)


def test_prompt_and_answer_of_this_tenant_since_that_moment_are_counted(engine, a_record):
    insert_records(
        engine,
        [
            a_record("before", at_s=99.9),
            a_record("at", at_s=100.0, tokens_in=7, tokens_out=3),
            a_record("after", at_s=200.0, tokens_in=1, tokens_cached=1, tokens_out=2),
            a_record("other", at_s=200.0, tenant="web"),
        ],
    )
    assert spent_since(engine, "acme", 100.0) == (13, 2)


def test_refused_requests_and_those_that_reached_no_replica_do_not_count(engine, a_record):
    insert_records(
        engine,
        [
            a_record("refused", outcome="refused", attempts=0, tokens_in=0, tokens_out=0),
            a_record("refused by the replica", outcome="refused", attempts=1),
            a_record("left the queue", outcome="cancelled", attempts=0, tokens_in=0, tokens_out=0),
            a_record("left while it was answered", outcome="cancelled", tokens_in=5, tokens_out=1),
            a_record("failed midway", outcome="failed", tokens_in=5, tokens_out=2),
        ],
    )
    assert spent_since(engine, "acme", 0.0) == (13, 2)
