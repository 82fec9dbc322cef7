"""What a plan's reader is told of the size of its engines' steps."""

from msgspec.structs import replace

from argosy.cli.planning import pages
from argosy.cli.planning.html import plan_html
from argosy.cli.planning.sums import report_of
from argosy.planner.plan import Plan
from tests.planner.played import problem
from tests.planner.two_clouds import solving


def test_the_steps_that_the_rates_are_of_are_in_the_report_the_table_and_the_page(capsys):
    asked = problem()
    options = tuple(replace(one, prefill_tokens_max=1024) for one in asked.options)
    plan = solving()(replace(asked, options=options))
    assert isinstance(plan, Plan)
    report = report_of(plan, fleet="small", demand="the fleet file's")
    assert {row.prefill_tokens_max for row in report.replicas} == {1024}
    pages.print_plan(report)
    assert "STEP" in capsys.readouterr().out
    assert "vllm, 1024 tokens a step" in plan_html(report)


def test_steps_that_are_as_the_fleet_has_them_are_not_told():
    plan = solving()(problem())
    assert isinstance(plan, Plan)
    report = report_of(plan, fleet="small", demand="the fleet file's")
    assert {pages.step(row) for row in report.replicas} == {""}
    assert "tokens a step" not in plan_html(report)
