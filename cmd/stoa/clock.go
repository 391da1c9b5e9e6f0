package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stoahq/stoa/masterdb"
)

// checkClock compares this machine's clock with that of the master's server.
func checkClock(ctx context.Context, master *masterdb.DB) (string, error) {
	ahead, err := master.MeasureSkew(ctx)
	if err != nil {
		return "", err
	}
	where := "ahead of"
	if ahead < 0 {
		where = "behind"
	}
	text := fmt.Sprintf("this machine's clock is %s %s the master database's", ahead.Abs().Round(time.Millisecond), where)
	if ahead.Abs() >= masterdb.WarnSkew {
		return "", errors.New(text)
	}
	return text, nil
}

// skewGauge is positive while this machine's clock is ahead.
func skewGauge(master *masterdb.DB) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "stoa_master_clock_skew_seconds",
		Help: "How far this machine's clock is ahead of the master database's, as last measured; negative is behind.",
	}, func() float64 { return master.Skew().Seconds() })
}
