"""Tables of load tests: read as they are written, refused with the line where they are nonsense."""

import gzip
from pathlib import Path

import pytest

from argosy.perf.measured_rows import UnreadableTable, read_table

HEAD = (
    "backend,model_path,system,mode,isl,osl,concurrency,tp_size,attention_dp_size,moe_tp_size,"
    "moe_ep_size,precision,measured,silicon_ttft_ms,silicon_tpot_ms"
)
GOOD = "vllm,meta-llama/Llama-3.1-70B,h100_sxm,agg,1024,1024,32,4,1,1,1,fp8,2026-03-01,200.5,15.25"


def table(path: Path, *lines: str) -> Path:
    file = path / "rows.csv"
    file.write_text("\n".join([HEAD, *lines]) + "\n")
    return file


def test_a_row_is_read_with_its_units(tmp_path: Path) -> None:
    rows, refused = read_table(table(tmp_path, GOOD))
    assert refused == []
    assert rows[0].line == 2
    assert rows[0].ttft_s == pytest.approx(0.2005)
    assert rows[0].tpot_s == pytest.approx(0.01525)
    assert rows[0].case.chip.name == "H100-SXM"
    assert rows[0].case.decode.layout.tp == 4
    assert rows[0].case.clients == 32


def test_a_gzipped_table_is_read_too(tmp_path: Path) -> None:
    file = table(tmp_path, GOOD)
    packed = tmp_path / "rows.csv.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert read_table(packed)[0] == read_table(file)[0]


def test_layouts_written_as_chips_times_chips_mean_one_node(tmp_path: Path) -> None:
    spread = GOOD.replace(",32,4,1,1,1,", ",32,64,1,8,8,")
    ranks = GOOD.replace(",32,4,1,1,1,", ",32,4,4,1,16,")
    rows, _ = read_table(table(tmp_path, spread, ranks))
    assert (rows[0].case.decode.layout.tp, rows[0].case.decode.layout.ep) == (8, 8)
    assert (rows[1].case.decode.layout.tp, rows[1].case.decode.layout.dp) == (1, 4)


def test_an_unknown_model_or_chip_is_kept_aside_with_its_reason(tmp_path: Path) -> None:
    rows, refused = read_table(
        table(
            tmp_path, GOOD, GOOD.replace("Llama-3.1-70B", "Lama-9"), GOOD.replace("h100_sxm", "x1")
        )
    )
    assert len(rows) == 1
    assert [one.line for one in refused] == [3, 4]
    assert "Lama-9" in refused[0].reason
    assert "x1" in refused[1].reason


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (GOOD.replace("200.5", "fast"), 'silicon_ttft_ms = "fast"'),
        (GOOD.replace("15.25", "-3"), 'silicon_tpot_ms = "-3"'),
        (GOOD.replace("15.25", "nan"), 'silicon_tpot_ms = "nan"'),
        (GOOD.replace(",1024,1024,", ",many,1024,"), 'isl = "many"'),
        (GOOD.replace("2026-03-01", "yesterday"), 'measured = "yesterday"'),
        (GOOD + ",surplus", "another number of cells"),
    ],
)
def test_nonsense_is_refused_with_its_line(tmp_path: Path, bad: str, says: str) -> None:
    file = table(tmp_path, GOOD, bad)
    with pytest.raises(UnreadableTable, match=r"rows\.csv:3") as refusal:
        read_table(file)
    assert says in str(refusal.value)


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "notes.csv"
    file.write_text("hello\nworld\n")
    with pytest.raises(UnreadableTable, match=r"notes.csv:1  lacks the columns backend"):
        read_table(file)
    file.write_bytes(b"\x1f\x8bnot really")
    with pytest.raises(UnreadableTable):
        read_table(file)
    with pytest.raises(UnreadableTable):
        read_table(tmp_path / "absent.csv")
