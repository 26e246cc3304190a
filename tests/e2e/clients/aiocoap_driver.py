"""Calls functions with aiocoap: a JSON object a line in, one a line out."""

import asyncio
import json
import sys

import aiocoap
from aiocoap.numbers.codes import Code


async def call(context, question):
    request = aiocoap.Message(
        code=getattr(Code, question["method"]),
        uri=question["url"],
        payload=bytes.fromhex(question["payload"]),
        transport_tuning=aiocoap.Reliable if question.get("confirmable", True) else aiocoap.Unreliable,
    )
    if question.get("content_format") is not None:
        request.opt.content_format = question["content_format"]
    response = await asyncio.wait_for(context.request(request).response, 20)
    content_format = response.opt.content_format
    return {
        "code": response.code.dotted,
        "payload": response.payload.hex(),
        "content_format": None if content_format is None else int(content_format),
        "max_age": response.opt.max_age,
    }


async def main():
    context = await aiocoap.Context.create_client_context()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            answer = await call(context, json.loads(line))
        except Exception as error:
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)
    await context.shutdown()


asyncio.run(main())
