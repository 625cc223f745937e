#!/usr/bin/env python3
"""Uses the todo routes of the console.

  python3 todo.py list
  python3 todo.py add TEXT
  python3 todo.py done ID | undo ID | delete ID
  python3 todo.py try                adds, reads, changes and deletes one, and checks each answer

CONSOLE is the console's address (http://127.0.0.1:5125), AGENTFORGE_TOKEN a token if it asks for one.
"""

import json
import os
import sys
import urllib.error
import urllib.request

BASE = os.environ.get("CONSOLE", "http://127.0.0.1:5125").rstrip("/")


def call(method, path, body=None):
    """One request: its status, and its JSON answer if it has one."""
    headers = {"content-type": "application/json"}
    if token := os.environ.get("AGENTFORGE_TOKEN"):
        headers["authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(BASE + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            status, text = answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        status, text = refused.code, refused.read()
    return status, json.loads(text) if text else None


def expect(what, found, wanted):
    if found != wanted:
        sys.exit(f"{what}: {found!r} instead of {wanted!r}")


def try_all():
    """Every route, with what clients of the todo application rely on."""
    status, health = call("GET", "/be-health")
    expect("health", (status, health["status"]), (200, "healthy"))
    before = len(call("GET", "/todos")[1])
    status, todo = call("POST", "/todos", {"text": "Try every route"})
    expect("create", (status, todo["text"], todo["status"], todo["updated_at"]), (201, "Try every route", "not-done", None))
    place = f"/todos/{todo['id']}"
    expect("read", call("GET", place), (200, todo))
    for bad in ({}, {"text": ""}, {"text": "a" * 141}, {"text": 7}):
        expect(f"create {bad}", call("POST", "/todos", bad)[0], 422)
    expect("longest", call("PUT", place, {"text": "ü" * 140})[0], 200)
    status, changed = call("PUT", place, {"text": "Tried", "status": "done"})
    expect("change", (status, changed["text"], changed["status"], changed["id"]), (200, "Tried", "done", todo["id"]))
    if not changed["updated_at"]:
        sys.exit("a change has no time")
    expect("undo", call("PUT", place, {"status": "not-done"})[1]["status"], "not-done")
    expect("null leaves it", call("PUT", place, {"text": None, "status": None})[1]["text"], "Tried")
    expect("bad status", call("PUT", place, {"status": "perhaps"})[0], 422)
    expect("list", len(call("GET", "/todos")[1]), before + 1)
    expect("delete", call("DELETE", place), (204, None))
    for method, body in (("GET", None), ("PUT", {"text": "x"}), ("DELETE", None)):
        for missing in (place, "/todos/no-such-id"):
            status, problem = call(method, missing, body)
            expect(f"{method} {missing}", (status, problem["detail"]), (404, "Todo not found"))
    expect("list", len(call("GET", "/todos")[1]), before)
    print("every route answers as it should")


# Command -> method, path and body; `{}` is the command's argument.
COMMANDS = {
    "add": ("POST", "/todos", "text"),
    "done": ("PUT", "/todos/{}", {"status": "done"}),
    "undo": ("PUT", "/todos/{}", {"status": "not-done"}),
    "delete": ("DELETE", "/todos/{}", None),
}


def main():
    command, arguments = (sys.argv[1:2] or [""])[0], sys.argv[2:]
    if command == "list" and not arguments:
        for todo in call("GET", "/todos")[1]:
            print(todo["id"], todo["status"], todo["text"], sep="\t")
        return
    if command == "try" and not arguments:
        try_all()
        return
    if command not in COMMANDS or len(arguments) != 1:
        sys.exit(__doc__)
    method, place, body = COMMANDS[command]
    status, answer = call(method, place.format(arguments[0]), {"text": arguments[0]} if body == "text" else body)
    if status >= 400:
        sys.exit(f"refused: {answer['detail']}")
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
