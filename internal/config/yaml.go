package config

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// yamlConfig resolves flags from stoa.yaml. A key that is not an option is an
// error, so that a misspelt setting is not ignored.
type yamlConfig map[string]any

// LoadYAML reads settings from stoa.yaml, under the names of their flags.
func LoadYAML(r io.Reader) (kong.Resolver, error) {
	values := yamlConfig{}
	if err := yaml.NewDecoder(r).Decode(&values); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("cannot be read as YAML: %w", err)
	}
	return values, nil
}

// Validate implements kong.Resolver.
func (y yamlConfig) Validate(app *kong.Application) error {
	for key := range y {
		known := slices.ContainsFunc(app.Flags, func(f *kong.Flag) bool { return f.Name == key })
		if !known {
			return fmt.Errorf("stoa.yaml: %q is not an option; 'stoa --help' lists them", key)
		}
	}
	return nil
}

// Resolve implements kong.Resolver.
func (y yamlConfig) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	value, ok := y[flag.Name]
	if !ok {
		return nil, nil //nolint:nilnil // kong's form of "not set here"
	}
	return value, nil
}
