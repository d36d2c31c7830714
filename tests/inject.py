"""Evaluates the expressions of packaging/kubernetes/inject on pods, with cel-python, and compares the mutated pods: inject.py FILE.

Kubernetes' typed objects (`Object.spec{…}`) become maps for that. Their names must be those of the fields' places, as Kubernetes wants it.
"""

import copy, json, re, sys

import celpy, celpy.adapter, yaml

KEYS = {"containers": "name", "initContainers": "name", "env": "name", "volumes": "name", "volumeMounts": "mountPath"}


def evaluate(text, variables):
    """The value as JSON. `Object.spec.volumes{name: v}` is read as `{"": "Object.spec.volumes", "name": v}`."""
    text = re.sub(r"\b(Object[\w.]*|JSONPatch)\{\s*\}", r'{"": "\1"}', text)
    text = re.sub(r"\b(Object[\w.]*|JSONPatch)\{", r'{"": "\1", ', text)
    text = re.sub(r"([{,]\s*)([a-zA-Z]+):(?=\s)", r'\1"\2":', text)
    environment = celpy.Environment()
    value = environment.program(environment.compile(text)).evaluate(variables)
    return json.loads(json.dumps(value, cls=celpy.CELJSONEncoder))


def untyped(value, place):
    """Without the names of types, each of which must be the place of its object."""
    if isinstance(value, list):
        return [untyped(item, place) for item in value]
    if not isinstance(value, dict):
        return value
    assert value.get("", place) == place, f"{value['']} at {place}"
    return {key: untyped(item, f"{place}.{key}") for key, item in value.items() if key}


def merge(live, patch):
    """As a server-side apply does: maps by field, these lists by key. All others are atomic, and refused."""
    for field, value in patch.items():
        if isinstance(value, dict):
            merge(live.setdefault(field, {}), value)
        elif isinstance(value, list):
            for item in value:
                key = KEYS[field]
                same = [one for one in live.setdefault(field, []) if one[key] == item[key]]
                merge(same[0], item) if same else live[field].append(copy.deepcopy(item))
        else:
            live[field] = value


def mutate(policy, pod, service_account):
    pod, spec = copy.deepcopy(pod), policy["spec"]
    cel = celpy.json_to_cel
    variables = lambda: {"object": cel(pod), "params": cel(service_account), "variables": cel(named)}
    named = {}
    if not all(evaluate(condition["expression"], variables()) for condition in spec["matchConditions"]):
        return pod
    for variable in spec["variables"]:
        named[variable["name"]] = evaluate(variable["expression"], variables())
    for mutation in spec["mutations"]:
        if mutation["patchType"] == "ApplyConfiguration":
            merge(pod, untyped(evaluate(mutation["applyConfiguration"]["expression"], variables()), "Object"))
            continue
        for patch in evaluate(mutation["jsonPatch"]["expression"], variables()):
            assert patch[""] == "JSONPatch" and patch["op"] == "add"
            if patch["path"] == "/spec/volumes":
                pod["spec"]["volumes"] = patch["value"]
            else:
                assert patch["path"] == "/spec/volumes/-"
                pod["spec"]["volumes"].append(untyped(patch["value"], "Object.spec.volumes"))
    return pod


with open(sys.argv[1]) as file:
    policy = next(one for one in yaml.safe_load_all(file) if one["kind"] == "MutatingAdmissionPolicy")
URL = "http://169.254.170.23:9911/v1/credentials"
TOKEN = {"name": "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "value": "/var/run/secrets/roleseal/token"}
MOUNT = {"name": "roleseal-token", "mountPath": "/var/run/secrets/roleseal", "readOnly": True}
SOURCE = {"serviceAccountToken": {"audience": "roleseal", "expirationSeconds": 3600, "path": "token"}}
VOLUME = {"name": "roleseal-token", "projected": {"sources": [SOURCE]}}
environment = lambda url: [{"name": "AWS_CONTAINER_CREDENTIALS_FULL_URI", "value": url}, TOKEN]
api = {"metadata": {"name": "api"}}
web = {"metadata": {"name": "api", "annotations": {"roleseal.org/target": "web"}}}
plain = {"spec": {"serviceAccountName": "api", "containers": [{"name": "a"}]}}
rich = {"spec": {
    "serviceAccountName": "api",
    "volumes": [{"name": "data", "emptyDir": {}}],
    "initContainers": [{"name": "i"}],
    "containers": [
        {"name": "a", "env": [{"name": "X", "value": "1"}], "volumeMounts": [{"name": "data", "mountPath": "/data"}]},
        {"name": "b", "env": [{"name": "AWS_CONTAINER_CREDENTIALS_FULL_URI", "value": "http://127.0.0.1/"}]},
    ],
}}

static = {"spec": {"containers": [{"name": "a"}]}}
assert mutate(policy, static, api) == static
assert mutate(policy, plain, {"metadata": {"name": "other"}}) == plain
assert mutate(policy, plain, api) == {"spec": {
    "serviceAccountName": "api",
    "volumes": [VOLUME],
    "containers": [{"name": "a", "env": environment(URL), "volumeMounts": [MOUNT]}],
}}
mutated = mutate(policy, rich, web)
expected = copy.deepcopy(rich)
expected["spec"]["volumes"].append(VOLUME)
expected["spec"]["initContainers"][0] |= {"env": environment(URL + "/web"), "volumeMounts": [MOUNT]}
expected["spec"]["containers"][0]["env"] += environment(URL + "/web")
expected["spec"]["containers"][0]["volumeMounts"] += [MOUNT]
assert mutated == expected, mutated
# A second evaluation, after another policy, changes nothing.
assert mutate(policy, mutated, web) == mutated
