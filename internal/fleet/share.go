package fleet

import (
	"errors"
	"strconv"
	"strings"
)

// Share is a number of stores, or a percentage of them.
type Share struct {
	N       int
	Percent bool
}

var errShare = errors.New("must be a number of stores, such as 5, or a percentage from 0% to 100%")

// ParseShare parses "5" or "10%".
func ParseShare(s string) (Share, error) {
	digits, percent := strings.CutSuffix(s, "%")
	n, err := strconv.Atoi(digits)
	if err != nil || n < 0 || percent && n > 100 {
		return Share{}, errShare
	}
	return Share{N: n, Percent: percent}, nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Share) UnmarshalText(text []byte) (err error) {
	*s, err = ParseShare(string(text))
	return err
}

// Of returns the share of total stores. A percentage is rounded up.
func (s Share) Of(total int) int {
	if s.Percent {
		return (total*s.N + 99) / 100
	}
	return s.N
}
