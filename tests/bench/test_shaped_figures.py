"""What the study over a shaped link makes of its curves."""

import pytest

from bench.training.shaped_figures import loss_at, per_token, seconds_to, way_of

CURVE = [[0.0, 0, 8.0], [10.0, 1000, 7.0], [20.0, 2000, 6.0]]


def test_a_way_is_written_as_blocks_and_what_is_unlike_the_islands():
    way = way_of("48:all,lr=0.003,fp16")
    assert (way.blocks, way.is_all, way.lr, way.is_halved) == (48, True, 0.003, True)
    plain = way_of("16")
    assert (plain.blocks, plain.is_all, plain.lr, plain.is_halved) == (16, False, None, False)


def test_the_loss_at_a_time_is_that_of_the_last_point_before_it():
    assert loss_at(CURVE, 19.0) == 7.0
    assert loss_at(CURVE, 20.0) == 6.0


def test_the_seconds_to_a_loss_lie_between_two_points_or_are_not_known():
    assert seconds_to(CURVE, 6.5) == pytest.approx(15.0)
    assert seconds_to(CURVE, 7.5) == pytest.approx(5.0)
    assert seconds_to(CURVE, 5.9) is None


def test_bytes_per_token_are_of_one_link_over_the_tokens_of_all():
    links = {
        "amber": {"up": 512, "down": 0},
        "basalt": {"up": 0, "down": 1536},
        "syncer": {"up": 9},
    }
    assert per_token(links, 2) == 2.0
