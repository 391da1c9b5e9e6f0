package config

import (
	"context"
	"errors"
	"log/slog"
	"net/url"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tracing"
)

// Tracing holds the settings of traces, under OpenTelemetry's own names. Its SDK reads the
// other OTEL_… variables by itself.
type Tracing struct {
	OTelEndpoint   string `name:"otel-exporter-otlp-endpoint" env:"OTEL_EXPORTER_OTLP_ENDPOINT" help:"Address of an OpenTelemetry collector that takes traces by OTLP over HTTP, such as http://127.0.0.1:4318. Unless told, there are no traces." placeholder:"URL" group:"config"`
	OTelProtocol   string `name:"otel-exporter-otlp-protocol" env:"OTEL_EXPORTER_OTLP_PROTOCOL" default:"http/protobuf" help:"http/protobuf, the only one that is spoken." placeholder:"NAME" group:"config"`
	OTelSampler    string `name:"otel-traces-sampler" env:"OTEL_TRACES_SAMPLER" default:"parentbased_always_on" help:"Which traces are recorded: always_on, always_off, traceidratio, or one of these after parentbased_, with which a trusted proxy decides for the traces it begins." placeholder:"NAME" group:"config"`
	OTelSamplerArg string `name:"otel-traces-sampler-arg" env:"OTEL_TRACES_SAMPLER_ARG" help:"The share of traces that traceidratio records, from 0 to 1." placeholder:"SHARE" group:"config"`
	OTelService    string `name:"otel-service-name" env:"OTEL_SERVICE_NAME" default:"stoa" help:"Name of this service in traces." placeholder:"NAME" group:"config"`
	OTelAttributes string `name:"otel-resource-attributes" env:"OTEL_RESOURCE_ATTRIBUTES" help:"What else traces say of this process, such as deployment.environment.name=production." placeholder:"KEY=VALUE" group:"config"`
	OTelDisabled   bool   `name:"otel-sdk-disabled" env:"OTEL_SDK_DISABLED" help:"Make no traces, whatever else is set." group:"config"`
}

func (t *Tracing) check(fault func(name, format string, args ...any)) {
	if t.OTelDisabled || t.OTelEndpoint == "" {
		return // another program of this machine may use the variables in its way
	}
	if err := tracing.Check(t.OTelEndpoint); err != nil {
		fault("OTEL_EXPORTER_OTLP_ENDPOINT", "%v", err)
	} else if u, err := url.Parse(t.OTelEndpoint); err == nil && !stoa.HasValidPort(u) {
		fault("OTEL_EXPORTER_OTLP_ENDPOINT", "must have a port between 1 and 65535, or none")
	}
	if t.OTelProtocol != "" && t.OTelProtocol != "http/protobuf" {
		fault("OTEL_EXPORTER_OTLP_PROTOCOL", "must be http/protobuf, and the endpoint the collector's port for it, usually 4318: %q is not built in", t.OTelProtocol)
	}
	switch _, err := t.sampler(); {
	case errors.Is(err, tracing.ErrSamplerShare):
		fault("OTEL_TRACES_SAMPLER_ARG", "%v", err)
	case err != nil:
		fault("OTEL_TRACES_SAMPLER", "%v", err)
	}
	if _, err := tracing.ParseAttributes(t.OTelAttributes); err != nil {
		fault("OTEL_RESOURCE_ATTRIBUTES", "%v", err)
	}
}

func (t *Tracing) sampler() (tracing.Sampler, error) {
	name := t.OTelSampler
	if name == "" {
		name = "parentbased_always_on"
	}
	return tracing.ParseSampler(name, t.OTelSamplerArg)
}

// Tracer returns what makes spans, or nil without a collector. The configuration must have
// been checked.
func (t *Tracing) Tracer(ctx context.Context, log *slog.Logger) (*tracing.Tracer, error) {
	if t.OTelDisabled || t.OTelEndpoint == "" {
		return nil, nil //nolint:nilnil // documented: tracing is off
	}
	sampler, err := t.sampler()
	if err != nil {
		return nil, err
	}
	attributes, err := tracing.ParseAttributes(t.OTelAttributes)
	if err != nil {
		return nil, err
	}
	service := t.OTelService
	if service == "" {
		service = "stoa"
	}
	return tracing.New(ctx, tracing.Options{Endpoint: t.OTelEndpoint, Service: service, Version: stoa.Version, Attributes: attributes, Sampler: sampler, Log: log})
}
