package config

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/stoahq/stoa/internal/keyring"
)

// keyNames lists the settings with keys in the order in which they are written.
var keyNames = []string{"ENCRYPTION_KEY", "JWT_SECRET"}

// NewKeys generates the keys of an installation, by the names of their settings.
func NewKeys(id string) map[string]keyring.Secret {
	return map[string]keyring.Secret{"ENCRYPTION_KEY": keyring.Generate(id), "JWT_SECRET": keyring.Generate(id)}
}

// FormatKeys returns keys in the form of the key file.
func FormatKeys(keys map[string]keyring.Secret) []byte {
	var b bytes.Buffer
	for _, name := range keyNames {
		fmt.Fprintf(&b, "%s=%s\n", name, keys[name].Reveal())
	}
	return b.Bytes()
}

// Rings returns the encryption and the signing keys. In development, keys that are
// not given are generated once and kept in the data directory.
func (c *Config) Rings() (encryption, signing *keyring.Ring, err error) {
	given := map[string]keyring.Secret{"ENCRYPTION_KEY": c.EncryptionKey, "JWT_SECRET": c.JWTSecret}
	if c.Development() && (c.EncryptionKey.IsZero() || c.JWTSecret.IsZero()) {
		kept, err := keptKeys(c.KeyFile())
		if err != nil {
			return nil, nil, err
		}
		for _, name := range keyNames {
			if given[name].IsZero() {
				given[name] = kept[name]
			}
		}
	}
	if encryption, err = keyring.Parse(given["ENCRYPTION_KEY"]); err != nil {
		return nil, nil, fmt.Errorf("ENCRYPTION_KEY: %w", err)
	}
	if signing, err = keyring.Parse(given["JWT_SECRET"]); err != nil {
		return nil, nil, fmt.Errorf("JWT_SECRET: %w", err)
	}
	return encryption, signing, nil
}

// keptKeys reads the key file, and creates it first if there is none. Of two
// processes that start at once, one creates it and both read the same.
func keptKeys(path string) (map[string]keyring.Secret, error) {
	if err := makeKeyFile(path); err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("key file %s can be read by others; run: chmod 600 %s", path, path)
	}
	content, err := os.ReadFile(path) //nolint:gosec // a file in the operator's own data directory
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	keys := map[string]keyring.Secret{}
	lines := bufio.NewScanner(bytes.NewReader(content))
	for lines.Scan() {
		if name, value, ok := strings.Cut(lines.Text(), "="); ok && !strings.HasPrefix(name, "#") {
			keys[strings.TrimSpace(name)] = keyring.NewSecret(strings.TrimSpace(value))
		}
	}
	return keys, lines.Err()
}

// makeKeyFile writes a complete temporary file and then links it to its final name, so that
// a crash leaves no partial key file. It never replaces a file.
func makeKeyFile(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "keys-*.tmp") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // the link below keeps the content
	header := "# Made by stoa for development. Without ENCRYPTION_KEY the stored database credentials are lost.\n"
	_, err = f.Write(append([]byte(header), FormatKeys(NewKeys("dev"))...))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// KeyFile returns the path of the file with generated keys.
func (c *Config) KeyFile() string { return filepath.Join(c.DataDir, "keys.env") }
