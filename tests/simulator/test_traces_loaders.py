"""Loaders of recorded demand: what is read, and that nothing unreadable passes unsaid."""

import gzip
import io
from pathlib import Path

import msgspec
import numpy as np
import pytest
import zstandard

from argosy.fleet.messages import Usage
from argosy.simulator.traces import Trace, TraceError, limit, merge, open_trace, until, usage_trace

TRACES = Path(__file__).parents[2] / "traces"
HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
DATED = HEADER + "2023-11-16 18:17:03.9799600,374,44\n2023-11-16 18:17:04.0319600,396,109\n"
MOONCAKE = '{"timestamp": %s, "input_length": 600, "output_length": 5, "hash_ids": [7, 9]}\n'


def opened(text: str, **how) -> Trace:
    return open_trace(io.BytesIO(text.encode()), **how)


def refused(text: str, **how) -> str:
    with pytest.raises(TraceError) as caught:
        list(opened(text, **how))
    return str(caught.value)


def counted(trace: Trace) -> tuple[int, int, int]:
    windows = list(trace)
    return tuple(
        sum(int(n) for n in numbers)
        for numbers in zip(
            *((w.rows, w.prompt_tokens.sum(), w.output_tokens.sum()) for w in windows), strict=True
        )
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("azure_llm_2023_conv.csv.gz", (19_366, 22_361_870, 4_088_665)),
        ("azure_llm_2023_code.csv.gz", (8_819, 18_059_974, 245_896)),
        ("mooncake_fast25_conversation.jsonl.zst", (12_031, 144_793_823, 4_122_048)),
        ("mooncake_fast25_synthetic.jsonl.zst", (3_993, 61_194_628, 595_432)),
    ],
)
def test_shipped_traces_are_read_whole(name: str, expected: tuple[int, int, int]) -> None:
    assert counted(open_trace(TRACES / name)) == expected


def test_a_dated_csv_counts_seconds_from_its_first_row_and_keeps_seven_digits() -> None:
    trace = opened(DATED)
    (window,) = trace
    assert window.arrival_s.tolist() == [0.0, 0.052]
    assert window.prompt_tokens.tolist() == [374, 396]
    assert trace.starts_at_s == pytest.approx(1_700_158_623.97996)
    assert "dates" in trace.found
    assert counted(trace) == counted(trace)  # a trace can be read again


def test_dates_with_a_zone_are_read_too() -> None:
    rows = "2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:01.009930+00:00,9,6\n"
    (window,) = opened(HEADER + rows)
    assert window.arrival_s.tolist() == [0.0, 1.0]


def test_columns_come_in_any_order_and_unused_ones_are_named() -> None:
    trace = opened("output_tokens,t_s,images,input_tokens\r\n5,0.5,1,10\r\n6,1.5,0,20\r\n")
    (window,) = trace
    assert window.prompt_tokens.tolist() == [10, 20]
    assert "columns not used: images" in trace.found


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("2023-11-16 18:17:05,abc,3", 'ContextTokens is "abc"; a whole number would do'),
        ("2023-11-16 18:17:05,12.5,3", 'ContextTokens is "12.5"'),
        ("2023-11-16 18:17:05,,3", 'ContextTokens is ""'),
        ("2023-11-16 18:17:05,5", "2 columns; the header has 3"),
        ("2023-11-16 18:17:05,5,6,7", "4 columns; the header has 3"),
        ("yesterday,5,6", 'TIMESTAMP is "yesterday"; a date and time would do'),
        ("2023-13-16 18:17:05,5,6", 'TIMESTAMP is "2023-13-16 18:17:05"'),
        ("1600-11-16 18:17:05,5,6", 'TIMESTAMP is "1600-11-16 18:17:05"'),
        ("2023-11-16 18:17:05+00:00,5,6", "has no time zone"),
        ("2023-11-16 18:17:05,+5,6", 'ContextTokens is "+5"'),
        ("2023-11-16 18:17:05,-5,6", "prompt_tokens is -5; 1 to 2147483647 would do"),
        ("2023-11-16 18:17:05,0,6", "prompt_tokens is 0"),
        ("2023-11-16 18:17:05,5,0", "zero_output_as_one=True"),
        ("2023-11-16 18:17:05,5000000000,6", "prompt_tokens is 5000000000"),
        ("2023-11-16 18:17:05,99999999999999999999,6", "64 bits at most"),
        ("2023-11-16 18:17:01,5,6", "goes back in time, 3.03196 s before the one above"),
        ("", "1 columns; the header has 3"),
    ],
)
def test_a_csv_row_that_cannot_be_read_is_named_with_its_line(row: str, said: str) -> None:
    message = refused(DATED + row + "\n2023-11-16 18:17:09,5,6\n")
    assert message.startswith("the open file:4: ")
    assert said in message
    assert message.endswith(f"The line: {row}")


