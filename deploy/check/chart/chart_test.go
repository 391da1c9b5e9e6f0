package chart_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
)

const (
	chart = "../../helm/stoa"
	// version is of Kubernetes: the oldest that Chart.yaml allows.
	version = "1.30.0"
)

// run starts helm, which `make helm-check` builds.
func run(t *testing.T, values string, args ...string) (string, error) {
	t.Helper()
	helm, err := filepath.Abs("../../../bin/tools/helm")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(helm); err != nil {
		t.Fatalf("%v: run 'make helm-check'", err)
	}
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte(values), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), helm, append(args, "--kube-version", version, "--values", file)...)
	var out, fault bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &fault
	if err := cmd.Run(); err != nil {
		return "", errors.New(fault.String() + out.String())
	}
	return out.String(), nil
}

// objects are what a chart makes of values, by type.
type objects []runtime.Object

// render decodes each document strictly: an unknown field, or one that is there twice, is
// an error.
func render(t *testing.T, values string) objects {
	t.Helper()
	text, err := run(t, values, "template", "shop", chart, "--namespace", "shops")
	if err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{apps.AddToScheme, autoscaling.AddToScheme, batch.AddToScheme, core.AddToScheme,
		networking.AddToScheme, policy.AddToScheme, monitoring.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	reader := yaml.NewYAMLReader(bufioReader(text))
	var all objects
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(bytes.TrimSpace(regexp.MustCompile(`(?m)^(#.*|---)$`).ReplaceAll(document, nil))) == 0 {
			continue
		}
		object, _, err := decoder.Decode(document, nil, nil)
		if err != nil {
			t.Fatalf("%v\n%s", err, document)
		}
		all = append(all, object)
	}
}

// get returns the objects of one type.
func get[T runtime.Object](all objects) (out []T) {
	for _, o := range all {
		if found, ok := o.(T); ok {
			out = append(out, found)
		}
	}
	return out
}

// only returns the one object of a type.
func only[T runtime.Object](t *testing.T, all objects) T {
	t.Helper()
	found := get[T](all)
	if len(found) != 1 {
		t.Fatalf("%d objects of type %T, want one", len(found), *new(T))
	}
	return found[0]
}

const (
	archives = "backupStorage: s3://archives/stoa\n"
	existing = archives + "baseDomain: shops.example.com\nsecret: {existing: keys}\n"
	given    = `
baseDomain: shops.example.com
secret:
  values:
    MASTER_DB_URL: postgres://stoa:secret@db/stoa
    ENCRYPTION_KEY: "1:key"
    JWT_SECRET: "1:other"
`
	onServer = archives + given + "    STOA_MANAGED_DATABASE_URL: postgres://admin:secret@db/\n"
	single   = "replicas: 1\nautoscaling: {enabled: false}\npersistence: {enabled: true}\n"
)

// combinations are values that work. TestLint and TestCombinations go through all.
var combinations = map[string]string{
	"existing secret": existing,
	"values":          onServer,
	"no archives":     strings.TrimPrefix(existing, archives) + "settings: {STOA_BACKUP_SCHEDULE: none}\n",
	"no autoscaling":  existing + "replicas: 3\nautoscaling: {enabled: false}\n",
	"embedded":        given + single,
	"embedded master": strings.Replace(given, "postgres://stoa:secret@db/stoa", "sqlite:/var/lib/stoa/data/master.db", 1) + single,
	"claim":           existing + "managedOnServer: false\nreplicas: 1\nautoscaling: {enabled: false}\npersistence: {existingClaim: disk}\n",
	"ingress":         existing + "ingress: {enabled: true, className: nginx, anyHost: true, tlsSecret: wildcard, annotations: {a/b: c}}\ntrustedProxies: [10.0.0.0/8]\n",
	"hook":            existing + "migrations: {mode: hook, existingSecret: owner, grantTo: stoa_serve}\n",
	"monitoring":      existing + "serviceMonitor: {enabled: true, labels: {release: p}}\nprometheusRule: {enabled: true}\n",
	"no extras":       existing + "networkPolicy: {enabled: false}\npodDisruptionBudget: {enabled: false}\nserviceAccount: {name: other}\n",
	"nobody":          existing + "networkPolicy: {ingressFrom: [], privateFrom: [], egress: [{ports: [{port: 5432}]}]}\n",
	"scheduling": existing + "nodeSelector: {a: b}\ntolerations: [{key: a, operator: Exists}]\npriorityClassName: high\nimagePullSecrets: [{name: pull}]\n" +
		"affinity: {nodeAffinity: {}}\npodLabels: {team: a}\npodAnnotations: {b: c}\nsettings: {STOA_LOG_LEVEL: debug, STOA_RATE_LIMIT_AUTH: 30}\n" +
		"image: {repository: images.example.com/stoa, digest: 'sha256:" + strings.Repeat("0a", 32) + "'}\nstop: {preStopSeconds: 0, timeoutSeconds: 60, drainDelaySeconds: 10}\nreadiness: healthz\n",
}

