// Composeenv prints the environment that a compose file gives to one of its services,
// one NAME=VALUE a line, with the values of an .env file filled in. deploy/compose/walk
// starts processes with it where containers cannot run.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/stoahq/stoa/deploy/check/composefile"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "composeenv:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) != 3 {
		return errors.New("usage: composeenv COMPOSE-FILE ENV-FILE SERVICE")
	}
	project, err := composefile.Load(context.Background(), args[0], args[1])
	if err != nil {
		return err
	}
	service, err := project.GetService(args[2])
	if err != nil {
		return err
	}
	var lines []string
	for name, value := range service.Environment {
		if value == nil {
			continue
		}
		if strings.Contains(*value, "\n") {
			return fmt.Errorf("%s has more than one line", name)
		}
		lines = append(lines, name+"="+*value)
	}
	slices.Sort(lines)
	_, err = fmt.Fprintln(out, strings.Join(lines, "\n"))
	return err
}
