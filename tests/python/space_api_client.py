"""Runs the predecessor's client, as it is, and prints what it is told.

space_api_client.py ADDRESS PROJECT TOKEN
"""

import json
import os
import sys
import threading
import time

from space_api import API, AND, COND

address, project, token = sys.argv[1:]
# The client prints what it thinks of its life.
output, sys.stdout = sys.stdout, sys.stderr


def told(response):
    return {"status": response.status, "error": response.error, "result": response.result}


api = API(project, address)
anonymous = api.postgres().get("secret").apply()
api.set_token(token)
db = api.postgres()
rows = {}
rows["insert"] = told(db.insert("todos").doc({"id": "a", "owner": "py", "n": 1}).apply())
rows["docs"] = told(db.insert("todos").docs([{"id": x, "owner": "py", "n": n} for x, n in [("b", 2), ("c", 3)]]).apply())
rows["sorted"] = told(db.get("todos").where(COND("n", ">", 1)).sort("-n").select({"id": 1, "n": 1}).limit(2).apply())
rows["update"] = told(db.update("todos").where(COND("id", "==", "a")).set({"n": 7}).apply())
rows["one"] = told(db.get_one("todos").where(COND("id", "==", "a")).apply())
rows["missing"] = told(db.get_one("todos").where(COND("id", "==", "none")).apply())
batch = db.begin_batch()
batch.add(db.insert("todos").doc({"id": "d", "owner": "py", "n": 4}))
batch.add(db.delete("todos").where(COND("id", "==", "b")))
rows["batch"] = told(batch.apply())
rows["delete"] = told(db.delete("todos").where(AND(COND("id", "==", "c"))).apply())
rows["left"] = told(db.get("todos").sort("id").apply())
rows["unknown"] = told(db.get("nothing").apply())

# A live query: what it is told, until it has seen all of it.
seen, news = [], threading.Condition()


def on_snapshot(docs, change):
    with news:
        seen.append({"type": change, "ids": sorted(doc["id"] for doc in docs)})
        news.notify()


def wait(count):
    with news:
        if not news.wait_for(lambda: len(seen) >= count, timeout=30):
            raise SystemExit(f"no {count} snapshots: {seen}")


errors = []
unsubscribe = db.live_query("todos").where(COND("owner", "==", "py")).subscribe(on_snapshot, errors.append)
wait(1)
db.insert("todos").doc({"id": "e", "owner": "py", "n": 5}).apply()
wait(2)
db.delete("todos").where(COND("id", "==", "a")).apply()
wait(3)
unsubscribe()
refused, is_refused = [], threading.Event()
API(project, address).postgres().live_query("secret").subscribe(
    lambda *_: None, lambda error: (refused.append(error), is_refused.set())
)
if not is_refused.wait(30):
    raise SystemExit("the live query of a table that may not be read is not refused")

# A worker, whose start does not return.
service = api.service("mail")
service.register_func("send", lambda params, auth, answer: answer("response", {"sent": params["to"], "by": auth.get("id")}))
threading.Thread(target=service.start, daemon=True).start()
until = time.monotonic() + 30
while (call := api.call("mail", "send", {"to": "x"})).status == 503 and time.monotonic() < until:
    time.sleep(0.05)
calls = {"send": told(call), "missing": told(api.call("mail", "missing", {}))}

output.write(json.dumps({"anonymous": told(anonymous), "rows": rows, "seen": seen, "errors": errors, "refused": refused, "calls": calls}))
output.flush()
# Threads of the client go on for ever.
os._exit(0)
