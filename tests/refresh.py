"""Calls GetCallerIdentity with one boto3 client until its credentials have changed twice; prints what it saw."""

import json
import time

import boto3

session = boto3.Session(region_name="eu-central-1")
client = session.client("sts")
keys, arns, calls = [], set(), 0
deadline = time.monotonic() + 120
while len(keys) < 3:
    assert time.monotonic() < deadline, keys
    arns.add(client.get_caller_identity()["Arn"])
    calls += 1
    key = session.get_credentials().get_frozen_credentials().access_key
    if key not in keys:
        keys.append(key)
    time.sleep(0.1)
print(json.dumps({"keys": keys, "arns": sorted(arns), "calls": calls}))
