#!/usr/bin/env python3
"""Derives fields.txt, the table of protobuf fields of Kubernetes' API, from three published sources:

  field numbers and types    the crate k8s-pb (its prost attributes), 0.9.0
  names in JSON              the JSON schemas in the Python package kubernetes-validate, 1.37.0
  which zeros mean something the Go types of Kubernetes 1.20 (Debian's source package kubernetes): pointers, and `omitempty`

Usage: derive.py K8S_PB_SRC DEFINITIONS_JSON GO_STAGING > fields.txt
  e.g. derive.py k8s-pb-0.9.0/src kubernetes-json-schema/v1.37.0-local/_definitions.json staging/src/k8s.io

Only facts of the wire format are taken: numbers, names, types.
"""

import json
import pathlib
import re
import sys

PACKAGES = [  # module in k8s-pb, prefix in the definitions, group, version
    ("api/core/v1", "io.k8s.api.core.v1.", "", "v1"),
    ("api/apps/v1", "io.k8s.api.apps.v1.", "apps", "v1"),
    ("api/batch/v1", "io.k8s.api.batch.v1.", "batch", "v1"),
    ("api/autoscaling/v1", "io.k8s.api.autoscaling.v1.", "autoscaling", "v1"),
    ("api/autoscaling/v2", "io.k8s.api.autoscaling.v2.", "autoscaling", "v2"),
    ("api/networking/v1", "io.k8s.api.networking.v1.", "networking.k8s.io", "v1"),
    ("api/discovery/v1", "io.k8s.api.discovery.v1.", "discovery.k8s.io", "v1"),
    ("api/rbac/v1", "io.k8s.api.rbac.v1.", "rbac.authorization.k8s.io", "v1"),
    ("api/coordination/v1", "io.k8s.api.coordination.v1.", "coordination.k8s.io", "v1"),
    ("api/policy/v1", "io.k8s.api.policy.v1.", "policy", "v1"),
    ("api/storage/v1", "io.k8s.api.storage.v1.", "storage.k8s.io", "v1"),
    ("api/scheduling/v1", "io.k8s.api.scheduling.v1.", "scheduling.k8s.io", "v1"),
    ("api/certificates/v1", "io.k8s.api.certificates.v1.", "certificates.k8s.io", "v1"),
    ("api/authentication/v1", "io.k8s.api.authentication.v1.", "authentication.k8s.io", "v1"),
    ("api/authorization/v1", "io.k8s.api.authorization.v1.", "authorization.k8s.io", "v1"),
    ("api/events/v1", "io.k8s.api.events.v1.", "events.k8s.io", "v1"),
    ("apimachinery/pkg/apis/meta/v1", "io.k8s.apimachinery.pkg.apis.meta.v1.", "meta.k8s.io", "v1"),
]
SPECIAL = {"Time": "T", "MicroTime": "M", "Quantity": "q", "IntOrString": "x", "RawExtension": "r", "FieldsV1": "r"}
# Named lists, which protobuf wraps into a message of their own and JSON does not.
LISTS = {"ExtraValue"}
# Messages whose fields JSON writes into the object around them.
INLINE = {"LocalObjectReference", "EphemeralContainerCommon", "ProbeHandler", "IngressRuleValue", "PersistentVolumeSource", "VolumeSource"}
# Parts whose emptiness says nothing: every object has them.
PARTS = {"metadata", "spec", "status", "template"}
# Roots beside everything that has metadata.
ROOTS = {"DeleteOptions", "Status"}

pb, definitions, staging = pathlib.Path(sys.argv[1]), json.load(open(sys.argv[2])), pathlib.Path(sys.argv[3])
PROPER = {name.lower(): name.rsplit(".", 1)[1] for name in definitions["$defs"]}
definitions = {name.lower(): schema for name, schema in definitions["$defs"].items()}


def bare(name):
    return name.replace("_", "").replace("r#", "").lower()


def short(group, version):
    return f"{group}/{version}" if group else version


def proper(prefix, name):
    """The name as Kubernetes writes it: HTTPGetAction, where Rust has HttpGetAction."""
    return PROPER.get((prefix + name).lower(), name)


def messages(module):
    """Messages of a module: name -> [(number, field, kind, type, repeated, map)]"""
    text = (pb / module / "mod.rs").read_text()
    found = {}
    for name, body in re.findall(r"^pub struct (\w+) \{\n(.*?)^\}", text, re.M | re.S):
        fields = []
        for attribute, field, of in re.findall(r"#\[prost\(([^\]]*?)\)\]\s+pub ([\w#]+):\s+(.*?),\s*\n(?=\s*(?:///|#\[|$))", body, re.S):
            number = int(re.search(r'tag = "(\d+)"', attribute).group(1))
            mapped = re.search(r'map = "string, (\w+)"', attribute)
            kind = mapped.group(1) if mapped else re.match(r"(\w+)", attribute).group(1)
            message = re.search(r"((?:super::|crate::|self::)[\w:]+|\b[A-Z]\w+),?>*$", re.sub(r"\s", "", of))
            path = message.group(1) if message else ""
            fields.append((number, field, kind, path, "repeated" in attribute, bool(mapped)))
        found[name] = fields
    for name in re.findall(r"^pub struct (\w+) \{\}", text, re.M):
        found.setdefault(name, [])
    return found


