"""A hundred questions that can wait, through both SDKs: `argosy up examples/simulated.yaml`, then

ARGOSY_API_KEY=argosy-… .venv/bin/python examples/batch.py http://127.0.0.1:8000 small
"""  # noqa: D400, D415

import json
import os
import sys
import time

import anthropic
import openai

URL, MODEL = sys.argv[1:]
KEY = os.environ["ARGOSY_API_KEY"]
QUESTIONS = [f"What is {number} plus {number}?" for number in range(50)]


def main() -> None:
    """Ask, wait, print."""
    with openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY) as client:
        ask_as_openai(client)
    with anthropic.Anthropic(base_url=URL, api_key=KEY) as client:
        ask_as_anthropic(client)


def ask_as_openai(client: openai.OpenAI) -> None:
    """A file of requests, a batch, a file of answers."""
    lines = [
        {
            "custom_id": f"question-{index}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": request(question),
        }
        for index, question in enumerate(QUESTIONS)
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    file = client.files.create(file=("questions.jsonl", content), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    while batch.status not in ("completed", "failed", "expired", "cancelled"):
        time.sleep(1)
        batch = client.batches.retrieve(batch.id)
    say(f"{batch.id}: {batch.status}, {batch.request_counts}")
    if batch.output_file_id:
        first = json.loads(client.files.content(batch.output_file_id).text.splitlines()[0])
        say(f"{first['custom_id']}: {first['response']['body']['choices'][0]['message']}")


def ask_as_anthropic(client: anthropic.Anthropic) -> None:
    """Requests in the body, answers as a stream of lines."""
    batch = client.messages.batches.create(
        requests=[
            {"custom_id": f"question-{index}", "params": request(question)}
            for index, question in enumerate(QUESTIONS)
        ]
    )
    while batch.processing_status != "ended":
        time.sleep(1)
        batch = client.messages.batches.retrieve(batch.id)
    say(f"{batch.id}: {batch.processing_status}, {batch.request_counts}")
    for entry in client.messages.batches.results(batch.id):
        say(f"{entry.custom_id}: {entry.result}")
        break


def request(question: str) -> dict:
    """What both APIs call the same."""
    message = {"role": "user", "content": question}
    return {"model": MODEL, "max_tokens": 32, "messages": [message]}


def say(text: str) -> None:
    """A line to the terminal."""
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
