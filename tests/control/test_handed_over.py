"""What one control plane keeps for the next, and what its parts hear together."""

import asyncio
import random

import msgspec

from argosy.cli.control_plane import SharedHearing
from argosy.control.controller import Controller
from argosy.control.memory import read_kept
from argosy.control.probe import HttpProber
from argosy.policies.lifecycle import Lifecycle
from argosy.policies.lifecycle.views import Peak


def test_how_many_were_ready_of_late_is_known_to_the_next_control_plane():
    async def story() -> None:
        published = []
        controller = Controller(
            publish=published.append, prober=HttpProber(), chance=random.Random(1), unix_s=1_000.0
        )
        peaks = Lifecycle(peaks=(Peak(model="m", until_s=1_050.0, ready=4),))
        kept = read_kept(msgspec.json.encode(peaks), Lifecycle)
        assert kept == peaks
        controller.remember(kept)
        await controller.start([], {})
        assert controller.lifecycle.peaks == peaks.peaks, "a tick later they still hold"
        await controller.stop(0.0)

    asyncio.run(story())


def test_what_another_version_kept_is_no_reason_not_to_lead():
    assert read_kept(None, Lifecycle) is None
    assert read_kept(b'{"peaks": 3}', Lifecycle) is None


def test_all_who_hear_the_gateways_share_one_question():
    async def story() -> None:
        asked, now_s = [], [0.0]

        async def ask():
            asked.append(now_s[0])
            await asyncio.sleep(0.01)
            if len(asked) == 3:
                raise OSError("away")
            return [len(asked)]

        hearing = SharedHearing(ask, lambda: now_s[0])
        assert await asyncio.gather(hearing.hear(), hearing.hear()) == [[1], [1]]
        now_s[0] = 0.5
        assert await hearing.hear() == [1]
        now_s[0] = 1.5
        assert await hearing.hear() == [2]
        now_s[0] = 3.0
        failed = await asyncio.gather(hearing.hear(), hearing.hear(), return_exceptions=True)
        assert [type(one) for one in failed] == [OSError, OSError]
        assert await hearing.hear() == [4], "a failure is not told again"
        waiter = asyncio.create_task(hearing.hear())
        now_s[0] = 9.0
        other = asyncio.create_task(hearing.hear())
        await asyncio.sleep(0)
        waiter.cancel()
        assert await other == [5], "one who hears no more takes nobody's answer away"

    asyncio.run(story())
