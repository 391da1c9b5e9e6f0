package masterdb

import (
	"slices"
	"strings"
)

// openError is an error of opening the master. The driver writes a line for each attempt to
// connect, and it makes two to each address; openError has each cause once, on one line.
type openError struct{ cause error }

func (e openError) Error() string {
	var causes []string
	first, rest, _ := strings.Cut(e.cause.Error(), "\n")
	for line := range strings.SplitSeq(strings.TrimSpace(rest), "\n") {
		line = strings.TrimSpace(line)
		if !slices.ContainsFunc(causes, func(said string) bool { return strings.HasSuffix(said, line) }) {
			causes = append(causes, line)
		}
	}
	text := "master database: " + first
	if rest != "" {
		text = strings.TrimSuffix(text, ":") + ": " + strings.Join(causes, "; ")
	}
	return text
}

func (e openError) Unwrap() error { return e.cause }
