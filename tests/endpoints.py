"""Prints where botocore would send CreateSession, as a JSON array: every region of every partition, with and
without FIPS and dual-stack. Names such as aws-global, which do not match the partition's pattern, are no regions."""

import json
import re

from botocore.endpoint_provider import EndpointProvider
from botocore.exceptions import EndpointProviderError
from botocore.session import get_session

loader = get_session().get_component("data_loader")
partitions = loader.load_data("partitions")
rules = loader.load_service_model("rolesanywhere", "endpoint-rule-set-1")
provider = EndpointProvider(rules, partitions)

cases = []
for partition in partitions["partitions"]:
    for region in filter(re.compile(partition["regionRegex"]).match, partition["regions"]):
        for fips in (False, True):
            for dual_stack in (False, True):
                try:
                    url = provider.resolve_endpoint(Region=region, UseFIPS=fips, UseDualStack=dual_stack).url
                except EndpointProviderError as error:
                    url = str(error)
                cases.append(
                    {
                        "partition": partition["id"],
                        "region": region,
                        "fips": fips,
                        "dualStack": dual_stack,
                        "url": url,
                    }
                )
print(json.dumps(cases))
