package tracing

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// Statements makes the spans of the statements of one database. A nil *Statements makes none.
type Statements struct {
	tracer     *Tracer
	database   string
	attributes []attribute.KeyValue
}

// Statements returns what makes the spans of statements in a database: "master" or "store".
// system is the name of the engine in OpenTelemetry's conventions. It returns nil while
// tracing is off.
func (t *Tracer) Statements(database, system string, attributes ...attribute.KeyValue) *Statements {
	if t == nil {
		return nil
	}
	return &Statements{t, database, append(attributes, attribute.String("db.system.name", system), attribute.String("stoa.database", database))}
}

// Statement is the span of a statement. The zero Statement is none.
type Statement struct{ span trace.Span }

// Begin begins the span of a statement, if ctx belongs to a trace that is recorded.
// Statements outside of one, such as those that look for work, have none.
func (s *Statements) Begin(ctx context.Context, query string) Statement {
	if s == nil || !trace.SpanFromContext(ctx).IsRecording() {
		return Statement{}
	}
	operation := operationOf(query)
	_, span := s.tracer.Start(ctx, operation+" "+s.database, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(s.attributes...))
	span.SetAttributes(attribute.String("db.operation.name", operation))
	if text := WithoutValues(query); text != "" && text != operation {
		span.SetAttributes(attribute.String("db.query.text", text))
	}
	return Statement{span}
}

// BeginUnseen begins the span of a statement that a library sends for us and does not show: an
// operation on a table, with batch rows at once. It has a span if the trace of ctx is recorded,
// also when the span that ctx names has ended.
func (s *Statements) BeginUnseen(ctx context.Context, operation, table string, batch int) Statement {
	if s == nil || !trace.SpanContextFromContext(ctx).IsSampled() {
		return Statement{}
	}
	_, span := s.tracer.Start(ctx, operation+" "+s.database, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(s.attributes...))
	span.SetAttributes(attribute.String("db.operation.name", operation), attribute.String("db.collection.name", table),
		attribute.String("db.query.summary", operation+" "+table))
	if batch > 1 {
		span.SetAttributes(attribute.Int("db.operation.batch.size", batch))
	}
	return Statement{span}
}

// End ends the span.
func (s Statement) End(err error) {
	if s.span == nil {
		return
	}
	if !errors.Is(err, sql.ErrNoRows) {
		Fail(s.span, err)
	}
	s.span.End()
}

// errorType returns what kind of error err is, without its text: a SQLSTATE, a code of the
// platform, or the type of the error.
func errorType(err error) string {
	var state interface{ SQLState() string }
	var known interface{ ErrorCode() string }
	switch {
	case errors.As(err, &state):
		return state.SQLState()
	case errors.As(err, &known):
		return known.ErrorCode()
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	}
	for { // what wraps an error only to add text says nothing of its type
		inner := errors.Unwrap(err)
		if inner == nil || fmt.Sprintf("%T", err) != "*fmt.wrapError" {
			return fmt.Sprintf("%T", err)
		}
		err = inner
	}
}

// operationOf returns the first word of a statement in upper case.
func operationOf(query string) string {
	query = strings.TrimLeft(query, " \t\r\n(")
	end := strings.IndexFunc(query, func(r rune) bool { return (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') })
	if end < 0 {
		end = len(query)
	}
	return strings.ToUpper(query[:min(end, 20)])
}

// WithoutValues returns the text of a statement with ? for each literal. Nearly all of the
// platform's statements have placeholders; some, such as the creation of a role, cannot. It
// returns "" for text in which it cannot tell the literals for sure: one with backslashes,
// quotes of dollars or comments, which the engines read differently.
func WithoutValues(query string) string {
	if strings.Contains(query, "--") || strings.Contains(query, "/*") || strings.Contains(query, "#") {
		return ""
	}
	var out strings.Builder
	for i := 0; i < len(query) && out.Len() < maxText; {
		c := query[i]
		switch {
		case c == '\\', c == '$' && (i+1 == len(query) || !isDigit(query[i+1])):
			return ""
		case c == '\'', c == '"':
			end := strings.IndexByte(query[i+1:], c)
			if end < 0 || strings.IndexByte(query[i+1:i+1+end], '\\') >= 0 {
				return ""
			}
			i += end + 2
			out.WriteByte('?')
		case isDigit(c) && (i == 0 || !isWord(query[i-1])):
			for i < len(query) && (isWord(query[i]) || query[i] == '.') {
				i++
			}
			out.WriteByte('?')
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			for i < len(query) && strings.IndexByte(" \t\r\n", query[i]) >= 0 {
				i++
			}
			out.WriteByte(' ')
		default:
			out.WriteByte(c)
			i++
		}
	}
	return strings.TrimSpace(out.String())
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// isWord reports whether c may be a part of a name or placeholder.
func isWord(c byte) bool {
	return isDigit(c) || c == '_' || c == '$' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}
