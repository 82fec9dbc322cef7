"""What bench.spike makes of what it saw; and that a peer is asked at its own interval."""

from msgspec.structs import replace

from argosy.policies.autoscaling import ScaleState, Settings
from bench.autoscaling import peers
from bench.spike import TUNED, Asking, Phases, Reactive, Standing, arrivals, row_of, told
from tests.policies.scaled_world import World

PHASES = Phases(calm_s=10.0, spike_s=20.0, after_s=5.0)


def test_a_spike_has_five_times_as_many_and_is_the_same_for_the_same_seed():
    phases = Phases(calm_s=1_000.0, spike_s=1_000.0, after_s=1_000.0)
    times = arrivals(3, phases, 2.0)
    counts = [sum(begin <= one < begin + 1_000.0 for one in times) for begin in (0, 1e3, 2e3)]
    assert 1_850 < counts[0] < 2_150
    assert 9_600 < counts[1] < 10_400
    assert 1_850 < counts[2] < 2_150
    assert times == arrivals(3, phases, 2.0) != arrivals(4, phases, 2.0)


def course() -> list[Standing]:
    """One replica; two more are asked for 4 s after the spike's begin and ready 5 s later."""
    found = []
    for tenth in range(350):
        at_s = tenth / 10
        wanted, ready = 1 + 2 * (at_s >= 14.0), 1 + 2 * (at_s >= 19.0)
        found.append(Standing(at_s=at_s, wanted=wanted, ready=ready, paid=wanted))
    return found


def test_times_count_from_the_spikes_begin_and_requests_from_there_on():
    asked = [
        Asking(at_s=9.0, status=503, ttft_s=None),  # of the calm
        Asking(at_s=11.0, status=200, ttft_s=0.1),
        Asking(at_s=12.0, status=200, ttft_s=2.5),
        Asking(at_s=13.0, status=503, ttft_s=None),
        Asking(at_s=33.0, status=None, ttft_s=0.5),
    ]
    row = row_of("argosy", 0, PHASES, asked, course(), 20.0)
    assert (row.asked, row.refused, row.late) == (4, 2, 1)
    assert (row.first_asked_s, row.first_ready_s, row.last_ready_s) == (4.0, 9.0, 9.0)
    assert (row.replicas_before, row.replicas_max) == (1, 3)
    assert abs(row.replica_s - (14 + 3 * 21)) < 0.5
    assert row.is_in_time
    assert row.course == ((4.0, 3),)
    assert "| argosy | 1 of 1 | 50.0% | 25.0% | 4.0 s | 9.0 s | 9.0 s | 3 | 77 (1.00) |" in told(
        [row]
    )


class Counting(peers.Peer):
    every_s = 15.0
    times = 0

    def wanted(self, view) -> int:
        self.times += 1
        return self.times


def test_a_peer_is_asked_at_its_own_interval_and_its_word_holds_until_then():
    world = World()
    world.run(5.0, 10.0)
    view, rule = world.told[-1].view, Reactive(Counting(TUNED))
    said = [
        rule(ScaleState(), replace(view, now_s=float(at_s)), Settings())[1].targets[0].replicas
        for at_s in range(31)
    ]
    assert said == [1] * 15 + [2] * 15 + [3]
