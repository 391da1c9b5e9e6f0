// Package composefile reads compose files as `docker compose` does.
package composefile

import (
	"context"
	"path/filepath"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/types"
)

// Load reads a compose file and checks it against the schema. The file env has the
// values of its variables; those of this process are not looked at.
func Load(ctx context.Context, file, env string) (*types.Project, error) {
	values, err := dotenv.GetEnvFromFile(map[string]string{}, []string{env})
	if err != nil {
		return nil, err
	}
	var pairs []string
	for name, value := range values {
		pairs = append(pairs, name+"="+value)
	}
	options, err := cli.NewProjectOptions([]string{file}, cli.WithWorkingDirectory(filepath.Dir(file)), cli.WithEnv(pairs))
	if err != nil {
		return nil, err
	}
	return options.LoadProject(ctx)
}