def go_flags():
    """(group directory, type, JSON name) -> whether a zero is written in JSON."""
    flags = {}
    files = list(staging.glob("api/*/*/types.go")) + list(staging.glob("apimachinery/pkg/apis/meta/v1/types.go"))
    # A type that was not yet in v1 then is looked up in its beta.
    for path in sorted(files, key=lambda p: (p.parent.name != "v1", p.parent.name)):
        group = path.parent.parent.name
        text = re.sub(r"^\s*//.*$", "", path.read_text(), flags=re.M)
        for name, body in re.findall(r"^type (\w+) struct \{\n(.*?)^\}", text, re.M | re.S):
            for field, of, tag in re.findall(r"^\t(\w+)\s+(\S+)\s+`json:\"([^\"]*)\"", body, re.M):
                json_name = tag.split(",")[0]
                if json_name:
                    flags.setdefault((group, name.lower(), json_name), of.startswith("*") or "omitempty" not in tag)
    return flags


FLAGS = go_flags()
ANY_NAME = {bare(p): p for d in definitions.values() for p in d.get("properties", {})}
BY_PATH = {module: (messages(module), prefix, group, version) for module, prefix, group, version in PACKAGES}


def resolve(module, path):
    """The message that a Rust path means: special letter, or (module, name)."""
    name = path.split("::")[-1]
    if name in SPECIAL:
        return SPECIAL[name]
    if "::" not in path:
        return (module, name)
    parts = path.split("::")
    base = module.split("/")
    if parts[0] == "crate":
        base, parts = [], parts[1:]
    while parts[0] in ("super", "self"):
        base = base[:-1] if parts[0] == "super" else base
        parts = parts[1:]
    return ("/".join(base + parts[:-1]), name)


def keeps(module, message, name, kind):
    group = module.split("/")[-2]
    known = FLAGS.get((group, message.lower(), name))
    if known is not None:
        return known and not (kind == "message" and name in PARTS)
    if kind == "message":
        return name not in PARTS
    return kind in ("int32", "int64", "bool", "double") and name != "observedGeneration"


def line(module, message):
    table, prefix, group, version = BY_PATH[module]
    properties = definitions.get((prefix + message).lower(), {}).get("properties", {})
    # A message that JSON does not know by itself is part of others.
    names = {bare(p): p for p in properties} or ANY_NAME
    out, needs = [], []
    for number, field, kind, path, repeated, mapped in sorted(table[message]):
        name = names.get(bare(field))
        of = {"string": "s", "bool": "b", "int32": "i", "int64": "i", "uint32": "i", "double": "d", "bytes": "y"}.get(kind)
        inline = False
        if kind == "message":
            target = resolve(module, path)
            if isinstance(target, str):
                of = target
            elif target[1] in LISTS:
                of = "l"
            else:
                if target[0] not in BY_PATH:
                    sys.exit(f"{module} {message}.{field}: unknown module {target}")
                if name is None and target[1] not in INLINE:
                    sys.stderr.write(f"gone: {module} {message}.{field}\n")
                    continue
                inline = name is None
                needs.append(target)
                where = BY_PATH[target[0]]
                of = ("" if target[0] == module else short(where[2], where[3])) + "." + proper(where[1], target[1])
        if name is None and not inline:
            # Gone from the schemas since, or not part of the published ones.
            head, *rest = field.split("_")
            name = head + "".join(part.capitalize() for part in rest)
            sys.stderr.write(f"guessed {module} {message}.{name}\n")
        flags = ("*" if repeated else "") + ("%" if mapped else "") + ("^" if inline else "")
        if not (repeated or mapped or inline) and keeps(module, message, name, kind):
            flags += "!"
        out.append(f"{number}{flags}{name or ''}:{of}")
    missing = set(properties) - {t.split(":")[0].lstrip("0123456789*%^!") for t in out} - {"apiVersion", "kind"}
    if missing and "^" not in " ".join(out):
        sys.stderr.write(f"no number for {module} {message}: {sorted(missing)}\n")
    return f"{short(group, version)}.{proper(prefix, message)} " + " ".join(out), needs


def main():
    todo, done = [], {}
    for module, (table, *_rest) in BY_PATH.items():
        for name, fields in table.items():
            has_metadata = any(f[1] == "metadata" for f in fields) and not any(f[1] == "items" and f[4] for f in fields)
            if has_metadata or name in ROOTS:
                todo.append((module, name))
    while todo:
        at = todo.pop()
        if at not in done:
            done[at], needs = line(*at)
            todo.extend(needs)
    print("# Protobuf fields of Kubernetes' API, made by derive.py beside this file; do not edit.")
    print("# group/version.Message, then per field: number, flags (* list, % map of text, ^ fields of the message itself,")
    print("# ! a zero is kept), name in JSON, ':' type (s text, b boolean, i integer, d double, y bytes, T time, M time with")
    print("# microseconds, q quantity, x integer or text, r raw JSON, l wrapped list of texts, or a message).")
    for text in sorted(done.values()):
        print(text)


main()
