package app

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"github.com/stoahq/stoa/internal/fleet"
)

// CheckOrder returns an error if the operator's custom migrations cannot run in their
// order. It logs a fault that may concern one merchant's database only.
func CheckOrder(ctx context.Context, f *fleet.Service, log *slog.Logger) error {
	faults, err := f.CheckOrder(ctx, false)
	if err != nil {
		return err
	}
	for _, fault := range faults {
		if !fault.Refuses() {
			log.WarnContext(ctx, "custom migrations out of order", "fault", fault.String())
		}
	}
	return orderError(faults)
}

// orderError returns the faults that prevent a start, or nil.
func orderError(faults []fleet.OrderFault) error {
	var words []string
	for _, fault := range faults {
		if fault.Refuses() {
			words = append(words, fault.String())
		}
	}
	if len(words) == 0 {
		return nil
	}
	return errors.New("the custom migrations (STOA_TENANT_MIGRATIONS) cannot run in order: " + strings.Join(words, "; "))
}
