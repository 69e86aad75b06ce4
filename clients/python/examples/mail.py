"""A worker: python mail.py URL PROJECT TOKEN"""

import asyncio
import logging
import sys

import perigee


def send(params, call):
    if not params["to"]:
        raise ValueError("to is required")
    return {"sent": params["to"], "by": call.auth.get("id")}


async def later(params, call):
    print("later: begun", flush=True)
    try:
        await asyncio.sleep(params["seconds"])
    except asyncio.CancelledError:
        print("later: cancelled", flush=True)
        raise
    return {"left": call.time_left()}


logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
url, project, token = sys.argv[1:]
try:
    perigee.connect(url, project=project, token=token).worker("mail", {"send": send, "later": later}).serve()
except perigee.ConnectionEnded as error:
    sys.exit(str(error))
