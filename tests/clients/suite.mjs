// The official Node client against a server: what scripts and dashboards do with it. Ends with an error at the first thing that is not
// as it should be. Run by tests/clients/mod.rs with KUBECONFIG and NODE_PATH set and a simulated host; not a test runner of its own.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { PassThrough } from "node:stream";
import { pathToFileURL } from "node:url";

const require = createRequire(process.env.CLIENT_FOLDER + "/");
const k8s = await import(pathToFileURL(require.resolve("@kubernetes/client-node")));

const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);
const objects = k8s.KubernetesObjectApi.makeApiClient(config);
const namespace = "node";

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
async function eventually(what, look, seconds = 60) {
  const end = Date.now() + seconds * 1000;
  while (Date.now() < end) {
    const found = await look();
    if (found) return found;
    await sleep(100);
  }
  throw new Error(`not within ${seconds} s: ${what}`);
}
async function refused(code, reason, call) {
  try {
    await call();
  } catch (e) {
    assert.equal(e.code, code, String(e));
    assert.match(typeof e.body === "string" ? e.body : JSON.stringify(e.body), new RegExp(reason));
    return;
  }
  throw new Error(`${reason} was expected`);
}
const collect = () => {
  const pipe = new PassThrough();
  const chunks = [];
  pipe.on("data", (c) => chunks.push(c));
  return [pipe, () => Buffer.concat(chunks).toString()];
};

const parts = {
  async basics() {
    await core.createNamespace({ body: { metadata: { name: namespace } } });
    const made = await core.createNamespacedConfigMap({ namespace, body: { metadata: { name: "a" }, data: { k: "v" } } });
    assert.ok(made.metadata.uid);
    await refused(409, "AlreadyExists", () => core.createNamespacedConfigMap({ namespace, body: { metadata: { name: "a" } } }));
    await refused(404, "NotFound", () => core.readNamespacedConfigMap({ name: "none", namespace }));
    made.data.k = "w";
    await core.replaceNamespacedConfigMap({ name: "a", namespace, body: made });
    await refused(409, "Conflict", () => core.replaceNamespacedConfigMap({ name: "a", namespace, body: made }));
    const listed = await core.listNamespacedConfigMap({ namespace, fieldSelector: "metadata.name=a" });
    assert.deepEqual(listed.items.map((i) => i.data), [{ k: "w" }]);
  },
  async patching() {
    const json = k8s.setHeaderOptions("Content-Type", k8s.PatchStrategy.JsonPatch);
    let got = await core.patchNamespacedConfigMap(
      { name: "a", namespace, body: [{ op: "add", path: "/data/l", value: "m" }] }, json);
    assert.deepEqual(got.data, { k: "w", l: "m" });
    const merge = k8s.setHeaderOptions("Content-Type", k8s.PatchStrategy.MergePatch);
    got = await core.patchNamespacedConfigMap({ name: "a", namespace, body: { data: { l: null } } }, merge);
    assert.deepEqual(got.data, { k: "w" });
    const applied = { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "applied", namespace }, data: { x: "1" } };
    for (let n = 0; n < 2; n++) {
      got = await objects.patch(applied, undefined, undefined, "node", true, k8s.PatchStrategy.ServerSideApply);
      assert.deepEqual(got.data, { x: "1" });
    }
  },
  async informing() {
    const seen = [];
    const list = () => core.listNamespacedConfigMap({ namespace });
    const informer = k8s.makeInformer(config, `/api/v1/namespaces/${namespace}/configmaps`, list);
    for (const verb of ["add", "update", "delete"]) {
      informer.on(verb, (o) => o.metadata.name === "seen" && seen.push(verb));
    }
    informer.on("error", (e) => seen.push(String(e)));
    await informer.start();
    await core.createNamespacedConfigMap({ namespace, body: { metadata: { name: "seen" } } });
    await eventually("it is in the cache", () => informer.get("seen", namespace));
    await core.replaceNamespacedConfigMap({ name: "seen", namespace, body: { metadata: { name: "seen" }, data: { a: "b" } } });
    await eventually("it was updated", () => seen.includes("update"));
    await core.deleteNamespacedConfigMap({ name: "seen", namespace });
    await eventually("it went", () => seen.includes("delete"));
    await informer.stop();
    assert.deepEqual(seen.slice(0, 3), ["add", "update", "delete"]);
  },
  async running() {
    const labels = { app: "web" };
    const spec = { terminationGracePeriodSeconds: 1, containers: [{ name: "main", image: "sim/web:1" }] };
    await apps.createNamespacedDeployment({
      namespace,
      body: { metadata: { name: "web" }, spec: { replicas: 1, selector: { matchLabels: labels }, template: { metadata: { labels }, spec } } },
    });
    await eventually("web is available", async () =>
      (await apps.readNamespacedDeploymentStatus({ name: "web", namespace })).status.availableReplicas === 1);
    const pods = await core.listNamespacedPod({ namespace, labelSelector: "app=web" });
    const name = pods.items[0].metadata.name;

    const [log, logged] = collect();
    const following = await new k8s.Log(config).log(namespace, name, "main", log, { follow: true, tailLines: 5 });
    await eventually("the log speaks", () => logged().length > 0);
    following.abort();

    const [out, said] = collect();
    const status = await new Promise((done, fail) =>
      new k8s.Exec(config).exec(namespace, name, "main", ["echo", "hello"], out, null, null, false, done).catch(fail));
    assert.equal(status.status, "Success");
    await eventually("it said hello", () => said().trim() === "hello");
    const failed = await new Promise((done, fail) =>
      new k8s.Exec(config).exec(namespace, name, "main", ["exit", "4"], out, null, null, false, done).catch(fail));
    assert.equal(failed.reason, "NonZeroExitCode");

    // A simulated port echoes.
    const [echo, echoed] = collect();
    const input = new PassThrough();
    await new k8s.PortForward(config).portForward(namespace, name, [80], echo, null, input);
    input.write("hello port");
    await eventually("the port echoed", () => echoed() === "hello port");
    input.end();

    await apps.deleteNamespacedDeployment({ name: "web", namespace, propagationPolicy: "Foreground" });
    await eventually("web is gone", async () => (await core.listNamespacedPod({ namespace, labelSelector: "app=web" })).items.length === 0);
  },
};

for (const [name, part] of Object.entries(parts)) {
  await part();
  console.log("ok", name);
}
await core.deleteNamespace({ name: namespace });
await eventually("the namespace is gone", async () =>
  !(await core.listNamespace()).items.some((n) => n.metadata.name === namespace));
console.log("ok everything went");
process.exit(0);
