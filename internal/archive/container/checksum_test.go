package container

import (
	"math"
	"strings"
	"testing"
)

func TestChecksumIgnoresTheOrder(t *testing.T) {
	t.Parallel()
	var forth, back, twice, split, half Tally
	rows := []string{"a", "b", "c", strings.Repeat("d", 1000)}
	for i := range rows {
		forth.Add([]byte(rows[i]))
		back.Add([]byte(rows[len(rows)-1-i]))
		twice.Add([]byte(rows[i]))
		if i < 2 {
			split.Add([]byte(rows[i]))
		} else {
			half.Add([]byte(rows[i]))
		}
	}
	twice.Add([]byte(rows[0]))
	split.AddAll(half)
	if forth != back || forth != split {
		t.Errorf("%+v, %+v, %+v differ", forth.Summary(""), back.Summary(""), split.Summary(""))
	}
	if forth == twice || forth == half {
		t.Error("other rows have the same checksum")
	}
	var carry checksum
	for i := range carry {
		carry[i] = math.MaxUint64
	}
	one := checksum{1}
	carry.addAll(one)
	if carry != (checksum{}) {
		t.Errorf("2^256-1 + 1 = %s", &carry)
	}
}
