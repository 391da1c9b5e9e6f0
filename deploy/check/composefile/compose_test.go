package composefile_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/stoahq/stoa/deploy/check/composefile"
)

const folder = "../../compose"

// required matches the lines of .env.example that a person has to fill in.
var required = regexp.MustCompile(`(?m)^([A-Z_]+)=$`)

func example(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, ".env.example"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// project loads compose.yaml with .env.example filled in.
func project(t *testing.T) *types.Project {
	t.Helper()
	p, err := load(t, required.ReplaceAllString(example(t), "${1}=value-of-$1"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func load(t *testing.T, env string) (*types.Project, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(file, []byte(env), 0o600); err != nil {
		t.Fatal(err)
	}
	return composefile.Load(t.Context(), filepath.Join(folder, "compose.yaml"), file)
}

func TestEachRequiredValueIsRefusedWhenEmpty(t *testing.T) {
	names := required.FindAllStringSubmatch(example(t), -1)
	if len(names) < 8 {
		t.Fatalf("only %d required values found in .env.example", len(names))
	}
	for _, m := range names {
		env := required.ReplaceAllStringFunc(example(t), func(line string) string {
			if line == m[0] {
				return line
			}
			return line + "x"
		})
		if _, err := load(t, env); err == nil || !strings.Contains(err.Error(), m[1]) {
			t.Errorf("without %s: %v, want an error that names it", m[1], err)
		}
	}
}

func TestExampleNamesEveryVariable(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(folder, "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`[^$]\$\{([A-Z_]+)`).FindAllStringSubmatch(string(text), -1) {
		if !regexp.MustCompile(`(?m)^(# )?` + m[1] + `=`).MatchString(example(t)) {
			t.Errorf(".env.example does not have %s", m[1])
		}
	}
}

func TestServicesAreHardened(t *testing.T) {
	for name, s := range project(t).Services {
		if !s.ReadOnly {
			t.Errorf("%s: its root file system can be written", name)
		}
		if !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s: capabilities %v, security options %v", name, s.CapDrop, s.SecurityOpt)
		}
		once := name == "permissions" // ends before the others start, and has no network
		if root := s.User == "" || strings.HasPrefix(s.User, "0"); root != once {
			t.Errorf("%s runs as %q", name, s.User)
		}
		if once {
			if s.NetworkMode != "none" || s.Restart != "no" {
				t.Errorf("%s: network %q, restart %q", name, s.NetworkMode, s.Restart)
			}
			continue
		}
		if s.Restart != "unless-stopped" || s.HealthCheck == nil || len(s.HealthCheck.Test) == 0 {
			t.Errorf("%s: restart %q, health check %v", name, s.Restart, s.HealthCheck)
		}
	}
}

func TestOnlyCaddyIsPublished(t *testing.T) {
	p := project(t)
	for name, s := range p.Services {
		if published := len(s.Ports) > 0; published != (name == "caddy") {
			t.Errorf("%s publishes %v", name, s.Ports)
		}
		for _, port := range s.Ports {
			if port.Target != 8080 && port.Target != 8443 {
				t.Errorf("%s publishes its port %d", name, port.Target)
			}
		}
		networks := slices.Sorted(func(yield func(string) bool) {
			for n := range s.Networks {
				if !yield(n) {
					return
				}
			}
		})
		want := map[string][]string{"caddy": {"edge", "front"}, "stoa1": {"back", "front", "out"}, "stoa2": {"back", "front", "out"},
			"postgres": {"back"}, "redis": {"back"}, "permissions": nil}[name]
		if !slices.Equal(networks, want) {
			t.Errorf("%s is in the networks %v, want %v", name, networks, want)
		}
	}
	for name, internal := range map[string]bool{"edge": false, "out": false, "front": true, "back": true} {
		if p.Networks[name].Internal != internal {
			t.Errorf("network %s: internal is %v", name, !internal)
		}
	}
}

func TestReplicasAreAlikeAndHaveTimeToStop(t *testing.T) {
	p := project(t)
	first, second := p.Services["stoa1"], p.Services["stoa2"]
	for name, value := range first.Environment {
		if other := second.Environment[name]; other == nil || *other != *value {
			t.Errorf("%s differs between the replicas", name)
		}
	}
	if *first.Environment["STOA_ENV"] != "production" {
		t.Error("the replicas do not run in production")
	}
	if g := first.StopGracePeriod; g == nil || time.Duration(*g) <= 25*time.Second {
		t.Errorf("stop_grace_period is %v, within STOA_STOP_TIMEOUT's default", g)
	}
	if *first.Environment["STOA_TRUSTED_PROXIES"] != p.Networks["front"].Ipam.Config[0].Subnet {
		t.Error("STOA_TRUSTED_PROXIES is not the network that Caddy is in")
	}
}
