// Package deploy_test parses what deploy/ ships, so that a typing mistake fails here
// and not on somebody's cluster.
package deploy_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"go.yaml.in/yaml/v3"

	"github.com/trueup/trueup/internal/config"
)

func TestEnvExampleIsTheTable(t *testing.T) {
	var want bytes.Buffer
	if err := config.EnvExample(&want); err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile("env.example")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, want.Bytes()) {
		t.Error("deploy/env.example is not what `trueup help config --env` prints: go run ./cmd/trueup help config --env > deploy/env.example")
	}
}

func TestReadmeHasTheTable(t *testing.T) {
	var want bytes.Buffer
	if err := config.Markdown(&want); err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile(filepath.Join("..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(readme), "a test compares -->\n")
	have, _, ok2 := strings.Cut(rest, "<!-- /config -->")
	if !ok || !ok2 || have != want.String() {
		t.Error("README's configuration table is not what `trueup help config --markdown` prints")
	}
}

// documents are the YAML documents of a file.
func documents(t *testing.T, name string) (all []map[string]any) {
	t.Helper()
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	d := yaml.NewDecoder(bytes.NewReader(raw))
	for {
		var one map[string]any
		err := d.Decode(&one)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, one)
	}
}

// at walks keys; nil where there is none.
func at(v any, path ...string) any {
	for _, key := range path {
		m, _ := v.(map[string]any)
		v = m[key]
	}
	return v
}

func TestComposeParses(t *testing.T) {
	c := documents(t, "compose.yaml")[0]
	for _, service := range []string{"nats", "migrate", "ingest", "worker"} {
		if at(c, "services", service) == nil {
			t.Errorf("no service %s", service)
		}
	}
	for service, command := range map[string]string{"ingest": "ingest", "worker": "worker"} {
		args, _ := at(c, "services", service, "command").([]any)
		if len(args) != 1 || args[0] != command {
			t.Errorf("%s runs %v", service, args)
		}
		if at(c, "services", service, "environment", "NATS_URL") == nil {
			t.Errorf("%s has no NATS_URL", service)
		}
	}
}

func TestKubernetesParses(t *testing.T) {
	known := map[string]bool{}
	for _, v := range config.Table() {
		known[v.Name] = true
	}
	replicas := map[string]any{}
	for _, d := range documents(t, "kubernetes/trueup.yaml") {
		kind, name := at(d, "kind"), at(d, "metadata", "name")
		if at(d, "apiVersion") == nil || kind == nil || name == nil {
			t.Errorf("a document without apiVersion, kind or name: %v", d)
		}
		if kind == "ConfigMap" {
			data, _ := at(d, "data").(map[string]any)
			for variable := range data {
				if !known[variable] {
					t.Errorf("%s is no variable of ours", variable)
				}
			}
		}
		if kind != "Deployment" {
			continue
		}
		replicas[name.(string)] = at(d, "spec", "replicas")
		pod := at(d, "spec", "template", "spec")
		if at(pod, "securityContext", "runAsNonRoot") != true {
			t.Errorf("%s may run as root", name)
		}
		containers, _ := at(pod, "containers").([]any)
		for _, c := range containers {
			if at(c, "readinessProbe", "httpGet", "path") != "/readyz" || at(c, "livenessProbe", "httpGet", "path") != "/healthz" {
				t.Errorf("%s has other probes than ours", name)
			}
		}
	}
	if replicas["trueup-ingest"] != 2 || replicas["trueup-worker"] != 2 {
		t.Errorf("replicas %v, want two of each", replicas)
	}
}

// nats.conf is read by nats-server itself, and does what durability needs.
func TestNATSConfSyncsAlways(t *testing.T) {
	o, err := server.ProcessConfigFile("nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	if !o.JetStream || !o.SyncAlways || o.MaxPayload < 4<<20 {
		t.Errorf("JetStream %v, sync always %v, max payload %d", o.JetStream, o.SyncAlways, o.MaxPayload)
	}
}

// The Dockerfile ends in an image without shell or root, and builds a static binary.
func TestDockerfile(t *testing.T) {
	raw, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	var stages, lines []string
	for line := range strings.Lines(strings.ReplaceAll(string(raw), "\\\n", " ")) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		word, rest, _ := strings.Cut(line, " ")
		if !slices.Contains([]string{"FROM", "WORKDIR", "COPY", "RUN", "ARG", "ENV", "USER", "VOLUME", "EXPOSE", "ENTRYPOINT", "CMD"}, word) {
			t.Errorf("unknown instruction %q", line)
		}
		if word == "FROM" {
			stages = append(stages, rest)
		}
		lines = append(lines, line)
	}
	if len(stages) != 2 || stages[1] != "scratch" {
		t.Errorf("stages %v, want the last one from scratch", stages)
	}
	for _, want := range []string{"USER 65532:65532", `ENTRYPOINT ["/trueup"]`} {
		if !slices.Contains(lines, want) {
			t.Errorf("no line %q", want)
		}
	}
	if !strings.Contains(string(raw), "CGO_ENABLED=0") {
		t.Error("the binary is not built static")
	}
}
