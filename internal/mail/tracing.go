package mail

import (
	"context"
	"errors"
	"strconv"

	gomail "github.com/wneessen/go-mail"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"

	"github.com/stoahq/stoa/internal/tracing"
)

// deliver sends msg to the server. The span of the conversation has the server and the outcome,
// nothing of the message, whose recipient is a person, and no credentials.
func (s *Sender) deliver(ctx context.Context, msg *gomail.Msg) error {
	if s.opts.Tracer == nil {
		return s.converse(ctx, msg)
	}
	ctx, span := s.opts.Tracer.Call(ctx, "smtp", attribute.String("server.address", s.server.host), attribute.Int("server.port", s.server.port),
		attribute.String("network.protocol.name", "smtp"), attribute.String("network.transport", "tcp"))
	err := s.converse(ctx, msg)
	span.SetAttributes(attribute.String("stoa.mail.outcome", outcomeOf(err)))
	var refused *Error
	if errors.As(err, &refused) && refused.Code != 0 {
		code := strconv.Itoa(refused.Code)
		span.SetAttributes(attribute.String("error.type", code), attribute.Int("stoa.mail.smtp_code", refused.Code))
		span.SetStatus(codes.Error, code)
	} else {
		tracing.Fail(span, err)
	}
	span.End()
	return err
}