func TestLint(t *testing.T) {
	for name, values := range combinations {
		t.Run(name, func(t *testing.T) {
			if _, err := run(t, values, "lint", "--strict", chart); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestCombinations checks what holds for all values.
func TestCombinations(t *testing.T) {
	for name, values := range combinations {
		t.Run(name, func(t *testing.T) {
			all := render(t, values)
			d := only[*apps.Deployment](t, all)
			checkPod(t, d.Spec.Template.Spec)
			for _, job := range get[*batch.Job](all) {
				checkPod(t, job.Spec.Template.Spec)
			}
			checkSelectors(t, all, d)
			checkStop(t, d)
			checkPrivate(t, all)
		})
	}
}

// checkPod checks that a pod's containers have no privileges.
func checkPod(t *testing.T, pod core.PodSpec) {
	t.Helper()
	if s := pod.SecurityContext; !*s.RunAsNonRoot || s.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault {
		t.Errorf("security context of the pod: %v", s)
	}
	if *pod.AutomountServiceAccountToken {
		t.Error("the pod has a token of its service account")
	}
	for _, c := range pod.Containers {
		s := c.SecurityContext
		if *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || !slices.Equal(s.Capabilities.Drop, []core.Capability{"ALL"}) || s.Capabilities.Add != nil {
			t.Errorf("security context of %s: %v", c.Name, s)
		}
		if c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() {
			t.Errorf("resources of %s: %v", c.Name, c.Resources)
		}
		volumes := map[string]bool{}
		for _, v := range pod.Volumes {
			volumes[v.Name] = true
		}
		for _, m := range c.VolumeMounts {
			if !volumes[m.Name] {
				t.Errorf("%s mounts %s, which is no volume", c.Name, m.Name)
			}
		}
	}
}

// checkSelectors checks that what selects pods selects those of the Deployment and no
// others.
func checkSelectors(t *testing.T, all objects, d *apps.Deployment) {
	t.Helper()
	selectors := map[string]map[string]string{"deployment": d.Spec.Selector.MatchLabels}
	for _, s := range get[*core.Service](all) {
		selectors["service "+s.Name] = s.Spec.Selector
	}
	for _, p := range get[*networking.NetworkPolicy](all) {
		selectors["network policy"] = p.Spec.PodSelector.MatchLabels
	}
	for _, p := range get[*policy.PodDisruptionBudget](all) {
		selectors["budget"] = p.Spec.Selector.MatchLabels
	}
	for name, s := range selectors {
		selector := labels.SelectorFromSet(s)
		if selector.Empty() || !selector.Matches(labels.Set(d.Spec.Template.Labels)) {
			t.Errorf("%s does not select the replicas: %v", name, s)
		}
		for _, job := range get[*batch.Job](all) {
			if selector.Matches(labels.Set(job.Spec.Template.Labels)) {
				t.Errorf("%s selects the pod of the migration too", name)
			}
		}
	}
}

// checkStop checks that a pod is killed only after everything that a stop may take.
func checkStop(t *testing.T, d *apps.Deployment) {
	t.Helper()
	pod := d.Spec.Template.Spec
	stop, sleep := 0, int64(0)
	for _, e := range pod.Containers[0].Env {
		if e.Name == "STOA_STOP_TIMEOUT" {
			stop = atoi(t, strings.TrimSuffix(e.Value, "s"))
		}
	}
	if l := pod.Containers[0].Lifecycle; l != nil {
		sleep = l.PreStop.Sleep.Seconds
	}
	if grace := *pod.TerminationGracePeriodSeconds; stop == 0 || grace <= sleep+int64(stop) {
		t.Errorf("killed after %d s, but preStop takes %d s and the stop %d s", grace, sleep, stop)
	}
}

// checkPrivate checks that the private port is reached neither through the public Service
// nor through the Ingress, and by the named peers only.
func checkPrivate(t *testing.T, all objects) {
	t.Helper()
	for _, s := range get[*core.Service](all) {
		for _, p := range s.Spec.Ports {
			if private := strings.HasSuffix(s.Name, "-private"); private != (p.TargetPort.String() == "private") || private && s.Spec.Type != core.ServiceTypeClusterIP {
				t.Errorf("service %s of type %s leads to %s", s.Name, s.Spec.Type, p.TargetPort.String())
			}
		}
	}
	for _, i := range get[*networking.Ingress](all) {
		for _, r := range i.Spec.Rules {
			if b := r.HTTP.Paths[0].Backend.Service; b.Name != "shop-stoa" || b.Port.Name != "http" {
				t.Errorf("the ingress leads to %v", b)
			}
		}
	}
	for _, p := range get[*networking.NetworkPolicy](all) {
		if !slices.Contains(p.Spec.PolicyTypes, networking.PolicyTypeIngress) {
			t.Error("the network policy does not limit what comes in")
		}
		for _, r := range p.Spec.Ingress {
			if len(r.From) == 0 || len(r.Ports) != 1 {
				t.Errorf("the network policy lets everybody in: %v", r)
			}
		}
	}
}

func TestValuesReachTheObjects(t *testing.T) {
	hook := render(t, combinations["hook"])
	job := only[*batch.Job](t, hook)
	if c := job.Spec.Template.Spec.Containers[0]; !slices.Equal(c.Args, []string{"migrate", "--grant-to=stoa_serve"}) ||
		c.EnvFrom[len(c.EnvFrom)-1].SecretRef.Name != "owner" || job.Annotations["helm.sh/hook"] != "pre-install,pre-upgrade" {
		t.Errorf("the migration runs %v with %v", c.Args, c.EnvFrom)
	}
	if len(get[*batch.Job](render(t, existing))) != 0 || len(get[*core.Secret](hook)) != 0 {
		t.Error("a Job or a Secret that nobody asked for")
	}
	if h := only[*autoscaling.HorizontalPodAutoscaler](t, hook); h.Spec.ScaleTargetRef.Name != "shop-stoa" || only[*apps.Deployment](t, hook).Spec.Replicas != nil {
		t.Error("the number of replicas belongs to the autoscaler")
	}
	fixed := render(t, combinations["no autoscaling"])
	if n := only[*apps.Deployment](t, fixed).Spec.Replicas; n == nil || *n != 3 || len(get[*autoscaling.HorizontalPodAutoscaler](fixed)) != 0 {
		t.Errorf("replicas: %v", n)
	}
	if s := only[*core.Secret](t, render(t, onServer)); s.StringData["ENCRYPTION_KEY"] != "1:key" {
		t.Errorf("the Secret has %d values", len(s.StringData))
	}
	ingress := only[*networking.Ingress](t, render(t, combinations["ingress"]))
	var hosts []string
	for _, r := range ingress.Spec.Rules {
		hosts = append(hosts, r.Host)
	}
	if !slices.Equal(hosts, []string{"shops.example.com", "*.shops.example.com", ""}) || ingress.Spec.TLS[0].SecretName != "wildcard" {
		t.Errorf("the ingress has the hosts %q", hosts)
	}
	if p := only[*networking.NetworkPolicy](t, render(t, combinations["nobody"])); len(p.Spec.Ingress) != 0 || len(p.Spec.Egress) != 1 {
		t.Errorf("the network policy of nobody: %v", p.Spec)
	}
	embedded := render(t, combinations["embedded"])
	if claim := only[*core.PersistentVolumeClaim](t, embedded); claim.Name != only[*apps.Deployment](t, embedded).Spec.Template.Spec.Volumes[0].PersistentVolumeClaim.ClaimName {
		t.Error("the data is not in the chart's claim")
	}
	if s := only[*apps.Deployment](t, embedded).Spec.Strategy.Type; s != apps.RecreateDeploymentStrategyType {
		t.Errorf("two processes would open one data directory: %s", s)
	}
	monitored := render(t, combinations["monitoring"])
	rules := only[*monitoring.PrometheusRule](t, monitored).Spec.Groups[0].Rules
	if len(rules) < 15 || !strings.Contains(rules[0].Annotations["summary"], "{{ $labels.instance }}") {
		t.Errorf("%d rules of deploy/prometheus/alerts.yaml arrived", len(rules))
	}
	if m := only[*monitoring.ServiceMonitor](t, monitored); m.Spec.Endpoints[0].Port != "private" || m.Labels["release"] != "p" {
		t.Errorf("the monitor asks %v", m.Spec.Endpoints)
	}
}

// TestWrongValuesAreRefused checks that each fault is refused with a message that names
// it.
func TestWrongValuesAreRefused(t *testing.T) {
	for values, names := range map[string]string{
		"secret: {existing: keys}":                                    "baseDomain",
		"baseDomain: https://x.example\nsecret: {existing: keys}":     "baseDomain",
		"baseDomain: shops.example.com":                               "secret.values.MASTER_DB_URL",
		onServer + "  existing: keys\n":                               "not both",
		existing + "replica: 3":                                       "replica",
		existing + "replicas: 0":                                      "replicas",
		existing + "replicas: '2'":                                    "replicas",
		existing + "service: {type: Public}":                          "service",
		existing + "service: {port: 70000}":                           "port",
		existing + "image: {digest: latest}":                          "digest",
		existing + "settings: {MASTER_DB_URL: x}":                     "MASTER_DB_URL",
		existing + "settings: {STOA_ENV: development}":                "settings.STOA_ENV",
		existing + "trustedProxies: [proxy]":                          "trustedProxies",
		existing + "migrations: {mode: never}":                        "mode",
		existing + "readiness: always":                                "readiness",
		existing + "networkPolicy: {privateFrom: [{}]}":               "privateFrom",
		existing + "stop: {drainDelaySeconds: 25}":                    "drainDelaySeconds",
		existing + "autoscaling: {minReplicas: 9}":                    "minReplicas",
		existing + "managedOnServer: false":                           "STOA_MANAGED_DATABASE_URL",
		strings.TrimPrefix(existing, archives):                        "backupStorage",
		existing + "settings: {STOA_BACKUP_STORAGE: x}":               "settings.STOA_BACKUP_STORAGE",
		archives + given:                                              "STOA_MANAGED_DATABASE_URL",
		given + "replicas: 1\nautoscaling: {enabled: false}\n":        "persistence.enabled",
		onServer + "persistence: {enabled: true}\n":                   "persistence",
		onServer + "migrations: {mode: hook}\n":                       "migrations.existingSecret",
		strings.Replace(onServer, "postgres://stoa", "sqlite:/a", 1):  "PostgreSQL master",
		existing + "resources: {limits: {memory: [1]}}":               "memory",
		existing + "persistence: {size: big}":                         "size",
		existing + "serviceMonitor: {enabled: true, interval: often}": "interval",
	} {
		if _, err := run(t, values, "template", "shop", chart); err == nil || !strings.Contains(err.Error(), names) {
			t.Errorf("%s\nwas answered %v, want an error that names %q", values, err, names)
		}
	}
}

// TestSchemaKnowsEveryValue compares values.yaml with the schema: a value that the
// schema lacks would be refused, one that values.yaml lacks has no default.
func TestSchemaKnowsEveryValue(t *testing.T) {
	var values map[string]any
	var schema struct {
		Properties map[string]struct{ Properties map[string]any }
	}
	unmarshal(t, filepath.Join(chart, "values.yaml"), &values)
	unmarshal(t, filepath.Join(chart, "values.schema.json"), &schema)
	delete(schema.Properties, "global") // helm's own
	if got, want := keys(schema.Properties), keys(values); !reflect.DeepEqual(got, want) {
		t.Errorf("the schema has %v, values.yaml %v", got, want)
	}
	for name, property := range schema.Properties {
		inner, _ := values[name].(map[string]any)
		if property.Properties != nil && !reflect.DeepEqual(keys(property.Properties), keys(inner)) {
			t.Errorf("%s: the schema has %v, values.yaml %v", name, keys(property.Properties), keys(inner))
		}
	}
}
