"""Reads a scrape from standard input as Prometheus does, strictly, and prints its samples as JSON."""

import json
import sys

from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics

text = sys.stdin.read()
families = list(openmetrics.text_string_to_metric_families(text))
# The older format knows the names, the labels and the values as well.
older = {(s.name, *sorted(s.labels.items()), s.value)
         for family in parser.text_string_to_metric_families(text) for s in family.samples}
samples = [s for family in families for s in family.samples]
assert older == {(s.name, *sorted(s.labels.items()), s.value) for s in samples}
print(json.dumps({
    "types": {family.name: family.type for family in families},
    "samples": [[s.name, s.labels, s.value] for s in samples],
}))
