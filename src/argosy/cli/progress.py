"""What `argosy up` says on stderr while replicas come and go."""

from collections.abc import Callable

from argosy.fleet.messages import Replica, ReplicaState, ReplicaTable


class Progress:
    """Says what each replica has come to, once per change."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._states: dict[str, ReplicaState] = {}
        self._failing: set[str] = set()  # those that died and were not ready since

    def show(self, table: ReplicaTable) -> None:
        """One line for each replica whose state is new; a first death with all of its reason."""
        for replica in table.replicas:
            if self._states.get(replica.name) != replica.state:
                self._states[replica.name] = replica.state
                self._say(f"{replica.name}  {replica.state}{self._why(replica)}")
        for name in self._states.keys() - {replica.name for replica in table.replicas}:
            del self._states[name]
            self._say(f"{name}  gone")

    def _why(self, replica: Replica) -> str:
        match replica.state:
            case "ready":
                self._failing.discard(replica.name)
            case "suspect" | "stopping":
                return f"  ({replica.reason})"
            case "dead":
                is_again = replica.name in self._failing
                self._failing.add(replica.name)
                # Its last line says when it is tried again; what it said before was said once.
                reason = replica.reason.splitlines()[-1] if is_again else replica.reason
                return f"  ({'again; ' if is_again else ''}{reason})"
        return ""
