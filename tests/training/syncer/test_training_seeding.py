"""Version 0 of the parameters: who sends it has it."""

from tests.training.syncer.running_run import a_run


def test_the_island_that_sends_the_first_parameters_fetches_none_of_them(start):
    running = start(a_run(blocks=40, islands=("ann",)))
    running.syncer()
    ann = running.island("ann")
    assert ann.end() == 0, ann.tail()
    whole = (running.folder / "syncer" / "final" / "parameters.f32").stat().st_size
    assert ann.outcome["bytes_up"] > whole
    assert 0 < ann.outcome["bytes_down"] < whole / 2, "an update of 4 bits and no more"
