"""Calls GetCallerIdentity with boto3 until its credentials have changed twice; prints what it saw.

One client for all calls; or with --new-clients, one for each: botocore trusts instance metadata for at least two minutes,
however soon it ends.
"""

import json
import sys
import time

import boto3


def connect():
    session = boto3.Session(region_name="eu-central-1")
    return session, session.client("sts")


session, client = connect()
keys, arns, calls = [], set(), 0
deadline = time.monotonic() + 120
while len(keys) < 3:
    assert time.monotonic() < deadline, keys
    if "--new-clients" in sys.argv:
        session, client = connect()
    arns.add(client.get_caller_identity()["Arn"])
    calls += 1
    key = session.get_credentials().get_frozen_credentials().access_key
    if key not in keys:
        keys.append(key)
    time.sleep(0.1)
print(json.dumps({"keys": keys, "arns": sorted(arns), "calls": calls}))
