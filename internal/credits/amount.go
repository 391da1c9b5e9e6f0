package credits

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// Amount is a number of credits in units of 1/10,000 credit. It is never a
// float: 0.1 credit is exactly 1,000 units.
type Amount int64

// Credit is one whole credit.
const Credit Amount = 10_000

// decimals is the number of decimal places of an Amount.
const decimals = 4

// The errors of ParseAmount. Their texts can be shown to users.
var (
	ErrAmountSyntax = errors.New(`must be a plain decimal number with at most 4 decimals, such as "12.5"`)
	ErrAmountRange  = errors.New("is too large")
)

// ParseAmount reads a plain decimal number of credits: digits, an optional
// leading minus, at most 4 decimals. It returns ErrAmountSyntax for anything
// else ("+1", "1e3", " 1", ".5") and ErrAmountRange beyond an int64 of units.
func ParseAmount(s string) (Amount, error) {
	digits, negative := strings.CutPrefix(s, "-")
	whole, fraction, dotted := strings.Cut(digits, ".")
	if !isDigits(whole) || dotted && !isDigits(fraction) || len(fraction) > decimals {
		return 0, ErrAmountSyntax
	}
	units := whole + fraction + strings.Repeat("0", decimals-len(fraction))
	if negative {
		units = "-" + units
	}
	n, err := strconv.ParseInt(units, 10, 64)
	if err != nil { // only the range can be wrong here
		return 0, ErrAmountRange
	}
	return Amount(n), nil
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// String returns the shortest form that ParseAmount reads: "12.5", "0", "-1".
func (a Amount) String() string {
	sign, units := "", uint64(a) //nolint:gosec // two's complement, undone on the next lines
	if a < 0 {
		// The negation is unsigned, since the smallest int64 has no positive counterpart.
		sign, units = "-", -units
	}
	whole := strconv.FormatUint(units/uint64(Credit), 10)
	rest := units % uint64(Credit)
	if rest == 0 {
		return sign + whole
	}
	padded := strconv.FormatUint(uint64(Credit)+rest, 10)[1:]
	return sign + whole + "." + strings.TrimRight(padded, "0")
}

// MarshalText encodes an Amount as a decimal string in JSON, since most clients would
// parse a JSON number as a float.
func (a Amount) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads the form that ParseAmount reads.
func (a *Amount) UnmarshalText(b []byte) error {
	v, err := ParseAmount(string(b))
	if err != nil {
		return err
	}
	*a = v
	return nil
}

// canAdd reports whether a + b, both not negative, fits.
func (a Amount) canAdd(b Amount) bool { return b <= math.MaxInt64-a }

// Times returns a times quantity. a is not negative and quantity is at least 1.
// ok is false on overflow.
func (a Amount) Times(quantity int64) (product Amount, ok bool) {
	if a > math.MaxInt64/Amount(quantity) {
		return 0, false
	}
	return a * Amount(quantity), true
}
