// A program with OpenTelemetry's SDK and the counting processor of the docs. Prints OTLP JSON.
package main

import (
	"context"
	"encoding/json"
	"os"
	"sync"
	"time"

	"counting/counting"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

type object = map[string]any

type collector struct {
	lock  sync.Mutex
	spans []object
}

func (c *collector) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	c.lock.Lock()
	defer c.lock.Unlock()
	for _, span := range spans {
		attributes := []object{}
		for _, one := range span.Attributes() {
			value := object{"stringValue": one.Value.AsString()}
			switch one.Value.AsInterface().(type) {
			case int64:
				value = object{"intValue": one.Value.AsInt64()}
			case bool:
				value = object{"boolValue": one.Value.AsBool()}
			}
			attributes = append(attributes, object{"key": string(one.Key), "value": value})
		}
		found := object{
			"traceId": span.SpanContext().TraceID().String(), "spanId": span.SpanContext().SpanID().String(), "name": span.Name(),
			"startTimeUnixNano": span.StartTime().UnixNano(), "endTimeUnixNano": span.EndTime().UnixNano(), "attributes": attributes,
			"flags": 0x100,
		}
		if span.Parent().IsValid() {
			found["parentSpanId"] = span.Parent().SpanID().String()
		}
		if span.Parent().IsRemote() {
			found["flags"] = 0x300
		}
		c.spans = append(c.spans, found)
	}
	return nil
}

func (c *collector) Shutdown(context.Context) error { return nil }

func main() {
	found := &collector{}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithSpanProcessor(&counting.CountChildren{}),
		sdktrace.WithSpanProcessor(sdktrace.NewSimpleSpanProcessor(found)),
	)
	tracer := provider.Tracer("program")
	work := func(ctx context.Context, name string) {
		ctx, span := tracer.Start(ctx, name)
		_, inner := tracer.Start(ctx, name+" inner")
		inner.End()
		span.End()
	}
	ctx, root := tracer.Start(context.Background(), "root")
	var group sync.WaitGroup
	for _, name := range []string{"a", "b", "c"} {
		group.Add(1)
		go func() { defer group.Done(); work(ctx, name) }()
	}
	group.Wait()
	inside, tool := tracer.Start(ctx, "tool")
	tool.End()
	root.End()
	_, late := tracer.Start(inside, "late")
	late.End()
	remote := trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled, Remote: true,
	})
	work(trace.ContextWithRemoteSpanContext(context.Background(), remote), "server")
	race(tracer)
	scope := object{"scope": object{"name": "program"}, "spans": found.spans}
	_ = json.NewEncoder(os.Stdout).Encode(object{"resourceSpans": []object{{"resource": object{}, "scopeSpans": []object{scope}}}})
}

// race ends parents while other goroutines start children of them.
func race(tracer trace.Tracer) {
	for range 200 {
		ctx, parent := tracer.Start(context.Background(), "raced")
		var group sync.WaitGroup
		for range 2 {
			group.Add(1)
			go func() {
				defer group.Done()
				for range 5 {
					_, child := tracer.Start(ctx, "child")
					child.End()
				}
			}()
		}
		time.Sleep(time.Microsecond)
		parent.End()
		group.Wait()
	}
}
