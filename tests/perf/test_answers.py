"""Answers to load tests: bounded by the datasheet, widened where nothing was measured."""

import msgspec
import numpy as np

from argosy.fleet.architectures import architecture
from argosy.fleet.catalogue import chip
from argosy.fleet.layout import Layout
from argosy.perf.answers import answers_shipped
from argosy.perf.case import Case, Part

USUAL = Case(
    model=architecture("Llama-3.1-70B"),
    chip=chip("H200"),
    engine="vllm",
    decode=Part(layout=Layout(tp=4, dtype="fp8", kv_dtype="fp8")),
    input_tokens=1024,
    output_tokens=1024,
    clients=32,
)


def on(name: str) -> Case:
    return msgspec.structs.replace(USUAL, chip=chip(name))


def test_no_answer_is_below_the_roofline() -> None:
    cases = [
        msgspec.structs.replace(on(name), clients=clients)
        for name in ("H100-SXM", "B200", "GB300", "MI300X", "Trainium2")
        for clients in (1, 16, 256)
    ]
    _, floor = answers_shipped().physics(cases)
    answered = np.log([[one.ttft_s, one.tpot_s] for one in answers_shipped().of(cases)])
    assert np.all(answered >= floor - 1e-9)


def test_a_chip_without_deployments_has_a_wider_interval_than_its_measured_sibling() -> None:
    measured, sibling, stranger = answers_shipped().of([on("B200"), on("GB300"), on("Maia-200")])
    assert measured.rung == "end to end"
    assert (sibling.rung, sibling.uncalibrated) == ("spec sheet", True)
    assert measured.interval.tpot_high < sibling.interval.tpot_high < stranger.interval.tpot_high
    assert stranger.uncalibrated


def test_kernel_tables_are_a_rung_of_their_own() -> None:
    (answer,) = answers_shipped().of([on("A100-80GB")])
    assert answer.rung == "kernel tables"
    assert not answer.uncalibrated


def test_prefill_elsewhere_is_answered_too() -> None:
    split = msgspec.structs.replace(USUAL, prefill=Part(layout=Layout(tp=4, dtype="fp8")))
    (answer,) = answers_shipped().of([split])
    assert 0.0 < answer.tpot_s < 1.0
    assert 0.0 < answer.ttft_s < 10.0


def test_the_order_of_questions_does_not_change_answers() -> None:
    cases = [on(name) for name in ("H200", "B200", "MI300X")]
    forward, backward = answers_shipped().of(cases), answers_shipped().of(cases[::-1])
    for one, other in zip(forward, backward[::-1], strict=True):
        assert abs(one.tpot_s / other.tpot_s - 1) < 1e-6
        assert one.rung == other.rung
