"""Certificates of a run that lasts longer than they do: renewed in their folders while it runs.

Whoever has one looks at its folder each minute and shows the new one. What was copied to other
hosts is copied again by whoever copied it.
"""

import asyncio
from collections.abc import Callable

from argosy.cli.state import now_s
from argosy.cli.training_folder import KeptRun, RunFolder

_LOOK_S = 60.0


async def keep_renewed(folder: RunFolder, kept: KeptRun, say: Callable[[str], None]) -> None:
    """Those that are past the middle of their time. Until cancelled."""
    from argosy.training.credentials import CredentialsError, renew_due

    islands = [island.name for island in kept.run.islands]
    fault = ""
    while True:
        await asyncio.sleep(_LOOK_S)
        try:
            renewed = await asyncio.to_thread(
                renew_due, folder.credentials, folder.name, islands, now_s=now_s()
            )
        except CredentialsError as error:  # half of their time is left
            if str(error) != fault:
                fault = str(error)
                say(f"certificates are not renewed: {error}")
            continue
        for name in renewed:
            if name in kept.elsewhere:
                say(f"the certificate of {name} was renewed: copy its credentials there again")
