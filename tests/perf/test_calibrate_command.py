"""`argosy calibrate` as a user runs it: check a table, put one's own rows on top."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from argosy.cli.main import app

HEAD = (
    "backend,model_path,system,mode,isl,osl,concurrency,tp_size,precision,"
    "silicon_ttft_ms,silicon_tpot_ms"
)
ROWS = (
    "vllm,meta-llama/Llama-3.1-70B,h200_sxm,agg,1024,1024,32,4,fp8,200,14",
    "vllm,meta-llama/Llama-3.1-70B,h200_sxm,agg,1024,1024,64,4,fp8,300,18",
    "trtllm,openai/gpt-oss-120b,gb300,agg,1024,1024,16,2,fp4,60,4",
)


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["calibrate", *arguments])
    return result.exit_code, result.stdout, result.stderr


def table(folder: Path, *rows: str) -> str:
    file = folder / "own.csv"
    file.write_text("\n".join([HEAD, *rows]) + "\n")
    return str(file)


def test_a_check_prints_errors_and_coverage_as_json(tmp_path: Path) -> None:
    unknown = ROWS[0].replace("Llama-3.1-70B", "Lama-9")
    code, out, _ = run("--check", table(tmp_path, *ROWS, unknown), "--json")
    assert code == 0
    found = json.loads(out)
    assert found["rows_answered"] == 3
    assert found["rows_refused"] == 1
    assert sum(found["refused"].values()) == 1
    for name in ("tpot_median_error", "ttft_median_error", "interval_coverage"):
        assert 0.0 <= found[name] < 2.0
    assert set(found["by_chip"]) == {"H200", "GB300"}
    assert set(found["by_engine"]) == {"vllm", "trtllm"}


def test_a_check_says_the_same_in_words(tmp_path: Path) -> None:
    code, out, _ = run("--check", table(tmp_path, *ROWS))
    assert code == 0
    assert "3 rows answered, 0 refused" in out
    assert "GB300" in out


def test_a_file_of_refused_rows_alone_is_refused(tmp_path: Path) -> None:
    code, out, errors = run("--check", table(tmp_path, ROWS[0].replace("vllm", "abacus")))
    assert code == 1
    assert "1 x no engine" in out
    assert "none of its 1 rows" in errors


def test_nonsense_is_refused_with_the_line(tmp_path: Path) -> None:
    code, _, errors = run("--check", table(tmp_path, ROWS[0], ROWS[1].replace(",18", ",soon")))
    assert code == 1
    assert "own.csv:3" in errors
    assert "silicon_tpot_ms" in errors


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    code, _, errors = run("--check", str(tmp_path / "absent.csv"))
    assert code == 1
    assert "absent.csv" in errors


def test_own_rows_on_top_move_the_answers_to_them(tmp_path: Path) -> None:
    slow = [
        f"vllm,meta-llama/Llama-3.1-70B,MI300X,agg,1024,1024,{clients},4,fp8,"
        f"{400 + clients},{30 + clients / 4}"
        for clients in (4, 8, 16, 32, 64)
    ]
    file, mine = table(tmp_path, *slow), str(tmp_path / "mine.json")
    before = json.loads(run("--check", file, "--json")[1])
    code, out, _ = run(file, "--out", mine)
    assert code == 0
    assert "5 rows on top" in out
    after = json.loads(run("--check", file, "--calibration", mine, "--json")[1])
    assert before["tpot_median_error"] > 0.2
    assert after["tpot_median_error"] < 0.05


def test_own_rows_need_a_place_to_go(tmp_path: Path) -> None:
    code, _, errors = run(table(tmp_path, *ROWS))
    assert code == 2
    assert "--out" in errors


def test_a_broken_calibration_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('{"made_from": 3}')
    code, _, errors = run("--check", table(tmp_path, *ROWS), "--calibration", str(broken))
    assert code == 1
    assert "broken.json is no calibration" in errors


@pytest.mark.parametrize("name", ["h100_sxm", "h200_sxm", "b200_sxm", "b300_sxm", "gb200", "l40s"])
def test_the_tables_names_of_systems_are_known(tmp_path: Path, name: str) -> None:
    row = ROWS[0].replace("h200_sxm", name)
    assert run("--check", table(tmp_path, row), "--json")[0] == 0
