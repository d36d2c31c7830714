"""Holds the pods of rendered manifests against the Pod Security Standard `restricted`: restricted.py FILE...

In a namespace with another label, the node's network and host paths are permitted, and nothing else. Prints each violation.
"""

import sys

import yaml

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
LABEL = "pod-security.kubernetes.io/enforce"


def pod_of(one):
    spec = one.get("spec", {})
    return spec if one["kind"] == "Pod" else spec.get("template", {}).get("spec")


def violations(pod, restricted):
    of_pod = pod.get("securityContext", {})
    hosts = {"hostPID", "hostIPC"} | ({"hostNetwork"} if restricted else set())
    yield from (name for name in sorted(hosts & pod.keys()))
    permitted = VOLUMES if restricted else VOLUMES | {"hostPath"}
    for volume in pod.get("volumes", []):
        yield from (f"volume {volume['name']}: {kind}" for kind in volume.keys() - {"name"} - permitted)
    for container in pod.get("initContainers", []) + pod["containers"]:
        own = container.get("securityContext", {})
        both, name = of_pod | own, container["name"]
        if both.get("runAsNonRoot") is not True or both.get("runAsUser") == 0:
            yield f"{name}: may run as root"
        if both.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            yield f"{name}: no seccomp profile"
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            yield f"{name}: may escalate"
        if own.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{name}: has capabilities"
        if restricted and any("hostPort" in port for port in container.get("ports", [])):
            yield f"{name}: has a port of the host"


found = False
for path in sys.argv[1:]:
    with open(path) as file:
        objects = [one for one in yaml.safe_load_all(file) if one]
    labels = {one["metadata"]["name"]: one["metadata"]["labels"].get(LABEL) for one in objects if one["kind"] == "Namespace"}
    for one in objects:
        if pod := pod_of(one):
            level = labels.get(one["metadata"]["namespace"], "privileged")
            for violation in violations(pod, level == "restricted"):
                found = True
                print(f"{path}: {one['kind']} {one['metadata']['name']}, {level}: {violation}")
sys.exit(found)
