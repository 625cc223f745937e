#!/usr/bin/env python3
"""Counts the words of {"text": "…"}: args come as JSON on standard input, the result goes as JSON to standard output."""

import json
import sys

args = json.load(sys.stdin)
if not isinstance(args.get("text"), str):
    # Kept as the log tail of the attempt. An exit code other than 0 and 75 fails the job: a retry would not help.
    sys.exit("`text` is missing, or is not a string")
json.dump({"words": len(args["text"].split())}, sys.stdout)