@pytest.mark.parametrize("time", ["nan", "inf"])
def test_times_that_are_no_numbers_are_refused(time: str) -> None:
    assert "not a finite number" in refused(f"t_s,input_tokens,output_tokens\n{time},1,1\n")


def test_the_line_is_right_far_into_a_file() -> None:
    rows = "".join(f"{i / 100},5,6\n" for i in range(200_000))
    message = refused("t_s,input_tokens,output_tokens\n" + rows + "0.5,1,1\n")
    assert message.startswith("the open file:200002: this line goes back in time")


def test_rows_out_of_order_are_sorted_when_asked() -> None:
    text = DATED + "2023-11-16 18:17:01.9799600,5,6\n"
    trace = opened(text, sort=True)
    (window,) = trace
    assert window.prompt_tokens.tolist() == [5, 374, 396]
    assert window.arrival_s.tolist() == [0.0, 2.0, 2.052]
    assert trace.starts_at_s == pytest.approx(1_700_158_621.97996)


def test_an_answer_of_no_token_is_one_token_when_asked() -> None:
    text = "t_s,input_tokens,output_tokens\n0,5,0\n"
    (window,) = opened(text, zero_output_as_one=True)
    assert window.output_tokens.tolist() == [1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty"),
        ("\n\n", "the file is empty"),
        (HEADER, "a header and no request"),
        ("a,b,c\n1,2,3\n", "this is no trace. What is read: CSV with TIMESTAMP"),
        ('{"a": 1}\n', "this is no request of a trace"),
        ('{"a": 1\n', "Input data was truncated"),
        ("t_s,t_s,input_tokens,output_tokens\n1,1,2,3\n", "names a column twice"),
    ],
)
def test_what_is_no_trace_is_refused(text: str, said: str) -> None:
    assert said in refused(text)


def test_a_file_cut_short_is_refused_however_it_is_packed(tmp_path: Path) -> None:
    rows = "".join(f"{i},{i % 97 + 1},6\n" for i in range(50_000))
    data = ("t_s,input_tokens,output_tokens\n" + rows).encode()
    for name, packed in (
        ("a.gz", gzip.compress(data)),
        ("a.zst", zstandard.compress(data)),
    ):
        path = tmp_path / name
        path.write_bytes(packed)
        assert sum(window.rows for window in open_trace(path)) == 50_000
        path.write_bytes(packed[: len(packed) // 2])
        with pytest.raises(TraceError, match="cut short"):
            list(open_trace(path))


def test_an_open_file_is_read_by_several_at_once_and_stays_open() -> None:
    rows = b"".join(b"%d,1,2\n" % second for second in range(300_000))
    file = io.BytesIO(b"t_s,input_tokens,output_tokens\n" + rows)
    trace = open_trace(file)
    assert sum(window.rows for window in merge([trace, trace])) == 600_000
    assert not file.closed


def test_a_missing_file_is_said() -> None:
    with pytest.raises(TraceError, match="there is no such file"):
        open_trace("nowhere.csv")


def test_mooncake_rows_share_blocks_of_512_tokens() -> None:
    trace = opened(MOONCAKE % 0 + "\n" + MOONCAKE % 1500)
    (window,) = trace
    assert trace.block_tokens == 512
    assert window.arrival_s.tolist() == [0.0, 1.5]
    assert window.block_offsets is not None
    assert window.block_offsets.tolist() == [0, 2, 4]
    assert window.block_hashes is not None
    assert window.block_hashes.dtype == np.uint64
    assert window.block_hashes.tolist() == [7, 9, 7, 9]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (MOONCAKE % -1, "$.timestamp"),
        (MOONCAKE % "NaN", "invalid"),
        ((MOONCAKE % 0).replace("600", "6000"), "2 hash_ids for 6000 tokens"),
        ((MOONCAKE % 0).replace("600", '"x"'), "$.input_length"),
        ((MOONCAKE % 0).replace("600", "99999999999999999999"), "more than 64 bits"),
        ((MOONCAKE % 0).replace(": 5,", ": -5,"), "output_tokens is -5"),
        (MOONCAKE % 0, "goes back in time"),
        ('{"timestamp": 3}\n', "missing required field"),
    ],
)
def test_a_json_line_that_cannot_be_read_is_named(row: str, said: str) -> None:
    message = refused(MOONCAKE % 5 + "\n" + MOONCAKE % 5 + row)
    assert message.startswith("the open file:4: ")
    assert said in message


