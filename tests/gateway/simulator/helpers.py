"""Chat requests, and streams taken apart."""

import json


def chat(model_name="gpt-4o", text="What is a penstock?", **fields):
    return {"model": model_name, "messages": [{"role": "user", "content": text}], **fields}


def streamed(model_name="gpt-4o", *, usage=True, **fields):
    options = {"stream_options": {"include_usage": True}} if usage else {}
    return chat(model_name, stream=True, **options, **fields)


def events(body):
    """The data of every event; the last is the string `[DONE]` where it came."""
    datas = [part.removeprefix("data: ") for part in body.decode().split("\n\n") if part]
    return [data if data == "[DONE]" else json.loads(data) for data in datas]


def text_of(chunks):
    deltas = [choice["delta"] for chunk in chunks if chunk != "[DONE]" for choice in chunk["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


def usages(chunks):
    return [chunk["usage"] for chunk in chunks if chunk != "[DONE]" and chunk.get("usage")]


async def ask(client, body):
    """Status, headers and the whole body of one chat completion."""
    async with client.post("/v1/chat/completions", json=body, allow_redirects=False) as answer:
        return answer.status, answer.headers, await answer.read()


async def ended(simulator, count=1):
    """The journal's last line of a call, once `count` calls have ended."""
    await simulator.journal.until(lambda journal: len(journal.ended()) >= count)
    return simulator.journal.ended()[-1]
