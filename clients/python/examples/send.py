import os
import sys

import perigee


async def send(params, call):
    if not params.get("to"):
        raise ValueError("to is required")
    return {"sent": params["to"]}


url = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:4122"
client = perigee.connect(url, project="shop", token=os.environ.get("TOKEN", ""))
client.worker("mail", {"send": send}).serve()