def test_turns_of_a_bailian_chat_are_one_session() -> None:
    row = (
        '{"chat_id": %d, "parent_chat_id": %d, "timestamp": %f, "input_length": 20, '
        '"output_length": 4, "type": "text", "turn": 1, "hash_ids": [1, 2]}\n'
    )
    text = row % (5, -1, 0.5) + row % (6, -1, 1.0) + row % (7, 5, 2.0) + row % (8, 7, 3.0)
    trace = opened(text)
    (window,) = trace
    assert window.session.tolist() == [0, 1, 0, 0]
    assert trace.block_tokens == 16


def test_logs_of_openai_shaped_answers_name_models_users_and_tiers() -> None:
    lines = [
        {
            "created": 1_700_000_000,
            "model": "a",
            "user": "acme",
            "service_tier": "priority",
            "usage": {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13},
        },
        {
            "created_at": 1_700_000_007,
            "model": "b",
            "usage": {"input_tokens": 4, "output_tokens": 2},
        },
    ]
    text = "\n".join(msgspec.json.encode(line).decode() for line in lines)
    trace = opened(text)
    (window,) = trace
    assert trace.models == ("a", "b")
    assert trace.tenants == ("acme", "unnamed")
    assert trace.starts_at_s == 1_700_000_000
    assert window.arrival_s.tolist() == [0.0, 7.0]
    assert window.tier.tolist() == [0, 1]
    assert window.prompt_tokens.tolist() == [10, 4]
    message = refused(text + '\n{"created": 1700000009, "usage": {"prompt_tokens": 1}}')
    assert "the open file:3: usage.completion_tokens is missing" in message


def record(at_s: float, **other) -> Usage:
    shown = {"outcome": "finished", "status": 200, "tokens_in": 9, "tokens_out": 4, "model": "m"}
    return Usage(
        request=f"req_{at_s}", at_s=at_s, key=None, surface="chat", reason="", duration_s=1.0,
        **{"tenant": "acme", "tier": "enterprise", **shown, **other},
    )  # fmt: skip


def test_usage_records_are_replayed_in_order_and_what_is_left_out_is_counted(
    tmp_path: Path,
) -> None:
    records = [
        record(30.0, tokens_out=0, outcome="cancelled"),
        record(20.0, tokens_in=0, outcome="refused"),
        record(10.0, tenant=None, tier=None),
    ]
    trace = usage_trace(records)
    assert "2 usage records" in trace.found
    assert "left out, for their tokens are not known: 1 refused" in trace.found
    (window,) = trace
    assert window.arrival_s.tolist() == [0.0, 20.0]
    assert window.output_tokens.tolist() == [4, 1]
    assert window.tier.tolist() == [1, 0]
    assert trace.starts_at_s == 10.0
    path = tmp_path / "usage.json"
    for data in (
        msgspec.json.encode(records),
        b"\n".join(msgspec.json.encode(one) for one in records),
    ):
        path.write_bytes(data)
        assert counted(open_trace(path)) == counted(trace)
    with pytest.raises(TraceError, match=r"record req_10\.0: prompt_tokens is -3"):
        usage_trace([record(10.0, tokens_in=-3)])


def test_servegen_clients_ask_as_often_and_as_much_as_recorded() -> None:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    path = TRACES / "servegen_client_rates_week1.parquet"
    trace = open_trace(path, seed=5)
    assert trace.models == ("deepseek-r1", "m-large", "m-mid", "m-small", "mm-image")
    windows = list(until(trace, 600.0))
    table = pq.read_table(path)
    early = table.filter(pc.less(table["t_s"], 600))
    model = np.concatenate([window.model for window in windows])
    for place, name in enumerate(trace.models):
        rates = early.filter(pc.equal(early["model"], name))["rate_rps"].to_numpy()
        # Clients come in bursts: their 10 minutes are within 20 % of their rates, all of them 5 %.
        assert (model == place).sum() == pytest.approx(600 * rates.sum(), rel=0.2)
    assert model.size == pytest.approx(600 * early["rate_rps"].to_numpy().sum(), rel=0.05)
    once = next(iter(limit(trace, 1000)))
    again = next(limit(trace, 1000).windows(1000))
    assert np.array_equal(once.arrival_s, again.arrival_s)
    assert np.array_equal(once.output_tokens, again.output_tokens)


def test_a_servegen_file_without_token_lengths_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "servegen_client_rates.parquet"
    path.write_bytes((TRACES / "servegen_client_rates_week1.parquet").read_bytes())
    with pytest.raises(TraceError, match=r"servegen_client_token_quantiles\.parquet"):
        open_trace(path)
    path.write_bytes(b"PAR1 and nothing else")
    (tmp_path / "servegen_client_token_quantiles.parquet").write_bytes(b"PAR1")
    with pytest.raises(TraceError, match="no parquet file"):
        open_trace(path)
