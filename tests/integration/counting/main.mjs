// A program with OpenTelemetry's SDK and the counting processor of the docs. Prints OTLP JSON as the exporter sends it.
import { context, trace, TraceFlags } from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { BasicTracerProvider, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base';
import { CountChildren } from './counting.mjs';

const exporter = new OTLPTraceExporter({ url: process.env.OTLP_URL });
const provider = new BasicTracerProvider({ spanProcessors: [new CountChildren(), new SimpleSpanProcessor(exporter)] });
trace.setGlobalTracerProvider(provider);
context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
const tracer = trace.getTracer('program');
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function work(name) {
  await tracer.startActiveSpan(name, async (span) => {
    await sleep(1);
    tracer.startSpan(`${name} inner`).end();
    span.end();
  });
}

let late;
await tracer.startActiveSpan('root', async (root) => {
  await Promise.all([work('a'), work('b'), work('c')]);
  await tracer.startActiveSpan('tool', async (tool) => {
    late = sleep(20).then(() => tracer.startSpan('late').end());
    tool.end();
  });
  root.end();
});
await late;
const remote = { traceId: '0af7651916cd43dd8448eb211c80319c', spanId: 'b7ad6b7169203331', traceFlags: TraceFlags.SAMPLED, isRemote: true };
await context.with(trace.setSpanContext(context.active(), remote), () => work('server'));
await provider.forceFlush();
await provider.shutdown();
