"""The official Python client against a server: what scripts do with it. Ends with an error at the first thing that is not as it should be.

Run by tests/clients/mod.rs with KUBECONFIG set and a simulated host; not a test runner of its own.
"""

import threading
import time

from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.rest import ApiException
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock
from kubernetes.stream import portforward, stream

config.load_kube_config()
core, apps, batch = client.CoreV1Api(), client.AppsV1Api(), client.BatchV1Api()
SPACE = "python"


def eventually(what, look, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {what}")


def refused(status, reason, call):
    try:
        call()
    except ApiException as e:
        assert e.status == status and reason in e.body, f"{e.status} {e.body}"
    else:
        raise AssertionError(f"{reason} was expected")


def pod(name, image="sim/web:1"):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "main", "image": image}]},
    }


def the_basics():
    version = client.VersionApi().get_code()
    assert version.major == "1", version
    core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=SPACE)))
    made = core.create_namespaced_config_map(SPACE, client.V1ConfigMap(metadata={"name": "a", "labels": {"x": "y"}}, data={"k": "v"}))
    assert made.metadata.uid and made.metadata.resource_version
    refused(409, "AlreadyExists", lambda: core.create_namespaced_config_map(SPACE, {"metadata": {"name": "a"}}))
    refused(404, "NotFound", lambda: core.read_namespaced_config_map("none", SPACE))
    refused(422, "Invalid", lambda: core.create_namespaced_config_map(SPACE, {"metadata": {"name": "No_Good"}}))
    made.metadata.creation_timestamp = None
    made.data["k"] = "w"
    newer = core.replace_namespaced_config_map("a", SPACE, made)
    refused(409, "Conflict", lambda: core.replace_namespaced_config_map("a", SPACE, made))
    assert newer.metadata.resource_version != made.metadata.resource_version
    patched = core.patch_namespaced_config_map("a", SPACE, {"data": {"l": "m"}})
    assert patched.data == {"k": "w", "l": "m"}, patched.data
    patched = core.patch_namespaced_config_map("a", SPACE, [{"op": "remove", "path": "/data/l"}])
    assert patched.data == {"k": "w"}, patched.data
    for n in range(25):
        core.create_namespaced_config_map(SPACE, {"metadata": {"generateName": "many-", "labels": {"many": "yes"}}})
    names, token = [], None
    while True:
        page = core.list_namespaced_config_map(SPACE, label_selector="many=yes", limit=10, _continue=token)
        names += [i.metadata.name for i in page.items]
        token = page.metadata._continue
        if not token:
            break
    assert len(set(names)) == 25, names
    gone = core.delete_collection_namespaced_config_map(SPACE, label_selector="many=yes")
    assert len(core.list_namespaced_config_map(SPACE, label_selector="many=yes").items) == 0, gone


def watching():
    seen, ready = [], threading.Event()

    def look():
        w = watch.Watch()
        first = core.list_namespaced_config_map(SPACE)
        ready.set()
        for event in w.stream(core.list_namespaced_config_map, SPACE, resource_version=first.metadata.resource_version, timeout_seconds=60):
            seen.append((event["type"], event["object"].metadata.name))
            if event["type"] == "DELETED":
                w.stop()

    thread = threading.Thread(target=look)
    thread.start()
    assert ready.wait(30)
    core.create_namespaced_config_map(SPACE, {"metadata": {"name": "seen"}})
    core.patch_namespaced_config_map("seen", SPACE, {"data": {"a": "b"}})
    core.delete_namespaced_config_map("seen", SPACE)
    thread.join(60)
    mine = [s for s in seen if s[1] == "seen"]
    assert mine == [("ADDED", "seen"), ("MODIFIED", "seen"), ("DELETED", "seen")], seen


def applying():
    dyn = dynamic.DynamicClient(client.ApiClient())
    kind = dyn.resources.get(api_version="apps/v1", kind="Deployment")
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "main", "image": "sim/web:1"}]},
            },
        },
    }
    one = dyn.server_side_apply(kind, body=body, name="web", namespace=SPACE, field_manager="python")
    two = dyn.server_side_apply(kind, body=body, name="web", namespace=SPACE, field_manager="python")
    assert one.metadata.generation == two.metadata.generation == 1
    eventually("web is available", lambda: apps.read_namespaced_deployment_status("web", SPACE).status.available_replicas == 2)
    apps.patch_namespaced_deployment_scale("web", SPACE, {"spec": {"replicas": 1}})
    assert apps.read_namespaced_deployment_scale("web", SPACE).spec.replicas == 1
    eventually("web is one", lambda: apps.read_namespaced_deployment("web", SPACE).status.replicas == 1)
    apps.delete_namespaced_deployment("web", SPACE, propagation_policy="Foreground")
    eventually("web is gone", lambda: not apps.list_namespaced_deployment(SPACE).items)
    eventually("its pods are gone", lambda: not core.list_namespaced_pod(SPACE, label_selector="app=web").items)
    utils.create_from_dict(client.ApiClient(), {**pod("from-dict"), "metadata": {"name": "from-dict", "namespace": SPACE}})
    core.delete_namespaced_pod("from-dict", SPACE, grace_period_seconds=0)


def streams():
    core.create_namespaced_pod(SPACE, pod("talker"))
    eventually("the pod runs", lambda: core.read_namespaced_pod("talker", SPACE).status.phase == "Running")
    assert core.read_namespaced_pod_log("talker", SPACE, tail_lines=1)
    said = stream(core.connect_get_namespaced_pod_exec, "talker", SPACE, command=["echo", "hello"], stdout=True, stderr=True)
    assert said.strip() == "hello", said
    shell = stream(core.connect_get_namespaced_pod_exec, "talker", SPACE, command=["sh"], stdin=True, stdout=True, stderr=True, _preload_content=False)
    shell.write_stdin("echo one\n")
    assert shell.readline_stdout(timeout=30) == "one"
    shell.write_stdin("exit 3\n")
    shell.run_forever(timeout=30)
    assert shell.returncode == 3, shell.returncode
    shell.close()
    # A simulated port echoes.
    ports = portforward(core.connect_get_namespaced_pod_portforward, "talker", SPACE, ports="80,81")
    for port in [80, 81]:
        socket = ports.socket(port)
        socket.settimeout(30)
        socket.sendall(b"hello")
        assert socket.recv(5) == b"hello", port
        assert ports.error(port) is None
        socket.close()


def electing():
    led = threading.Event()
    lock = ConfigMapLock("leader", SPACE, "me")
    settings = electionconfig.Config(lock, lease_duration=4, renew_deadline=3, retry_period=1, onstarted_leading=led.set, onstopped_leading=None)
    threading.Thread(target=leaderelection.LeaderElection(settings).run, daemon=True).start()
    assert led.wait(30), "nobody leads"


for part in [the_basics, watching, applying, streams, electing]:
    part()
    print("ok", part.__name__, flush=True)
core.delete_namespace(SPACE)
eventually("the namespace is gone", lambda: SPACE not in [n.metadata.name for n in core.list_namespace().items])
print("ok everything went")
