"""python -m bench.autoscaling: scaling rules on recorded demand, SLO attainment and replica-hours.

Examples: python -m bench.autoscaling                          # all: about half an hour of one core
          python -m bench.autoscaling --only "azure conv" --starts 300 --rules argosy,oracle
          python -m bench.autoscaling --json rows.json --png docs/pictures/autoscaling.png
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import msgspec

from bench.autoscaling.cases import LARGE, SMALL, Case, azure, servegen
from bench.autoscaling.figures import draw, print_markdown, print_table
from bench.autoscaling.runs import RULES, Row, run

CASES: dict[str, Callable[[], Case]] = {
    "azure conv": lambda: azure("conv", 8.0),
    "azure code": lambda: azure("code", 8.0),
    "servegen deepseek-r1": lambda: servegen("deepseek-r1", LARGE, (0.0, 24.0)),
    "servegen mm-image": lambda: servegen("mm-image", SMALL, (0.0, 24.0)),
    "servegen m-large": lambda: servegen("m-large", SMALL, (25.0, 32.0), mean=3.0),
    "servegen m-mid": lambda: servegen("m-mid", SMALL, (24.0, 30.0), mean=3.0),
}
STARTS_S = (60.0, 300.0, 600.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.autoscaling", description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--only", help="cases whose name has this in it")
    parser.add_argument("--starts", default=",".join(f"{s:g}" for s in STARTS_S))
    parser.add_argument("--rules", help="names, by comma; all")
    parser.add_argument("--defaults", action="store_true", help="no other settings of a rule")
    parser.add_argument("--json", type=Path, help="keep the rows here; those that are there count")
    parser.add_argument("--markdown", action="store_true", help="the table of docs/AUTOSCALING.md")
    parser.add_argument("--png", type=Path, help="draw the fronts")
    asked = parser.parse_args()
    rows: list[Row] = []
    if asked.json and asked.json.exists():
        rows = msgspec.json.decode(asked.json.read_bytes(), type=list[Row])
    known = {(row.case, row.start_s, row.rule, row.knob) for row in rows}
    wanted = [rule for rule in RULES if not asked.rules or rule[0] in asked.rules.split(",")]
    wanted = [rule for rule in wanted if rule[2] or not asked.defaults]
    for name, make in CASES.items():
        if asked.only and asked.only not in name:
            continue
        case: Case | None = None
        for start_s in map(float, asked.starts.split(",")):
            for rule in wanted:
                if (name, start_s, rule[0], rule[1]) in known:
                    continue
                case = case or make()
                rows.append(run(case, start_s, rule))
                said = rows[-1]
                print(f"{name:<22}{start_s:>5.0f} s  {rule[0]:<20}{rule[1]:<14}"
                      f"{said.attained:>8.2%}{said.replica_hours:>9.2f} h{said.took_s:>7.1f} s",
                      flush=True)  # fmt: skip
                if asked.json:
                    asked.json.write_bytes(msgspec.json.encode(rows))
    print_markdown(rows) if asked.markdown else print_table(rows)
    if asked.png:
        draw(rows, asked.png)


if __name__ == "__main__":
    main()
