// A program with OpenTelemetry's SDK and the counting processor of the docs. Prints OTLP JSON.

import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.SpanContext;
import io.opentelemetry.api.trace.TraceFlags;
import io.opentelemetry.api.trace.TraceState;
import io.opentelemetry.api.trace.Tracer;
import io.opentelemetry.context.Context;
import io.opentelemetry.context.Scope;
import io.opentelemetry.sdk.common.CompletableResultCode;
import io.opentelemetry.sdk.trace.SdkTracerProvider;
import io.opentelemetry.sdk.trace.data.SpanData;
import io.opentelemetry.sdk.trace.export.SimpleSpanProcessor;
import io.opentelemetry.sdk.trace.export.SpanExporter;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.List;

public final class Main {
  private static final List<String> SPANS = Collections.synchronizedList(new ArrayList<>());
  private static Tracer tracer;

  private static final class Collector implements SpanExporter {
    @Override
    public CompletableResultCode export(Collection<SpanData> spans) {
      for (SpanData span : spans) {
        List<String> attributes = new ArrayList<>();
        span.getAttributes().forEach((key, value) -> attributes.add(
            "{\"key\":\"" + key.getKey() + "\",\"value\":{\"" + (value instanceof Boolean ? "boolValue" : "intValue") + "\":" + value + "}}"));
        SpanContext parent = span.getParentSpanContext();
        SPANS.add("{\"traceId\":\"" + span.getTraceId() + "\",\"spanId\":\"" + span.getSpanId() + "\",\"name\":\"" + span.getName()
            + (parent.isValid() ? "\",\"parentSpanId\":\"" + parent.getSpanId() : "") + "\",\"flags\":" + (parent.isRemote() ? 0x300 : 0x100)
            + ",\"startTimeUnixNano\":" + span.getStartEpochNanos() + ",\"endTimeUnixNano\":" + span.getEndEpochNanos()
            + ",\"attributes\":[" + String.join(",", attributes) + "]}");
      }
      return CompletableResultCode.ofSuccess();
    }

    @Override
    public CompletableResultCode flush() {
      return CompletableResultCode.ofSuccess();
    }

    @Override
    public CompletableResultCode shutdown() {
      return CompletableResultCode.ofSuccess();
    }
  }

  private static void work(Context context, String name) {
    Span span = tracer.spanBuilder(name).setParent(context).startSpan();
    try (Scope ignored = span.makeCurrent()) {
      tracer.spanBuilder(name + " inner").startSpan().end();
    }
    span.end();
  }

  private static void inThreads(int count, java.util.function.IntConsumer body, Runnable meanwhile) throws InterruptedException {
    List<Thread> threads = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      int number = i;
      threads.add(new Thread(() -> body.accept(number)));
    }
    threads.forEach(Thread::start);
    meanwhile.run();
    for (Thread thread : threads) {
      thread.join();
    }
  }

  public static void main(String[] arguments) throws InterruptedException {
    SdkTracerProvider provider = SdkTracerProvider.builder()
        .addSpanProcessor(new CountChildren()).addSpanProcessor(SimpleSpanProcessor.create(new Collector())).build();
    tracer = provider.get("program");
    Span root = tracer.spanBuilder("root").startSpan();
    Context inside = Context.current().with(root);
    inThreads(3, i -> work(inside, "abc".substring(i, i + 1)), () -> {});
    Span tool = tracer.spanBuilder("tool").setParent(inside).startSpan();
    tool.end();
    root.end();
    tracer.spanBuilder("late").setParent(Context.current().with(tool)).startSpan().end();
    SpanContext remote = SpanContext.createFromRemoteParent(
        "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", TraceFlags.getSampled(), TraceState.getDefault());
    work(Context.current().with(Span.wrap(remote)), "server");
    for (int round = 0; round < 200; round++) {
      Span parent = tracer.spanBuilder("raced").startSpan();
      Context context = Context.current().with(parent);
      inThreads(2, ignored -> {
        for (int i = 0; i < 5; i++) {
          tracer.spanBuilder("child").setParent(context).startSpan().end();
        }
      }, parent::end);
    }
    provider.close();
    System.out.println("{\"resourceSpans\":[{\"resource\":{},\"scopeSpans\":[{\"scope\":{\"name\":\"program\"},\"spans\":["
        + String.join(",", SPANS) + "]}]}]}");
  }
}
