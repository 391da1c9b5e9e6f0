package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"
)

// readSchema returns the statements that create a store's PostgreSQL schema, in one
// transaction.
func readSchema(ctx context.Context) (string, error) {
	folder, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", "github.com/stoahq/stoa/internal/tenantdb").Output()
	if err != nil {
		return "", fmt.Errorf("go list: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(folder)), "migrations", "postgres", "*.sql"))
	if err != nil || len(files) == 0 {
		return "", errors.Join(err, errors.New("the migrations of a store's schema are not there"))
	}
	text := "BEGIN;\n"
	for _, file := range files { // Glob returns sorted names
		statements, err := os.ReadFile(file) //nolint:gosec // a file of this module
		if err != nil {
			return "", err
		}
		text += string(statements) + "\n"
	}
	return text + "COMMIT", nil
}

// runAlone runs a text on its own connection.
func runAlone(ctx context.Context, databaseURL, text string) error {
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, text)
	return errors.Join(err, conn.Close(ctx))
}
